"""Hostile wires: each is closed for its cause, counted, and costs nobody else anything.

Beside every attack an honest peer has a link, and is served after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial

import pytest

from services.webtorrent.connection import WireConnection
from services.webtorrent.limits import MAX_HALF_OPEN, MAX_LINKS_PER_ADDRESS
from shared.errors import Cause
from shared.wire.peerwire import PeerWire
from shared.wire.peerwire.wire import USELESS_BURST, PeerWireLimits
from tests.services.webtorrent.raw_peer import (
    PEER_ID,
    SWARM_SPACE,
    connect,
    connect_from,
    extended,
    handshake,
    raw_peer,
    read_all,
)
from tests.services.webtorrent.swarm_parts import WAIT_S, Node, config, running

REQUEST = (13).to_bytes(4, "big") + b"\x06" + bytes(12)
KEEP_ALIVE = bytes(4)
HONEST = b"-XX0001-honest-peer-"
OVERSIZE = b"\xff\xff\xff\xff"
BOMBS = [
    (b"l" * 4_000 + b"e" * 4_000, "invalid"),
    (b"d1:m" + b"l" * 2_000, "invalid"),
    (b"d1:md11:swarm-spacei" + b"9" * 4_000 + b"eee", "invalid"),
    (b"d1:m" + b"d1:a" * 9 + b"e" * 11, "invalid"),
    (b"d1:v9999999999:x", "invalid"),
    (b"d1:v8200:" + b"x" * 8_200 + b"e", "too_large"),
]
FLOOD = int(USELESS_BURST) + 1_000
"""More than the bucket takes, however slowly it is read: it fills by 50 a second."""


@asynccontextmanager
async def beside_an_honest_peer() -> AsyncIterator[Node]:
    """A node with one link, which is served, both ways, whatever else has been done to the node."""
    async with running(config()) as (node,), raw_peer(node, handshake(HONEST) + SWARM_SPACE) as (reader, writer):
        up = await node.up()
        yield node
        writer.write(extended(b"still here", extended_id=1))
        await node.until(lambda: node.records.get(up.link) == [b"still here"])
        await node.transport.send(up.link, b"and heard")
        heard = extended(b"and heard", extended_id=3)
        async with asyncio.timeout(WAIT_S):
            said = await reader.read(65_536)
            while not said.endswith(heard):
                said += await reader.read(65_536)
        assert up.link not in {down.link for down in node.downs}
        assert len(node.transport._worker.wires._wires) == 1, "the attacker's are gone"  # type: ignore[union-attr]


def use_limits(monkeypatch: pytest.MonkeyPatch, limits: PeerWireLimits) -> None:
    monkeypatch.setattr("services.webtorrent.wires.PeerWire", partial(PeerWire, limits=limits))


@pytest.mark.parametrize(
    ("opening", "counted"),
    [
        (handshake() + OVERSIZE, "too_large"),
        (handshake() + (66 * 1024 + 3).to_bytes(4, "big"), "too_large"),
        (handshake(infohash=bytes(20)), "refused"),
        (handshake(infohash=b"\xff" * 20) + SWARM_SPACE, "refused"),
        (handshake() + extended(b"a frame before its handshake", extended_id=1), "invalid"),
        (handshake() + KEEP_ALIVE * FLOOD, "rate_limited"),
        (handshake() + REQUEST * FLOOD, "rate_limited"),
        *((handshake() + extended(bomb), counted) for bomb, counted in BOMBS),
    ],
)
async def test_before_a_link(opening: bytes, counted: str) -> None:
    async with beside_an_honest_peer() as node:
        async with raw_peer(node, opening) as (reader, _):
            await read_all(reader)
            await node.until(lambda: node.transport.refused == {counted: 1})
        assert len(node.ups) == 1


@pytest.mark.parametrize(
    ("attack", "cause"),
    [
        (OVERSIZE, Cause.TOO_LARGE),
        ((66 * 1024 + 3).to_bytes(4, "big") + bytes(1_000), Cause.TOO_LARGE),
        (KEEP_ALIVE * FLOOD, Cause.RATE_LIMITED),
        (REQUEST * FLOOD, Cause.RATE_LIMITED),
        (SWARM_SPACE * FLOOD, Cause.RATE_LIMITED),
        (extended(b"for an extension that we do not have", extended_id=77) * FLOOD, Cause.RATE_LIMITED),
        *((extended(bomb), Cause(counted)) for bomb, counted in BOMBS),
    ],
)
async def test_on_a_link(attack: bytes, cause: Cause) -> None:
    async with beside_an_honest_peer() as node:
        async with raw_peer(node) as (reader, writer):
            await node.up(2)
            writer.write(attack)
            said = await read_all(reader)
            await node.until(lambda: [down.cause for down in node.downs] == [cause])
        assert node.transport.refused == {cause.value: 1}
        assert len(said) < 1_000, "handshakes, and nothing for what was asked"


async def test_some_requests_for_pieces_are_ignored() -> None:
    async with beside_an_honest_peer() as node, raw_peer(node) as (_, writer):
        up = await node.up(2)
        writer.write(REQUEST * 500 + extended(b"still heard", extended_id=1))
        await node.until(lambda: node.records.get(up.link) == [b"still heard"])
        writer.transport.abort()
        await node.until(lambda: [down.cause for down in node.downs] == [Cause.CLOSED])
        assert not node.transport.refused


@pytest.mark.parametrize("end", [handshake()[:67], handshake() + SWARM_SPACE[:-1]])
async def test_a_handshake_that_never_ends(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte, so that it is never silent; its time is for both handshakes together."""
    use_limits(monkeypatch, PeerWireLimits(handshake_timeout_s=0.5))
    async with beside_an_honest_peer() as node:
        async with raw_peer(node, end[:-8]) as (reader, writer):
            dripping = asyncio.create_task(drip(writer, end[-8:]))
            await read_all(reader)
            await dripping
            await node.until(lambda: node.transport.refused == {"timeout": 1})
        assert len(node.ups) == 1


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):
        for byte in data:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.1)


