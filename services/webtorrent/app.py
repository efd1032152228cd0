"""Wires the webtorrent worker."""

from __future__ import annotations

from services.webtorrent.transport import WebtorrentTransport
from shared.bus.messages.envelopes import SignDhtRecord, Signed
from shared.process.run import Process
from shared.worker.serve import serve_transport

SIGN_TIMEOUT_S = 2.0


async def app(process: Process) -> None:
    """Serve the webtorrent transport until the process is asked to stop."""

    async def sign(body: bytes) -> bytes:
        call = SignDhtRecord(body)
        signed = await process.bus.request(process.subjects.sign_record, call, Signed, timeout_s=SIGN_TIMEOUT_S)
        return signed.signature

    await serve_transport(process, WebtorrentTransport(process.config, sign=sign))
