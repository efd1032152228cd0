"""Chromium pages with the unmodified `peerjs` client and a webrtc worker: each dials the other, values come back as
they were, closing is heard at either end, and a page that we will not talk to learns it at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from services.webrtc import links, offers
from shared.errors import Cause
from shared.ids import LinkId
from shared.settings.rendezvous import PeerServer
from shared.speech.contract import SpeechEnded
from shared.speech.page_beacon import LINGER_S, PEERJS_BEACON, PageBeacon
from shared.speech.page_packing import Packing, packing_of
from shared.speech.peerjs import PEERJS
from shared.transport.contract import LinkDown, LinkUp, PeerHint, RecordReceived, TransportEvent
from shared.transports import TransportState
from shared.wire.peerjs.chunking import CloseReceived, ValueReceived
from shared.worker.speeches import SPEECHES
from tests.interop.conftest import DEADLINE_S, MeetingPlace, open_page, page_has, register
from tests.services.webrtc.node import Node

pytestmark = pytest.mark.timeout(300)

LONGEST = 4 * 2**20 - 5
"""Bytes whose BinaryPack form is 4 MiB."""
LEARNS_WITHIN_S = 1.0
"""How soon a page learns that it is turned away. A PeerServer's own word, for a peer that is not there, takes 5 s."""
PAGE = "page-one"


class Echo:
    """Gives every value back, in the serialization that it came in."""

    def __init__(self, node: Node) -> None:
        self._worker = node.worker
        self._packings: dict[LinkId, Packing] = {}
        self._values: asyncio.Queue[tuple[LinkId, object]] = asyncio.Queue()
        self._seen = 0
        self.closes = 0

    async def run(self) -> None:
        while True:
            events = self._worker.events
            while self._seen < len(events):
                await self._take(events[self._seen])
                self._seen += 1
            await asyncio.sleep(0.01)

    async def _take(self, event: TransportEvent) -> None:
        if isinstance(event, LinkUp):
            self._packings[event.link] = packing_of(event.serialization)
        if not isinstance(event, RecordReceived):
            return
        packing = self._packings[event.link]
        got = packing.unpack(event.record, 0.0)
        if isinstance(got, CloseReceived):
            self.closes += 1
            await self._worker.transport.close(event.link, Cause.CLOSED)
        if isinstance(got, ValueReceived):
            records = [got.value] if isinstance(got.value, bytes) and self.raw(packing) else packing.pack(got.value)
            for record in records:
                await self._worker.transport.send(event.link, record)

    @staticmethod
    def raw(packing: Packing) -> bool:
        return packing.close_record() is None


@pytest_asyncio.fixture
async def node(place: MeetingPlace, tmp_path: Path) -> AsyncIterator[Node]:
    url = f"http://{place.host}:{place.port}{place.path}"
    node = await Node("node", tmp_path, [PeerServer(url)]).start(speeches=SPEECHES)
    async with asyncio.timeout(DEADLINE_S):
        while (state := node.worker.state) is None or state.state is not TransportState.READY:
            await asyncio.sleep(0.05)
    yield node
    await node.stop()


@pytest_asyncio.fixture
async def echo(node: Node) -> AsyncIterator[Echo]:
    echo = Echo(node)
    task = asyncio.create_task(echo.run())
    yield echo
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def once(condition: Any) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        while not (found := condition()):
            await asyncio.sleep(0.02)
    return found


async def exchange(page: Page, peer: str, messages: list[tuple[str, int]]) -> None:
    for count, (kind, length) in enumerate(messages, 1):
        sent = await page.evaluate("([to, kind, length]) => send(to, kind, length)", [peer, kind, length])
        assert await page_has(page, "(count) => lastReceived(count)", count) == sent, (kind, length)


