"""Wiring of the broadcast worker."""

from __future__ import annotations

from services.broadcast.transport import BroadcastTransport
from shared.process.run import CannotStart, Process
from shared.worker.serve import serve_transport


async def app(process: Process) -> None:
    """Serve the transport until the process is asked to stop."""
    if process.mesh is None:
        raise CannotStart("the broadcast service needs its connection to the account `mesh`")
    settings = process.config.broadcast
    await serve_transport(process, BroadcastTransport(process.mesh, settings.origin, settings.channel))
