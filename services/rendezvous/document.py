"""`GET /rendezvous.json`: the document that tells nodes where to meet.

With `rendezvous.document` set it is that file, read again whenever it changes; while the file is broken, the
last good one is served. Without, it names this rendezvous itself, by the name that the asker reached it by.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec
from aiohttp import web

from shared.errors import ConfigError
from shared.settings.rendezvous import PeerServer, RendezvousDocument, load_document

log = logging.getLogger(__name__)


class DocumentSource:
    """The document of one file, or our own."""

    def __init__(self, path: str, base_path: str) -> None:
        """Args: path: of the file, "" = none. base_path: where we are served, with slashes around.

        Raises: ConfigError: the file is there and broken, or missing.
        """
        self._path, self._base_path = path, base_path
        self._stamp = _stamp(path)
        self._document = load_document(path)

    async def handle(self, request: web.Request) -> web.Response:
        if self._path:
            await self._reload()
        document = self._document if self._path else self._own(request)
        return web.Response(
            body=msgspec.json.encode(document),
            content_type="application/json",
            headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"},
        )

    def _own(self, request: web.Request) -> RendezvousDocument:
        secure = request.scheme == "https"
        return RendezvousDocument(
            peer_servers=[PeerServer(f"{'https' if secure else 'http'}://{request.host}{self._base_path}")],
            webtorrent_trackers=[f"{'wss' if secure else 'ws'}://{request.host}{self._base_path}announce"],
        )

    async def _reload(self) -> None:
        stamp = await asyncio.to_thread(_stamp, self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._document = await asyncio.to_thread(load_document, self._path)
        except ConfigError as error:
            log.warning("the rendezvous document cannot be read; serving the last good one (%s)", error.cause)


def _stamp(path: str) -> tuple[int, int] | None:
    """What changes with the file; None where there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
