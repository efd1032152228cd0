"""Several PeerServers: which are used, and what each kind of failure of one leads to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from services.webrtc import signalling as module
from services.webrtc.signalling import healthiest
from shared.errors import Cause
from shared.settings.rendezvous import PeerServer
from shared.transport.contract import StateChanged
from shared.transports import TransportState
from tests.fakes.waiting import until
from tests.services.webrtc.conftest import MakeNode
from tests.services.webrtc.node import Node
from tests.services.webrtc.peer_server import FakePeerServer

READY = StateChanged(TransportState.READY)


def test_those_that_serve_come_first_in_the_documents_order() -> None:
    servers = [PeerServer(f"http://127.0.0.1:{number}/") for number in range(4)]
    assert healthiest(servers, {}, 2) == servers[:2]
    assert healthiest(servers, {servers[0]: 1}, 2) == servers[1:3]
    assert healthiest(servers, {servers[0]: 1, servers[1]: 2, servers[2]: 3, servers[3]: 3}, 3) == servers[:3]
    assert healthiest([servers[0], servers[0]], {}, 2) == [servers[0]]


@asynccontextmanager
async def bad_server(kind: str) -> AsyncIterator[PeerServer]:
    """saturated: ERROR, as npm's peer; full: HTTP 503; silent: takes the socket and says nothing; hangs: no upgrade."""

    async def serve(request: web.Request) -> web.StreamResponse:
        if kind == "full":
            return web.Response(status=503)
        if kind == "hangs":
            await asyncio.Event().wait()
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        said = {"saturated": "ERROR", "taken": "ID-TAKEN", "key": "INVALID-KEY"}.get(kind)
        if said is not None:
            await ws.send_str(json.dumps({"type": said, "payload": {"msg": "no"}}))
            await ws.close()
        async for _ in ws:
            pass
        return ws

    app = web.Application()
    app.router.add_get("/peerjs", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield PeerServer(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    finally:
        await runner.cleanup()


async def is_ready(node: Node) -> None:
    await until(lambda: node.worker.state == READY, timeout_s=20)


@pytest.mark.parametrize("kind", ["saturated", "full", "silent", "hangs", "taken", "key", "gone"])
async def test_the_next_server_is_used(
    make_node: MakeNode, server: FakePeerServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SERVERS", 1)
    a, b = await make_node("a"), await make_node("b")
    async with bad_server(kind) as bad:
        first = PeerServer("http://127.0.0.1:9/") if kind == "gone" else bad
        a.write_document([first, server.entry])
        await until(lambda: a.peer_id not in server.sockets)  # the document is taken up: the bad one comes first
        await until(lambda: a.peer_id in server.sockets, timeout_s=20)
        await is_ready(a)
        await is_ready(b)
        await a.worker.transport.dial(b.hint, 5)
        assert len(a.worker.ups) == 1
        await a.stop()


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("saturated", Cause.REFUSED),
        ("full", Cause.BUSY),
        ("silent", Cause.SILENT),
        ("hangs", Cause.SILENT),
        ("taken", Cause.ID_TAKEN),
        ("key", Cause.FORBIDDEN),
    ],
)
async def test_each_refusal_has_its_cause(make_node: MakeNode, kind: str, cause: Cause) -> None:
    a = await make_node("a")
    async with bad_server(kind) as bad:
        a.write_document([bad])
        await until(lambda: any(place.cause is cause for place in a.worker.transport.meeting_places()), timeout_s=20)
        await a.stop()
