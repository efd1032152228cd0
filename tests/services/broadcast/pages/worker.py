"""A broadcast worker that takes pages, on a mesh in memory, and pages on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from services.broadcast.pages.endpoint import PAGE_SOCKETS
from services.broadcast.pages.service import Pages
from services.broadcast.transport import BroadcastTransport
from shared.bus.contract import Bus
from shared.clock import monotonic
from shared.settings.config import BroadcastSettings
from shared.transport.contract import PeerHint
from shared.websocket.server import SocketLimits
from tests.conformance.suite import End
from tests.fakes import waiting
from tests.services.broadcast.pages.page import Page

ORIGIN = "http://page.test"
CHANNEL = "swarm-space-webtorrent"
DEADLINE_S = 60.0
"""For one thing to happen over real sockets, on a machine that does ten other things."""


async def until(condition: Callable[[], object]) -> None:
    await waiting.until(condition, DEADLINE_S)


class PagesWorker(End):
    """A running transport with its pages."""

    def __init__(self, mesh: Bus, *, limits: SocketLimits = PAGE_SOCKETS, **settings: Any) -> None:
        self.settings = BroadcastSettings(**{"origins": [ORIGIN], "channels": ["c"], **settings})
        self.pages = Pages(mesh, self.settings, monotonic, limits)
        self.broadcast = BroadcastTransport(mesh, self.settings.origin, self.settings.channel, pages=self.pages)
        self.broadcast.set_identity(bytes(32))
        super().__init__(self.broadcast, PeerHint(bytes(32), "peer-x"))

    @property
    def url(self) -> str:
        return self.pages.url

    async def serving(self) -> PagesWorker:
        await self.start()
        await until(lambda: self.pages.place.state == "open")
        return self


class SocketPage(Page):
    """A page on a socket; `connect` again goes on where it was."""

    def __init__(self, channel: str = "c", browser: bytes = b"") -> None:
        super().__init__(channel, browser)
        self.close_code: int | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(
        self, http: aiohttp.ClientSession, url: str, *, since_ms: int = 0, origin: str = ORIGIN, token: str = ""
    ) -> None:
        """Raises: aiohttp.WSServerHandshakeError."""
        await self.gone()
        self.close_code = None
        headers = {"Origin": origin} if origin else {}
        query = f"?token={token}" if token else ""
        self._ws = await http.ws_connect(f"{url}/pages{query}", headers=headers, max_msg_size=8 * 2**20)
        self._reading = asyncio.create_task(self._read(self._ws))
        with suppress(ConnectionError):
            for frame in self.hello(since_ms):
                await self._ws.send_bytes(frame)

    async def stay(self, http: aiohttp.ClientSession, url: str) -> None:
        """Stay connected until cancelled, as `broadcast.js` does, and go on where it was."""
        since_ms = 0
        while True:
            # PostRefused, or the port has nobody behind it for a moment.
            with suppress(aiohttp.ClientError, OSError):
                await self.connect(http, url, since_ms=since_ms)
                assert self._reading is not None
                await self._reading
            since_ms = 20_000 if self.id else 0
            await asyncio.sleep(0.1)

    async def say(self, value: bytes) -> None:
        """PagePost; without a socket it goes with the next one."""
        data = self.post(value)
        with suppress(ConnectionError, AssertionError):
            await self.send(data)

    async def send(self, data: bytes) -> None:
        assert self._ws is not None
        await self._ws.send_bytes(data)

    async def gone(self) -> None:
        """Close the tab."""
        if self._ws is not None and self._reading is not None:
            await self._ws.close()
            await asyncio.wait({self._reading})
            self._ws = None

    async def heard_all(self, ready: Callable[[], object]) -> None:
        await until(ready)

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            self.receive(message.data)
        self.close_code = ws.close_code


@asynccontextmanager
async def pages_on(*workers: PagesWorker) -> AsyncIterator[aiohttp.ClientSession]:
    """Run workers and a client; everything ends."""
    async with aiohttp.ClientSession() as http:
        try:
            for worker in workers:
                await worker.serving()
            yield http
        finally:
            for worker in workers:
                await worker.stop()
