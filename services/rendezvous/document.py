"""`GET /rendezvous.json`: the document that tells nodes where to meet.

With `rendezvous.document` set it is that file, read again whenever it is asked for; while the file is broken, the
last good one is served and /healthz says so. Without, it names this rendezvous itself, by the name that the caller
reached it by; behind a configured proxy, by the name and scheme that the proxy was reached by.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from shared.settings.rendezvous import Fault, PeerServer, RendezvousDocument
from shared.settings.rendezvous_follower import DocumentFollower
from shared.websocket.forwarded import Network, is_proxy


class DocumentSource:
    """The document of one file, or our own."""

    def __init__(self, path: str, base_path: str, proxies: Sequence[Network]) -> None:
        """Args: path: of the file, "" = none. base_path: where we are served, with slashes around."""
        self._path, self._base_path, self._proxies = path, base_path, proxies
        self._follower = DocumentFollower(path)

    @property
    def problem(self) -> bool:
        """Whether the file's newest version cannot be read."""
        return bool(self._follower.problem)

    @property
    def faults(self) -> tuple[Fault, ...]:
        return self._follower.faults

    async def reload(self) -> None:
        await self._follower.reload()

    async def handle(self, request: web.Request) -> web.Response:
        await self._follower.reload()
        document = self._follower.current if self._path else self._own(request)
        return web.Response(
            body=msgspec.json.encode(document),
            content_type="application/json",
            headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"},
        )

    def _own(self, request: web.Request) -> RendezvousDocument:
        host, scheme = request.host, request.scheme
        if is_proxy(request.remote or "", self._proxies):
            host = request.headers.get("X-Forwarded-Host", host)
            scheme = request.headers.get("X-Forwarded-Proto", scheme)
        secure = scheme == "https"
        return RendezvousDocument(
            peer_servers=[PeerServer(f"{'https' if secure else 'http'}://{host}{self._base_path}")],
            webtorrent_trackers=[f"{'wss' if secure else 'ws'}://{host}{self._base_path}announce"],
        )
