"""Wires the webtorrent worker."""

from __future__ import annotations

from services.webtorrent.transport import WebtorrentTransport
from shared.process.run import Process
from shared.worker.serve import serve_transport


async def app(process: Process) -> None:
    """Serve the webtorrent transport until the process is asked to stop."""
    await serve_transport(process, WebtorrentTransport(process.config))
