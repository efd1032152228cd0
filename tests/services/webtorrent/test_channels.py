"""Data channels: between nodes TCP goes first, and a channel where it does not lead; what strangers make of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.webtorrent import channels
from services.webtorrent.channel import ChannelConnection
from services.webtorrent.swarm import control_infohash
from shared.clock import monotonic
from shared.errors import Cause, TransportError
from shared.rtc import available
from shared.rtc.contract import DataChannel, LinkEvents, LinkSettings
from shared.speech.contract import SEALED_NATIVE
from shared.speech.swarm_space import SWARM_SPACE
from shared.tasks.owned import Tasks
from shared.wire.peerwire import PeerWire
from shared.wire.peerwire.wire import PeerWireLimits
from tests.services.webtorrent.raw_peer import NO_SWARM_SPACE, extended, handshake
from tests.services.webtorrent.raw_peer import SWARM_SPACE as GUEST
from tests.services.webtorrent.swarm_parts import (
    WAIT_S,
    Node,
    TrackerServer,
    config,
    running,
    tracker_server,
    write_document,
)

NOWHERE = "127.0.0.9"
"""An address of this machine where no wire listens: to others we are there, and TCP leads nowhere."""
INFOHASH = control_infohash("public").decode("latin-1")
PEER_ID = "-XX0001-abcdefghijkl"


@asynccontextmanager
async def two_nodes(folder: Path, tracker: TrackerServer, **settings: Any) -> AsyncIterator[list[Node]]:
    document = write_document(folder / "document.json", trackers=[tracker.url])
    one = config(document, trackers=True, **settings)
    async with running(one, one) as nodes:
        yield nodes


def stream_of(node: Node) -> object:
    links = node.transport._worker.wires._links  # type: ignore[union-attr]
    return links[node.ups[0].link].connection


async def test_where_tcp_leads_nowhere_a_sealed_channel_does(tmp_path: Path) -> None:
    async with tracker_server() as tracker, two_nodes(tmp_path, tracker, advertise=NOWHERE) as (one, two):
        up, other = await one.up(), await two.up()
        assert isinstance(stream_of(one), ChannelConnection)
        assert up.dialer != other.dialer
        assert up.binding == other.binding
        assert (up.speech, other.speech) == (SEALED_NATIVE, SEALED_NATIVE)
        records = [b"1", bytes(65_535), b"3" * 16_384]
        for record in records:
            await one.transport.send(up.link, record)
            await two.transport.send(other.link, record)
        await one.until(lambda: one.records.get(up.link) == records)
        await two.until(lambda: two.records.get(other.link) == records)
        await one.transport.close(up.link, Cause.CLOSED)
        await two.until(lambda: len(two.downs) == 1)


async def test_where_tcp_leads_there_is_no_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "OPEN_TIMEOUT_S", 2.0)
    async with tracker_server() as tracker, two_nodes(tmp_path, tracker) as (one, two):
        await one.up()
        await two.up()
        assert not isinstance(stream_of(one), ChannelConnection)
        # Whatever was offered or answered meanwhile is given back or closed, and became no second link.
        for node in (one, two):
            await node.until(lambda node=node: not node.transport._worker._channels._opening)  # type: ignore[misc]
        assert (len(one.ups), len(two.ups)) == (1, 1)


class Page:
    """What a page's `webtorrent` does at a tracker and on a channel, with nothing of our wires in it."""

    def __init__(self, http: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = http
        self._stack = AsyncExitStack()
        self.received = bytearray()
        self.changed = asyncio.Event()
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        events = LinkEvents(
            on_open=self.opened.set, on_message=self._message, on_closed=lambda cause: self.closed.set()
        )
        self.rtc: DataChannel = available.load()(LinkSettings("127.0.0.1", (), 262_144), events)

    def _message(self, data: bytes) -> None:
        self.received += data
        self.changed.set()

    async def meet(self) -> None:
        """Announce with an offer, take the answer, wait for the channel."""
        offer = {"type": "offer", "sdp": await self.rtc.offer("any label")}
        message = {
            "action": "announce",
            "info_hash": INFOHASH,
            "peer_id": PEER_ID,
            "numwant": 1,
            "offers": [{"offer_id": "o" * 20, "offer": offer}],
        }
        await self._ws.send_str(json.dumps(message))
        async with asyncio.timeout(WAIT_S):
            while "answer" not in (answer := json.loads(await self._ws.receive_str())):
                pass
            await self.rtc.accept_answer(answer["answer"]["sdp"])
            await self.opened.wait()

    async def until_received(self, part: bytes) -> None:
        async with asyncio.timeout(WAIT_S):
            while part not in self.received:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def page_and_node(folder: Path) -> AsyncIterator[tuple[Page, Node]]:
    async with AsyncExitStack() as stack:
        tracker = await stack.enter_async_context(tracker_server())
        document = write_document(folder / "document.json", trackers=[tracker.url])
        (node,) = await stack.enter_async_context(running(config(document, trackers=True)))
        await node.until(lambda: node.transport.measures().get("trackers_up") == 1)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        page = Page(await stack.enter_async_context(http.ws_connect(tracker.url)))
        try:
            await page.meet()
            yield page, node
        finally:
            await page.rtc.close()


async def test_a_guest_on_a_channel_may_cut_its_messages_anywhere(tmp_path: Path) -> None:
    async with page_and_node(tmp_path) as (page, node):
        said = handshake() + GUEST + extended(b"a frame", extended_id=1)
        for start in range(0, len(said), 7):
            await page.rtc.send(said[start : start + 7])
        up = await node.up()
        assert (up.speech, up.guest, up.dialer) == (SWARM_SPACE, "bt-" + PEER_ID.encode().hex(), False)
        await node.until(lambda: node.records.get(up.link) == [b"a frame"])
        await node.transport.send(up.link, bytes(65_535))
        await page.until_received(extended(bytes(65_535), extended_id=3))


async def test_a_plain_page_is_closed_without_a_frame_and_its_offers_are_ignored(tmp_path: Path) -> None:
    async with page_and_node(tmp_path) as (page, node):
        await page.rtc.send(handshake() + NO_SWARM_SPACE)
        async with asyncio.timeout(WAIT_S):
            await page.closed.wait()
        assert not node.ups
        assert node.transport.refused["no_extension"] == 1
        answered = node.transport._worker._channels.offers_answered  # type: ignore[union-attr]
        again = {"type": "offer", "sdp": "v=0\r\n"}
        await page._ws.send_str(
            json.dumps(
                {
                    "action": "announce",
                    "info_hash": INFOHASH,
                    "peer_id": PEER_ID,
                    "numwant": 1,
                    "offers": [{"offer_id": "p" * 20, "offer": again}],
                }
            )
        )
        await node.until(lambda: node.transport.refused["no_extension"] == 2)
        assert node.transport._worker._channels.offers_answered == answered  # type: ignore[union-attr]


class Stuck:
    """A data channel whose other end takes nothing."""

    def __init__(self, settings: LinkSettings, events: LinkEvents) -> None:
        self.events = events
        self.closed = asyncio.Event()

    async def send(self, data: bytes) -> None:
        await self.closed.wait()

    async def close(self, cause: Cause = Cause.CLOSED) -> None:
        self.closed.set()


async def test_who_takes_nothing_from_a_channel_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.webtorrent.driver.UNREAD_S", 0.3)
    async with running(config()) as (node,):
        worker = node.transport._worker
        assert worker is not None
        make: Any = Stuck
        tasks = Tasks()
        stream = ChannelConnection(
            make, worker._link_settings(), worker.wires.channel_wire, worker.wires, tasks, monotonic, offered=False
        )
        stuck: Any = stream.rtc
        stuck.events.on_open()
        stuck.events.on_message(handshake() + GUEST)
        up = await node.up()
        with pytest.raises(TransportError) as raised:
            async with asyncio.timeout(WAIT_S):
                while True:
                    await node.transport.send(up.link, bytes(65_535))
        assert raised.value.cause is Cause.CLOSED
        assert [down.cause for down in node.downs] == [Cause.SILENT]
        assert node.transport.refused == {"silent": 1}
        assert stream._queued_bytes < 1.2e6
        await node.until(lambda: stream.gone)
        assert stuck.closed.is_set()
        await tasks.close()


async def test_a_channel_that_never_shakes_hands_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = PeerWireLimits(handshake_timeout_s=0.3)
    monkeypatch.setattr("services.webtorrent.wires.PeerWire", partial(PeerWire, limits=limits))
    async with page_and_node(tmp_path) as (page, node):
        async with asyncio.timeout(WAIT_S):
            await page.closed.wait()
        assert not node.ups
        assert node.transport.refused == {"timeout": 1}
