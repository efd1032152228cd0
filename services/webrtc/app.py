"""Wiring of the webrtc worker."""

from __future__ import annotations

from services.webrtc.document import DocumentWatch
from services.webrtc.transport import WebrtcTransport
from shared.errors import ConfigError
from shared.process.run import CannotStart, Process
from shared.worker.serve import serve_transport


async def app(process: Process) -> None:
    """Serve the transport until the process is told to stop."""
    try:
        document = DocumentWatch(process.config.rendezvous.document)
    except ConfigError as error:
        raise CannotStart(str(error)) from error
    transport = WebrtcTransport(process.bus, process.subjects, process.config.webrtc, document)
    process.tasks.start(_drain(process, transport), name="drain-signalling")
    await serve_transport(process, transport)


async def _drain(process: Process, transport: WebrtcTransport) -> None:
    """Hand the signalling over as soon as the process is told to stop, while `serve_transport` drains the links."""
    await process.stopping.wait()
    await transport.drain()
