"""Our membership at trackers, seen from a peer that speaks raw JSON, and through their outages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from services.webtorrent.channels import MAX_OFFERS_OPEN
from services.webtorrent.swarm import control_infohash
from services.webtorrent.trackers import EMPTY_SDP
from services.webtorrent.transport import WebtorrentTransport
from shared.clock import monotonic
from shared.errors import Cause, TransportError
from shared.transports import TransportState
from tests.services.webtorrent.swarm_parts import (
    NO_HINT,
    Node,
    TrackerServer,
    config,
    running,
    tracker_server,
    write_document,
)

INFOHASH = control_infohash("public").decode("latin-1")
PEER_ID = "-XX0001-abcdefghijkl"


class JsonPeer:
    """A tracker client written from docs/webtorrent.md, without our codec."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws

    async def announce(self, offer: dict[str, Any] | None = None, **fields: Any) -> None:
        offers = (
            [{"offer_id": "o" * 20, "offer": {"type": "offer", "sdp": "v=0\r\n", **offer}}] if offer is not None else []
        )
        message = {"action": "announce", "info_hash": INFOHASH, "peer_id": PEER_ID, "numwant": 5, "offers": offers}
        await self._ws.send_str(json.dumps({**message, **fields}))

    async def receive(self, key: str) -> dict[str, Any]:
        """The next message that has this key."""
        async with asyncio.timeout(10.0):
            while True:
                message: dict[str, Any] = json.loads(await self._ws.receive_str())
                if key in message:
                    return message


@asynccontextmanager
async def json_peer(tracker: TrackerServer) -> AsyncIterator[JsonPeer]:
    async with aiohttp.ClientSession() as http, http.ws_connect(tracker.url) as ws:
        yield JsonPeer(ws)


@asynccontextmanager
async def node_at(tracker: TrackerServer, folder: Path, **settings: Any) -> AsyncIterator[Node]:
    document = write_document(folder / "document.json", trackers=[tracker.url])
    async with running(config(document, trackers=True, **settings)) as (node,):
        await node.until(lambda: up_count(node) == 1)
        yield node


def up_count(node: Node) -> int:
    return int(node.transport.measures().get("trackers_up", 0))


async def test_our_offers_and_answers_carry_our_wire(tmp_path: Path) -> None:
    async with tracker_server() as tracker, json_peer(tracker) as peer:
        await peer.announce()
        async with node_at(tracker, tmp_path) as node:
            ours = str(node.transport.endpoint)
            relayed = await peer.receive("offer")
            assert relayed["peer_id"].startswith("-sb0100-")
            assert relayed["offer"]["swarm-space"] == {"wire": [ours]}
            assert relayed["offer"]["sdp"].startswith("v=0\r\n")
            # A node's offer is answered in kind, though its address is one that we may not dial.
            await peer.announce({"sdp": EMPTY_SDP, "swarm-space": {"wire": ["192.0.2.1:6881", "a name:1"]}})
            answered = await peer.receive("answer")
            assert answered["answer"]["swarm-space"] == {"wire": [ours]}
            assert answered["offer_id"] == "o" * 20
            assert node.transport.refused == {"endpoint": 2}
            assert not [name for name in node.transport.measures() if name.startswith("known_")]


async def test_offers_and_answers_that_describe_nothing_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.webtorrent.trackers.MIN_ANNOUNCE_S", 0.0)
    async with tracker_server() as tracker, json_peer(tracker) as peer, node_at(tracker, tmp_path) as node:
        await peer.announce({})
        await node.until(lambda: node.transport.refused == {"description": 1})
        await peer.announce({"swarm-space": {"wire": "not a list"}}, offers=None)
        # Its answer to an offer of ours neither.
        async with asyncio.timeout(10.0):
            await node.transport.dial(NO_HINT, 1.0)
            relayed = await peer.receive("offer")
        answer = {"to_peer_id": relayed["peer_id"], "offer_id": relayed["offer_id"], "offers": None}
        await peer.announce(answer={"type": "answer", "sdp": "v=0\r\n"}, **answer)
        await node.until(lambda: node.transport.refused["description"] == 2)
        assert not node.ups


async def test_an_answer_with_a_hint_is_dialled(tmp_path: Path) -> None:
    async with tracker_server() as tracker, json_peer(tracker) as peer, running(config()) as (other,):
        await peer.announce()
        async with node_at(tracker, tmp_path) as node:
            relayed = await peer.receive("offer")
            hint = {"type": "answer", "sdp": EMPTY_SDP, "swarm-space": {"wire": [str(other.transport.endpoint)]}}
            answer = {"to_peer_id": relayed["peer_id"], "offer_id": relayed["offer_id"], "offers": None}
            await peer.announce(answer=hint, **answer)
            assert (await node.up()).dialer


async def test_what_a_tracker_says_wrong_is_counted(tmp_path: Path) -> None:
    async with tracker_server() as tracker, node_at(tracker, tmp_path) as node:
        for ws in tracker._sockets.values():
            await ws.send_str("{")
            await ws.send_bytes(b"binary")
            await ws.send_str(json.dumps({"action": "announce", "info_hash": INFOHASH, "offer": {}, "offer_id": 5}))
        await node.until(lambda: node.transport.refused == {"tracker_message": 3})
        assert up_count(node) == 1


