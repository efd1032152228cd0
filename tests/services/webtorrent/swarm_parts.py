"""What the worker's tests build on: a tracker on loopback, a DHT node, and a transport with its events."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, assert_never

from aiohttp import WSMsgType, web

from services.webtorrent.dht import LOOPBACK_SETTINGS
from services.webtorrent.transport import WebtorrentTransport
from shared.clock import monotonic
from shared.ids import LinkId
from shared.settings.config import Config, RendezvousSettings, WebtorrentSettings
from shared.transport.contract import LinkDown, LinkUp, PeerHint, RecordReceived, StateChanged, TransportEvent
from shared.wire.wstracker.tracker import Tracker

lt: Any = importlib.import_module("libtorrent")  # its stubs know less than it does
WAIT_S = 15.0
NO_HINT = PeerHint(bytes(32), "peer-0000000000000000")


class Node:
    """A running transport and what it said."""

    def __init__(self, transport: WebtorrentTransport) -> None:
        self.transport = transport
        self.ups: list[LinkUp] = []
        self.downs: list[LinkDown] = []
        self.states: list[StateChanged] = []
        self.records: dict[LinkId, list[bytes]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def receive(self, event: TransportEvent) -> None:
        match event:
            case LinkUp():
                self.ups.append(event)
            case LinkDown():
                self.downs.append(event)
            case RecordReceived():
                self.records.setdefault(event.link, []).append(event.record)
            case StateChanged():
                self.states.append(event)
            case _:
                assert_never(event)
        self._changed.set()

    async def start(self) -> None:
        self._task = asyncio.create_task(self.transport.run(self.receive))
        await self.until(lambda: self.transport.endpoint is not None)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that an event of ours, or just time, makes true."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                assert self._task is None or not self._task.done(), "the transport has ended"
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await self._changed.wait()

    async def up(self, count: int = 1) -> LinkUp:
        await self.until(lambda: len(self.ups) >= count)
        return self.ups[count - 1]

    def hint(self, key: bytes = bytes(32)) -> PeerHint:
        """How others may reach it."""
        return PeerHint(key, "peer-0000000000000000", (str(self.transport.endpoint),))


def config(
    document: Path | None = None, *, host: str = "127.0.0.1", dht: bool = False, trackers: bool = False, **other: Any
) -> Config:
    return Config(
        rendezvous=RendezvousSettings(document=str(document) if document else ""),
        webtorrent=WebtorrentSettings(host=host, dht=dht, trackers=trackers, **other),
    )


@asynccontextmanager
async def running(*configs: Config) -> AsyncIterator[list[Node]]:
    nodes = [Node(WebtorrentTransport(each)) for each in configs]
    try:
        for node in nodes:
            await node.start()
        yield nodes
    finally:
        for node in nodes:
            await node.stop()


def write_document(path: Path, *, trackers: list[str] | None = None, dht_nodes: list[str] | None = None) -> Path:
    path.write_text(json.dumps({"webtorrentTrackers": trackers or [], "dhtNodes": dht_nodes or []}))
    return path


def free_udp_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class TrackerServer:
    """The tracker machine behind an aiohttp WebSocket."""

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self._tracker = Tracker(random.sample)
        self._sockets: dict[int, web.WebSocketResponse] = {}
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"ws://127.0.0.1:{self.port}/"

    async def close(self) -> None:
        for ws in list(self._sockets.values()):
            await ws.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        number = id(ws)
        self._sockets[number] = ws
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                self._tracker.receive_text(number, message.data, monotonic())
                for target, text in self._tracker.data_to_send():
                    if target in self._sockets:
                        await self._sockets[target].send_str(text)
        del self._sockets[number]
        self._tracker.close_socket(number)
        return ws


@asynccontextmanager
async def tracker_server() -> AsyncIterator[TrackerServer]:
    server = TrackerServer()
    await server.start()
    try:
        yield server
    finally:
        await server.close()


class DhtNode:
    """A plain libtorrent DHT node: the DHT that our two nodes join."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.session: Any = lt.session(
            {
                "listen_interfaces": f"{host}:0",
                "enable_dht": True,
                "dht_bootstrap_nodes": "",
                "alert_mask": 0,
                "enable_lsd": False,
                "enable_upnp": False,
                "enable_natpmp": False,
                **LOOPBACK_SETTINGS,
            }
        )

    def address(self) -> str:
        return f"{self.host}:{self.session.listen_port()}"