@contextmanager
def closing_hard(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> Iterator[None]:
    """Holds both until the end: a reader that nobody holds would end its connection."""
    try:
        yield
    finally:
        streams[1].transport.abort()


async def test_half_open_wires_are_bounded_by_address_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """From as many addresses as it takes. When their time is over there is room again."""
    use_limits(monkeypatch, PeerWireLimits(handshake_timeout_s=3.0))
    async with beside_an_honest_peer() as node, AsyncExitStack() as stack:
        admission = node.transport._worker.wires._admission  # type: ignore[union-attr]
        addresses = [f"127.0.0.{20 + number}" for number in range(MAX_HALF_OPEN // MAX_LINKS_PER_ADDRESS)]
        for address in addresses:
            for _ in range(MAX_LINKS_PER_ADDRESS):
                stack.enter_context(closing_hard(await connect_from(node, address)))
        await node.until(lambda: admission.half_open_room == 0)
        reader, writer = await connect_from(node, "127.0.0.19")
        assert await read_all(reader) == b""
        writer.close()
        assert node.transport.refused == {"half_open": 1}
        await node.until(lambda: node.transport.refused == {"half_open": 1, "timeout": MAX_HALF_OPEN})
        async with raw_peer(node):
            await node.up(2)
        await node.until(lambda: len(node.downs) == 1)


async def test_a_peer_id_that_is_taken_takes_nothing_over() -> None:
    """Whoever comes with the honest peer's id, in time before a handshake of ours or after it, is a duplicate."""
    async with beside_an_honest_peer() as node:
        async with raw_peer(node, handshake(HONEST) + SWARM_SPACE) as (reader, _):
            assert await read_all(reader) == b""
        assert node.transport.refused == {"duplicate": 1}
        # Two at once, neither of them a link yet.
        async with raw_peer(node, handshake()) as (reader, first):
            await reader.readexactly(68)
            async with raw_peer(node, handshake() + SWARM_SPACE) as (other, _):
                await read_all(other)
            assert node.transport.refused == {"duplicate": 2}
            first.write(SWARM_SPACE)
            await node.up(2)
        await node.until(lambda: len(node.downs) == 1)


async def test_who_takes_a_nodes_peer_id_does_not_keep_it_out() -> None:
    """Peer ids are read at any tracker: a guest with a node's id, from elsewhere, and then the node itself."""
    async with beside_an_honest_peer() as node, running(config(host="127.0.0.3")) as (other,):
        worker = other.transport._worker
        assert worker is not None
        async with raw_peer(node, handshake(worker._peer_id) + SWARM_SPACE):
            assert (await node.up(2)).guest
            await other.transport.dial(node.hint(b"k" * 32), 5.0)
            await other.up()
            up = await node.up(3)
            assert not up.guest
            await other.transport.send(other.ups[0].link, b"itself")
            await node.until(lambda: node.records.get(up.link) == [b"itself"])
        await node.until(lambda: len(node.downs) == 1)
        assert not node.transport.refused
        await other.stop()
        await node.until(lambda: len(node.downs) == 2)


async def test_our_own_peer_id_is_no_peer() -> None:
    async with beside_an_honest_peer() as node:
        ours = node.transport._worker._peer_id  # type: ignore[union-attr]
        async with raw_peer(node, handshake(ours) + SWARM_SPACE) as (reader, _):
            await read_all(reader)
        assert len(node.ups) == 1
        assert not node.transport.refused, "a dial to ourselves is nobody's fault"


async def test_a_frame_id_that_is_another_extensions_too() -> None:
    """`m` gives one id to two extensions: what goes out under it is a frame, to a peer that has asked for frames."""
    async with beside_an_honest_peer() as node:
        both = extended(b"d1:md11:swarm-spacei3e6:ut_pexi3eee")
        async with raw_peer(node, handshake() + both) as (reader, _):
            up = await node.up(2)
            await node.transport.send(up.link, b"a frame")
            async with asyncio.timeout(WAIT_S):
                await reader.readuntil(extended(b"a frame", extended_id=3))
        await node.until(lambda: len(node.downs) == 1)


async def test_who_never_reads_is_closed_and_its_buffer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.webtorrent.driver.UNREAD_S", 0.5)
    async with beside_an_honest_peer() as node:
        async with raw_peer(node) as (reader, writer):
            up = await node.up(2)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            sending = asyncio.create_task(send_until_it_ends(node, up.link))
            stream = node.transport._worker.wires._links[up.link].connection  # type: ignore[union-attr]
            assert isinstance(stream, WireConnection)
            # It speaks all the time, so that it is not idle.
            while not node.downs:
                writer.write(extended(b"", extended_id=1))
                await asyncio.sleep(0.05)
            most = await sending
            assert node.downs[0].cause is Cause.SILENT
            assert most < 1.2e6
        assert node.transport.refused == {"silent": 1}
        await node.until(lambda: stream.gone)


async def test_a_wire_that_is_over_keeps_no_message_that_was_cut_off() -> None:
    """Connections refer to themselves, and may wait for long until they are collected: 66 KiB each would add up."""
    async with beside_an_honest_peer() as node:
        async with raw_peer(node) as (_, writer):
            up = await node.up(2)
            stream = node.transport._worker.wires._links[up.link].connection  # type: ignore[union-attr]
            assert isinstance(stream, WireConnection)
            kept = stream._driver._wire
            writer.write(extended(bytes(60_000), extended_id=1)[:-1])
            await node.until(lambda: len(kept._buffer) > 50_000)
        await node.until(lambda: len(node.downs) == 1)
        assert not kept._buffer


async def send_until_it_ends(node: Node, link: object) -> int:
    """Returns: the most bytes that were queued."""
    stream = node.transport._worker.wires._links[link].connection  # type: ignore[union-attr,index]
    assert isinstance(stream, WireConnection)
    most = 0
    with suppress(Exception):
        while True:
            await stream.send(bytes(65_535))
            assert stream._transport is not None
            most = max(most, stream._transport.get_write_buffer_size())
    return most


async def test_who_reads_slowly_but_reads_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """UNREAD_S is for a buffer that does not empty, not for a link that is slow."""
    monkeypatch.setattr("services.webtorrent.driver.UNREAD_S", 5.0)
    async with beside_an_honest_peer() as node:
        async with raw_peer(node) as (reader, _):
            up = await node.up(2)
            sending = asyncio.create_task(send_until_it_ends(node, up.link))
            for _ in range(200):
                assert await reader.read(65_536)
                await asyncio.sleep(0.01)
            assert not node.downs
            sending.cancel()
        await node.until(lambda: len(node.downs) == 1)
        assert not node.transport.refused


async def test_wires_that_come_and_go_leave_nothing() -> None:
    async with beside_an_honest_peer() as node:
        wires = node.transport._worker.wires  # type: ignore[union-attr]
        for number in range(200):
            reader, writer = await connect(node)
            writer.write(handshake(b"%020d" % number) + OVERSIZE)
            await read_all(reader)
            writer.close()
        await node.until(lambda: node.transport.refused == {"too_large": 200})
        assert len(wires._directions) == 1
        assert wires._admission.half_open_room == MAX_HALF_OPEN
        assert PEER_ID not in wires._peers