@pytest.mark.parametrize(
    ("serialization", "reliable", "messages"),
    [
        ("binary", True, [("bytes", 100), ("object", 5_000), ("bytes", 16_300), ("bytes", LONGEST)]),
        ("binary", False, [("bytes", 100), ("bytes", 1_000_000), ("bytes", LONGEST)]),
        ("json", True, [("object", 10), ("object", 1_000)]),
        ("json", False, [("object", 10)]),
        ("raw", True, [("bytes", 100), ("bytes", 65_536), ("text", 500)]),
        ("raw", False, [("bytes", 262_144)]),
    ],
)
async def test_a_page_dials_the_node_and_what_it_sends_comes_back(
    browser: Browser,
    site: str,
    place: MeetingPlace,
    node: Node,
    echo: Echo,
    serialization: str,
    reliable: bool,
    messages: list[tuple[str, int]],
) -> None:
    page = await open_page(browser, site)
    await register(page, place, PAGE)
    options = {"serialization": serialization, "reliable": reliable}
    await page.evaluate("([id, options]) => dial(id, options)", [node.peer_id, options])
    [up] = await once(lambda: node.worker.ups)
    assert (up.guest, up.ordered, up.dialer) == (PAGE, reliable, False)
    await exchange(page, node.peer_id, messages)
    assert node.worker.downs == []


async def test_the_node_dials_a_page_and_both_talk(
    browser: Browser, site: str, place: MeetingPlace, node: Node, echo: Echo
) -> None:
    page = await open_page(browser, site)
    await register(page, place, PAGE)
    await node.worker.transport.dial(PeerHint(b"", PAGE), 3)
    await page_has(page, "(id) => state.connections[id]?.open", node.peer_id)
    await exchange(page, node.peer_id, [("object", 100), ("bytes", LONGEST)])


@pytest.mark.parametrize("flush", [False, True])
async def test_a_page_closes(
    browser: Browser, site: str, place: MeetingPlace, node: Node, echo: Echo, flush: bool
) -> None:
    page = await open_page(browser, site)
    await register(page, place, PAGE)
    await page.evaluate("([id, options]) => dial(id, options)", [node.peer_id, {"reliable": True}])
    await once(lambda: node.worker.ups)
    await page.evaluate("([id, flush]) => state.connections[id].close({ flush })", [node.peer_id, flush])
    [down] = await once(lambda: node.worker.downs)
    assert down.cause is Cause.CLOSED
    assert echo.closes == flush
    if flush:  # it waits for our end; and then it has closed, gracefully
        assert await page_has(page, "() => state.closed.length && state.closed") == [node.peer_id]


@pytest.mark.parametrize("word", [False, True])
async def test_the_node_closes(browser: Browser, site: str, place: MeetingPlace, node: Node, word: bool) -> None:
    page = await open_page(browser, site)
    await register(page, place, PAGE)
    await page.evaluate("([id, options]) => dial(id, options)", [node.peer_id, {"reliable": True}])
    [up] = await once(lambda: node.worker.ups)
    record = packing_of(up.serialization).close_record()
    assert record is not None
    if word:
        await node.worker.transport.send(up.link, record)
        await once(lambda: node.worker.downs)
    else:
        await node.worker.transport.close(up.link, Cause.CLOSED)
    assert await page_has(page, "() => state.closed.length && state.closed") == [node.peer_id]


async def test_a_reloaded_page_is_back_at_once_under_its_id(
    browser: Browser, site: str, place: MeetingPlace, node: Node, echo: Echo
) -> None:
    page = await open_page(browser, site)
    for turn in (1, 2, 3):
        await register(page, place, PAGE)
        await page.evaluate("([id, options]) => dial(id, options)", [node.peer_id, {"reliable": True}])
        await exchange(page, node.peer_id, [("bytes", 1_000)])
        assert len(node.worker.ups) == turn
        await page.reload()
        await once(lambda turn=turn: len(node.worker.downs) == turn)
    assert {up.guest for up in node.worker.ups} == {PAGE}


LEARNS = """([id, options, call]) => new Promise(async (learns) => {
  const start = performance.now(), done = (what) => learns([what, performance.now() - start]);
  state.peer.once('error', (error) => done(error.type));
  if (call) state.peer.call(id, document.createElement('canvas').captureStream());
  else state.peer.connect(id, options).once('close', () => done('closed'));
})"""


