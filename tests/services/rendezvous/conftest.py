"""A rendezvous on a free port of loopback, and clients that are plain WebSockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest_asyncio

from services.rendezvous.app import Rendezvous
from shared.settings.config import RendezvousSettings

DEADLINE_S = 5.0


class Sockets:
    """Opens sockets to one rendezvous and closes them at the end."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http, self.url = http, url

    async def peer(self, peer_id: str, token: str = "t", key: str = "peerjs") -> aiohttp.ClientWebSocketResponse:
        query = {"key": key, "id": peer_id, "token": token, "version": "1.5.5"}
        return await self.http.ws_connect(f"{self.url}/peerjs", params=query)

    async def announcer(self, path: str = "/announce") -> aiohttp.ClientWebSocketResponse:
        return await self.http.ws_connect(f"{self.url}{path}")

    async def health(self) -> dict[str, Any]:
        async with self.http.get(f"{self.url}/healthz") as response:
            tree: dict[str, Any] = await response.json()
            return tree


async def receive(ws: aiohttp.ClientWebSocketResponse) -> Any:
    """The next message's JSON; the close code where the socket closed instead."""
    message = await ws.receive(timeout=DEADLINE_S)
    if message.type is aiohttp.WSMsgType.TEXT:
        return json.loads(message.data)
    await ws.close()
    return ws.close_code


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def rendezvous() -> AsyncIterator[Rendezvous]:
    server = Rendezvous(RendezvousSettings())
    await server.start()
    yield server
    await server.close()


@pytest_asyncio.fixture
async def sockets(rendezvous: Rendezvous) -> AsyncIterator[Sockets]:
    async with aiohttp.ClientSession() as http:
        yield Sockets(http, rendezvous.url)
