"""The blocklist: in force everywhere, in each direction, whatever is stored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shared.bus.messages.subjects import BUCKET_BLOCKLIST
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.layout import ensure_layout
from shared.errors import BusError, Cause, SwarmbridgeError
from shared.settings import blocklist as module
from shared.settings.blocklist import MAX_NOTE_CHARS, Block, Blocklist, Direction
from tests.fakes.memory_bus import MemoryBus, MemoryHub
from tests.fakes.nats_server import nats_server
from tests.fakes.waiting import until

PEER = "peer-0123456789abcdef"
GUEST = "guest-0123456789abcdef"
IN, OUT, ALL = Direction.INBOUND, Direction.OUTBOUND, Direction.ALL


async def started(bus: MemoryBus) -> Blocklist:
    blocklist = Blocklist()
    await blocklist.start(bus)
    return blocklist


@pytest.mark.parametrize(
    ("direction", "blocked"),
    [
        (IN, {IN: True, OUT: False, ALL: False}),
        (OUT, {IN: False, OUT: True, ALL: False}),
        (ALL, dict.fromkeys(Direction, True)),
    ],
)
async def test_each_direction_blocks_what_it_says(direction: Direction, blocked: dict[Direction, bool]) -> None:
    blocklist = await started(MemoryHub().bus("a"))
    await blocklist.block(PEER, direction)
    assert {asked: blocklist.blocks(PEER, asked) for asked in Direction} == blocked
    assert not any(blocklist.blocks(GUEST, asked) for asked in Direction)


async def test_a_change_reaches_every_process_and_says_whom_it_is_about() -> None:
    hub = MemoryHub()
    one, two = await started(hub.bus("a")), await started(hub.bus("b"))
    changed: list[str] = []
    two.on_change(changed.append)
    await one.block(PEER, IN, "too many requests")
    await until(lambda: changed == [PEER])
    assert two.snapshot()[PEER].note == "too many requests"
    await one.block(PEER, ALL)
    await until(lambda: changed == [PEER, PEER])
    assert two.blocks(PEER, OUT)
    assert await one.unblock(PEER)
    await until(lambda: two.snapshot() == {} and len(changed) == 3)
    assert not await one.unblock(PEER)


async def test_one_that_starts_later_or_was_cut_off_knows_it_too() -> None:
    hub = MemoryHub()
    one, cut_off = await started(hub.bus("a")), await started(hub.bus("b"))
    hub.disconnect("b")
    await one.block(PEER, ALL)
    assert not cut_off.blocks(PEER, ALL)
    hub.reconnect("b")
    await until(lambda: cut_off.blocks(PEER, ALL))
    assert (await started(hub.bus("c"))).blocks(PEER, ALL)


async def test_what_cannot_be_read_blocks_everything() -> None:
    hub = MemoryHub()
    blocklist = await started(hub.bus("a"))
    bucket = await hub.bus("b").kv(BUCKET_BLOCKLIST)
    await bucket.put(PEER, b"nonsense")
    await bucket.put(GUEST, b'{"direction": "sideways", "note": "\xff"}')
    await bucket.put("no-name", b'{"direction": "all"}')
    await until(lambda: blocklist.malformed == 2)
    assert blocklist.blocks(PEER, ALL)
    assert blocklist.blocks(GUEST, ALL)
    assert list(blocklist.snapshot()) == [GUEST, PEER]


async def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    blocklist = await started(MemoryHub().bus("a"))
    for peer, note in (("somebody", ""), ("peer-0123456789ABCDEF", ""), (PEER, "x" * (MAX_NOTE_CHARS + 1))):
        with pytest.raises(SwarmbridgeError) as refused:
            await blocklist.block(peer, ALL, note)
        assert refused.value.cause is Cause.INVALID
    monkeypatch.setattr(module, "MAX_BLOCKED", 1)
    await blocklist.block(PEER, ALL)
    with pytest.raises(SwarmbridgeError) as refused:
        await blocklist.block(GUEST, ALL)
    assert refused.value.cause is Cause.TOO_LARGE
    await blocklist.block(PEER, IN)  # what is on the list may be changed
    with pytest.raises(BusError):
        await Blocklist().block(PEER, ALL)


async def test_on_a_real_server_two_people_at_once_end_with_one_order(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        buses = [await nats_bus.connect(server.url, name) for name in ("a", "b")]
        await ensure_layout(buses[0].connection, "n")
        lists = [Blocklist(), Blocklist()]
        for blocklist, bus in zip(lists, buses, strict=True):
            await blocklist.start(bus)
        await asyncio.gather(*(blocklist.block(PEER, way) for blocklist, way in zip(lists, (IN, OUT), strict=True)))
        await until(lambda: lists[0].snapshot() == lists[1].snapshot())
        await lists[0].unblock(PEER)
        await until(lambda: lists[1].snapshot() == {})
        await lists[0].block(PEER, ALL)  # over what the deletion left
        await until(lambda: lists[1].blocks(PEER, ALL))
        assert isinstance(lists[1].snapshot()[PEER], Block)
        for blocklist, bus in zip(lists, buses, strict=True):
            await blocklist.close()
            await bus.close()