@pytest.mark.parametrize(
    ("options", "counted"),
    [
        ({"metadata": {"swarmbridge": 2}}, "speech"),
        ({"serialization": "words of its own"}, "speech"),
        (None, "offer"),
        ({"reliable": True}, "links"),
        ({"reliable": True}, "half_open"),
    ],
)
async def test_a_page_that_is_turned_away_learns_it_at_once(
    browser: Browser,
    site: str,
    place: MeetingPlace,
    node: Node,
    options: dict[str, Any] | None,
    counted: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Metadata of another version, a serialization that nobody has, a call, a worker that is full."""
    caplog.set_level("INFO")
    if counted == "links":
        monkeypatch.setattr(links, "MAX_LINKS", 0)
    if counted == "half_open":
        monkeypatch.setattr(links, "MAX_HALF_OPEN", 0)
    if options is not None and options.get("serialization"):
        # The client knows three and asks for one of them; a client with a serializer of its own is what we make here.
        monkeypatch.delitem(offers.SERIALIZATIONS, "raw")
        options = {"serialization": "raw"}
    page = await open_page(browser, site)
    await register(page, place, PAGE)
    how, after_ms = await page.evaluate(LEARNS, [node.peer_id, options, options is None])
    print(f"turned away as {counted}: {how} after {after_ms:.0f} ms")
    assert how == "peer-unavailable"
    assert after_ms / 1000 < LEARNS_WITHIN_S * 3, "3: a machine that is busy with other tests"
    assert node.worker.transport.refused[counted] >= 1, "counted, with its cause"
    assert "turned away" in caplog.text
    assert node.worker.ups == []


FIND = """([id, options]) => new Promise((found) => {
  const connection = state.peer.connect(id, { reliable: true });
  connection.on('open', () => connection.send(JSON.stringify({ type: 'beacon-exchange', realPeerId: 'page-one' })));
  connection.on('data', (data) => { connection.close(); found(JSON.parse(data)) });
})"""


@pytest.mark.parametrize("taken", [False, True])
async def test_a_page_that_knows_nobody_finds_the_node_by_its_rooms_beacon(
    browser: Browser, site: str, place: MeetingPlace, tmp_path: Path, taken: bool
) -> None:
    """Where somebody else holds the beacon, the node is reached as before."""
    node = Node("node", tmp_path, [PeerServer(f"http://{place.host}:{place.port}{place.path}")])
    node.room = "/Brain"
    page, other = await open_page(browser, site), await open_page(browser, site)
    await register(page, place, PAGE)
    if taken:
        await register(other, place, "rmbeacon-a209acaa")
    await node.start(speeches=SPEECHES)
    driving = asyncio.create_task(answer_at_the_beacon(node))
    try:
        await once(lambda: node.worker.state is not None and node.worker.state.state is TransportState.READY)
        real = node.peer_id
        if not taken:
            said = await asyncio.wait_for(page.evaluate(FIND, ["rmbeacon-a209acaa", {}]), DEADLINE_S)
            assert said == {"type": "beacon-exchange", "realPeerId": node.peer_id}
            real = said["realPeerId"]
            await once(lambda: node.worker.downs)
        await page.evaluate("([id, options]) => dial(id, options)", [real, {"reliable": True}])
        await once(lambda: any(up.speech == PEERJS for up in node.worker.ups))
    finally:
        driving.cancel()
        await asyncio.wait({driving})
        await node.stop()


async def answer_at_the_beacon(node: Node) -> None:
    """What a worker's session does with a beacon's speech."""
    up = await once(lambda: next((up for up in node.worker.ups if up.speech == PEERJS_BEACON), None))
    speech = PageBeacon(node.peer_id, 0.0, up.serialization)
    while (record := speech.next_record()) is not None:
        await node.worker.transport.send(up.link, record)
    for record in await once(lambda: node.worker.records(up.link)):
        speech.receive_record(record, 0.0)
    speech.handle_timer(LINGER_S)
    assert speech.events() == [SpeechEnded(Cause.CLOSED)]
    await node.worker.transport.close(up.link, Cause.CLOSED)


async def test_a_page_that_goes_away_is_missed(browser: Browser, site: str, place: MeetingPlace, node: Node) -> None:
    page = await open_page(browser, site)
    await register(page, place, PAGE)
    await page.evaluate("([id, options]) => dial(id, options)", [node.peer_id, {"reliable": True}])
    await once(lambda: node.worker.ups)
    await page.context.close()
    [down] = await once(lambda: node.worker.downs)
    assert isinstance(down, LinkDown)
