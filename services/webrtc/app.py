"""Wiring of the webrtc worker."""

from __future__ import annotations

from services.webrtc.transport import WebrtcTransport
from shared.process.run import Process
from shared.settings.rendezvous_follower import DocumentFollower
from shared.worker.serve import serve_transport
from shared.worker.speeches import SPEECHES


async def app(process: Process) -> None:
    """Serve the transport until the process is asked to stop."""
    document = DocumentFollower(process.config.rendezvous.document)
    transport = WebrtcTransport(process.bus, process.subjects, process.config.webrtc, document, speeches=SPEECHES)
    process.tasks.start(_drain(process, transport), name="drain-signalling")
    await serve_transport(process, transport)


async def _drain(process: Process, transport: WebrtcTransport) -> None:
    """Hand the signalling over as soon as the process is asked to stop, while `serve_transport` drains the links."""
    await process.stopping.wait()
    await transport.drain()
