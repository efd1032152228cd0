"""Trackers and DHT nodes that lie: what they say is counted, bounded, and in nobody's way."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.webtorrent.limits import (
    MAX_ENDPOINTS_PER_ANSWER,
    MAX_HALF_OPEN,
    MAX_LINKS_PER_ADDRESS,
    RESERVED_HALF_OPEN,
    TRACKER_ANSWERS_PER_S,
)
from services.webtorrent.swarm import control_infohash
from services.webtorrent.trackers import EMPTY_SDP
from shared.errors import Cause
from shared.wire.peerwire.bencode import decode_bencode, encode_bencode
from shared.wire.wstracker.messages import MAX_MESSAGE_BYTES
from tests.services.webtorrent.raw_peer import SWARM_SPACE, extended, handshake, raw_peer
from tests.services.webtorrent.swarm_parts import (
    Node,
    TrackerServer,
    config,
    running,
    tracker_server,
    write_document,
)

INFOHASH = control_infohash("public").decode("latin-1")
OFFERS = 200
FORBIDDEN = ["224.0.0.1:6881", "10.0.0.1:6881", "0.0.0.0:6881", "[fe80::1%lo]:6881", "a.name:6881"]


@asynccontextmanager
async def at_a_liar(folder: Path) -> AsyncIterator[tuple[TrackerServer, Node]]:
    """A node at a tracker that will lie, with an honest peer's link, which is served afterwards."""
    async with AsyncExitStack() as stack:
        tracker = await stack.enter_async_context(tracker_server())
        document = write_document(folder / "document.json", trackers=[tracker.url])
        (node,) = await stack.enter_async_context(running(config(document, trackers=True)))
        await node.until(lambda: node.transport.measures().get("trackers_up") == 1)
        _, writer = await stack.enter_async_context(raw_peer(node))
        up = await node.up()
        yield tracker, node
        writer.write(extended(b"still here", extended_id=1))
        await node.until(lambda: node.records.get(up.link) == [b"still here"])
        assert not node.downs


async def say(tracker: TrackerServer, *messages: str | bytes) -> None:
    for ws in list(tracker._sockets.values()):
        for message in messages:
            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))


def relayed_offer(number: int, **offer: Any) -> str:
    return json.dumps(
        {
            "action": "announce",
            "info_hash": INFOHASH,
            "peer_id": f"{number:020d}",
            "offer_id": f"{number:020d}",
            "offer": {"type": "offer", "sdp": EMPTY_SDP, **offer},
        }
    )