async def test_a_tracker_that_goes_and_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.webtorrent.trackers.RETRY_FIRST_S", 0.05)
    for module in ("health", "worker"):
        monkeypatch.setattr(f"services.webtorrent.{module}.START_GRACE_S", 0.0)
    async with tracker_server() as tracker, node_at(tracker, tmp_path) as node:
        await node.until(lambda: node.states[-1].state is TransportState.READY)
        await tracker.close()
        await node.until(lambda: node.states[-1].last_error is Cause.SIGNALLING_UNAVAILABLE)
        with pytest.raises(TransportError) as raised:
            await node.transport.dial(NO_HINT, 1.0)
        assert raised.value.cause is Cause.SIGNALLING_UNAVAILABLE
        await tracker.start(tracker.port)
        await node.until(lambda: node.states[-1].state is TransportState.READY)


async def test_one_tracker_down_is_no_news(tmp_path: Path) -> None:
    async with tracker_server() as tracker:
        document = write_document(tmp_path / "document.json", trackers=["ws://127.0.0.1:9/", "no url", tracker.url])
        async with running(config(document, trackers=True)) as (node,):
            await node.until(lambda: bool(node.states) and node.states[-1].state is TransportState.READY)


async def test_each_tracker_has_a_state_and_a_reason_of_its_own(tmp_path: Path) -> None:
    async with tracker_server() as tracker:
        urls = ["ws://a..b/announce", "ws://127.0.0.1:9/", tracker.url]
        document = write_document(tmp_path / "document.json", trackers=urls)
        async with running(config(document, trackers=True)) as (node,):

            def states() -> list[tuple[int, str, Cause | None]]:
                return [(each.index, each.state, each.cause) for each in node.transport.meeting_places()]

            await node.until(
                lambda: (
                    states()
                    == [
                        (0, "unusable", Cause.MISCONFIGURED),
                        (1, "waiting", Cause.SIGNALLING_UNAVAILABLE),
                        (2, "open", None),
                    ]
                )
            )
            assert node.transport.meeting_places()[1].retry_ms > node.transport.meeting_places()[1].since_ms > 0


async def test_each_offer_is_a_data_channel_of_its_own(tmp_path: Path) -> None:
    async with tracker_server() as tracker, json_peer(tracker) as peer:
        await peer.announce()
        async with node_at(tracker, tmp_path):
            sdp = (await peer.receive("offer"))["offer"]["sdp"]
            assert "m=application" in sdp
            assert "a=candidate" in sdp, "nothing trickles"


async def test_without_aiortc_it_is_degraded_and_still_meets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> object:
        raise TransportError(Cause.IMPORT_FAILED)

    monkeypatch.setattr("services.webtorrent.worker.available.load", missing)
    async with tracker_server() as tracker, json_peer(tracker) as peer:
        await peer.announce()
        async with node_at(tracker, tmp_path) as node:
            await node.until(lambda: node.states[-1].last_error is Cause.IMPORT_FAILED)
            assert (await peer.receive("offer"))["offer"]["sdp"] == EMPTY_SDP


async def test_how_many_offers_are_open_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.webtorrent.trackers.MIN_ANNOUNCE_S", 0.0)
    async with tracker_server() as tracker, node_at(tracker, tmp_path) as node:
        member = node.transport._worker._trackers._members[tracker.url][0]  # type: ignore[union-attr]
        for _ in range(10):
            announced_at = member._announced_at
            await node.transport.dial(NO_HINT, 1.0)
            await node.until(lambda at=announced_at: member._announced_at > at)  # type: ignore[misc]
        assert len(member._offers) == MAX_OFFERS_OPEN
        assert up_count(node) == 1


@asynccontextmanager
async def silent_servers() -> AsyncIterator[list[str]]:
    """URLs of one that accepts and never speaks HTTP, and of one that upgrades and never answers an announce."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def upgrade(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for _ in ws:
            pass
        return ws

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    app = web.Application()
    app.router.add_get("/", upgrade)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield [f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", f"ws://127.0.0.1:{runner.addresses[0][1]}/"]
    finally:
        server.close()
        await runner.cleanup()


async def test_dead_and_silent_trackers_delay_nobody(tmp_path: Path) -> None:
    async with tracker_server() as tracker, silent_servers() as silent:
        urls = ["ws://127.0.0.1:9/", *silent, tracker.url]
        document = write_document(tmp_path / "document.json", trackers=urls)
        one = config(document, trackers=True)
        async with running(one, one) as (node, other):
            await node.up()
            await other.up()
            states = [each.state for each in node.transport.meeting_places()]
            assert states == ["waiting", "connecting", "connecting", "open"], "a socket alone is no tracker"
            assert up_count(node) == 1


async def test_an_idle_peer_announces_once_a_minute_at_most(tmp_path: Path) -> None:
    """On a clock that runs 60 times as fast: five seconds are five minutes."""
    texts: list[dict[str, Any]] = []

    async def tracker_of_ours(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            texts.append(json.loads(message.data))
            reply = {"action": "announce", "info_hash": INFOHASH, "interval": 120, "complete": 0, "incomplete": 1}
            await ws.send_str(json.dumps(reply))
        return ws

    app = web.Application()
    app.router.add_get("/", tracker_of_ours)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    document = write_document(tmp_path / "document.json", trackers=[url])
    node = Node(WebtorrentTransport(config(document, trackers=True), clock=lambda: 60 * monotonic()))
    await node.start()
    begun = monotonic()
    await node.until(lambda: monotonic() - begun > 5.0)
    minutes = monotonic() - begun
    await node.stop()
    await runner.cleanup()
    announces = [each for each in texts if each["action"] == "announce" and "answer" not in each]
    assert 3 <= len(announces) <= 1 + minutes
    assert all(len(each["offers"]) <= 5 for each in announces)