async def test_a_flood_of_offers_that_name_what_nobody_may_dial(tmp_path: Path) -> None:
    async with at_a_liar(tmp_path) as (tracker, node):
        offers = [relayed_offer(number, **{"swarm-space": {"wire": FORBIDDEN}}) for number in range(OFFERS)]
        await say(tracker, *offers)
        # The machine keeps 64 unanswered at most; of the rest the glue takes 10 a second.
        refused = node.transport.refused
        left = ("tracker_rate", "tracker_message")
        await node.until(lambda: sum(refused[each] for each in left) + refused["endpoint"] // len(FORBIDDEN) >= OFFERS)
        taken = refused["endpoint"] // len(FORBIDDEN)
        assert TRACKER_ANSWERS_PER_S <= taken < OFFERS // 2
        assert refused["tracker_rate"] > 0
        assert not [name for name in node.transport.measures() if name.startswith("known_")]
        assert len(node.ups) == 1


@pytest.mark.parametrize(
    "message",
    [
        "[" * 60_000,
        '{"a":' * 10_000,
        "{" + "9" * 1_000,
        b"binary",
        json.dumps({"action": "announce", "info_hash": INFOHASH, "interval": -1}),
        json.dumps({"action": "announce", "info_hash": INFOHASH, "complete": -1}),
        json.dumps({"action": "announce", "info_hash": INFOHASH, "offer": "v=0", "offer_id": "o" * 20, "peer_id": "p"}),
        json.dumps({"action": "scrape", "files": [INFOHASH]}),
    ],
)
async def test_what_is_no_answer_is_counted_and_the_tracker_stays(message: str | bytes, tmp_path: Path) -> None:
    async with at_a_liar(tmp_path) as (tracker, node):
        await say(tracker, message)
        await node.until(lambda: node.transport.refused == {"tracker_message": 1})
        assert node.transport.measures()["trackers_up"] == 1


async def test_numbers_beyond_all_measure(tmp_path: Path) -> None:
    """A swarm of 10^308 would break who adds it up, and an interval of nothing or of years who waits for it."""
    async with at_a_liar(tmp_path) as (tracker, node):
        counts = {"complete": 1e308, "incomplete": 1e308}
        for interval in (0, 1e-300, 1e308):
            reply = {"action": "announce", "info_hash": INFOHASH, "interval": interval, **counts}
            await say(tracker, json.dumps(reply))
        await node.until(lambda: node.transport.measures().get("swarm_size_tracker", 0) > 1_000)
        assert 1_000 < node.transport.measures()["swarm_size_tracker"] <= 2**54
        assert not node.transport.refused


async def test_a_message_over_the_limit_ends_its_socket_with_the_cause(tmp_path: Path) -> None:
    async with at_a_liar(tmp_path) as (tracker, node):
        await say(tracker, "x" * (MAX_MESSAGE_BYTES + 1))
        await node.until(lambda: node.transport.refused == {"tracker_message": 1})
        await node.until(lambda: [place.cause for place in node.transport.meeting_places()] == [Cause.TOO_LARGE])
        # After a pause it is tried again, as any tracker that was lost.
        await node.until(lambda: node.transport.measures().get("trackers_up") == 1)


class LyingDhtNode(asyncio.DatagramProtocol):
    """Answers any lookup with itself as the nearest node, and with the peers that it is given. Source: BEP 5."""

    def __init__(self, peers: list[tuple[str, int]]) -> None:
        self._values = [socket.inet_aton(host) + port.to_bytes(2, "big") for host, port in peers]
        self._transport: asyncio.DatagramTransport | None = None
        self.lookups = 0
        self.change_peers = False
        """Whether each answer names others than the last."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = decode_bencode(data, max_bytes=65_536)
        if not isinstance(message, dict) or message.get(b"y") != b"q":
            return
        answer: dict[bytes, Any] = {b"id": b"\x11" * 20, b"nodes": b""}
        if message.get(b"q") == b"get_peers":
            self.lookups += 1
            if self.change_peers:
                self._values = [b"\x7f" + os.urandom(2) + b"\x01\x00\x09" for _ in self._values]
            answer |= {b"token": b"t", b"values": self._values}
        assert self._transport is not None
        self._transport.sendto(encode_bencode({b"r": answer, b"t": message[b"t"], b"y": b"r"}), addr)


@asynccontextmanager
async def lying_dht(peers: list[tuple[str, int]]) -> AsyncIterator[tuple[str, LyingDhtNode]]:
    loop = asyncio.get_running_loop()
    transport, liar = await loop.create_datagram_endpoint(lambda: LyingDhtNode(peers), local_addr=("127.0.0.4", 0))
    try:
        yield f"127.0.0.4:{transport.get_extra_info('sockname')[1]}", liar
    finally:
        transport.close()


@contextmanager
def tarpits() -> Iterator[list[tuple[str, int]]]:
    """Endpoints that accept, by the kernel's backlog, and never say a word; more than may be half open."""
    listening = []
    try:
        for number in range(MAX_HALF_OPEN // MAX_LINKS_PER_ADDRESS):
            for _ in range(MAX_LINKS_PER_ADDRESS):
                one = socket.create_server((f"127.0.0.{50 + number}", 0))
                listening.append(one)
        yield [one.getsockname() for one in listening]
    finally:
        for one in listening:
            one.close()


async def test_dht_answers_full_of_what_nobody_may_dial(tmp_path: Path) -> None:
    allowed = [(f"127.0.9.{number}", 9) for number in range(1, 4)]
    poison = [(f"10.0.{number}.1", 6881) for number in range(60)] + [("224.0.0.1", 1), ("255.255.255.255", 1)]
    async with lying_dht([*allowed, *poison]) as (address, liar):
        document = write_document(tmp_path / "document.json", dht_nodes=[address])
        async with running(config(document, host="127.0.0.2", dht=True)) as (node,), raw_peer(node):
            await node.up()
            await node.until(lambda: node.transport.refused["endpoint"] >= 50)
            assert liar.lookups
            known = node.transport.measures()["known_dht"]
            assert known <= len(allowed), known
            assert not node.downs


async def test_a_dht_full_of_tarpits_leaves_room_for_who_comes_and_who_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarpits() as peers:
        async with AsyncExitStack() as stack:
            address, _ = await stack.enter_async_context(lying_dht(peers))
            document = write_document(tmp_path / "document.json", dht_nodes=[address])
            settings = config(document, host="127.0.0.2", dht=True)
            node, other = await stack.enter_async_context(running(settings, config(host="127.0.0.3")))
            admission = node.transport._worker.wires._admission  # type: ignore[union-attr]
            await node.until(lambda: admission.half_open_room == RESERVED_HALF_OPEN)
            # Inbound, and by a hint: neither waits for a tarpit's time to be over.
            await stack.enter_async_context(raw_peer(node, handshake(b"-XX0001-comes-by-tcp") + SWARM_SPACE))
            await node.up(1)
            await node.transport.dial(other.hint(b"k" * 32), 5.0)
            assert (await node.up(2)).expected_key == b"k" * 32
            assert admission.half_open_room >= RESERVED_HALF_OPEN
            known = node.transport.measures()["known_dht"]
            assert known <= MAX_ENDPOINTS_PER_ANSWER + 1
