"""Bodies: whole, in order, windowed, bounded, and quickly given up when their holder is gone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bus.bodies import (
    RANGE_BYTES,
    RANGE_SLACK_BYTES,
    STALL_S,
    WINDOW_RANGES,
    BodyHolder,
    pull,
    pull_ranges,
    release,
)
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import BodyCall, BodyRef, PullRange, Range
from shared.bus.messages.subjects import Subjects
from shared.errors import BusTimeout, Cause, RemoteFailure, SwarmbridgeError
from tests.fakes.memory_bus import MemoryBus, MemoryHub
from tests.fakes.waiting import until
from tests.shared.bus.conftest import NODE, World

SUBJECTS = Subjects(NODE)


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def holder_on(bus: MemoryBus, **options: object) -> BodyHolder:
    holder = BodyHolder(bus, SUBJECTS, max_total_bytes=4 * 2**20, **options)  # type: ignore[arg-type]
    await holder.start()
    return holder


async def test_a_body_crosses_the_bus_whole(world: World) -> None:
    holding, pulling = await world.bus("chunk-1"), await world.bus("webrtc-1")
    holder = BodyHolder(holding, SUBJECTS, max_total_bytes=4 * 2**20)
    await holder.start()
    data = os.urandom(3 * RANGE_BYTES + 17)
    ref = holder.hold(data, "webrtc")
    assert await pull(pulling, SUBJECTS, ref, timeout_s=5.0) == data
    async with aclosing(pull_ranges(pulling, SUBJECTS, ref, start=RANGE_BYTES + 1, timeout_s=5.0)) as parts:
        assert b"".join([bytes(part) async for part in parts]) == data[RANGE_BYTES + 1 :]
    await release(pulling, SUBJECTS, ref)
    await until(lambda: holder.count == 0)
    holder.hold(bytes(4 * 2**20), "webrtc")  # its room is free again, all of it
    await holder.close()


@settings(max_examples=20, deadline=None)
@given(length=st.integers(0, 3 * RANGE_BYTES), start=st.integers(0, 3 * RANGE_BYTES))
def test_any_length_from_any_start(length: int, start: int) -> None:
    async def check() -> None:
        hub = MemoryHub()
        holder = await holder_on(hub.bus("chunk-h"))
        data = bytes(index % 251 for index in range(length))
        ref = holder.hold(data, "webrtc")
        parts = [
            bytes(part) async for part in pull_ranges(hub.bus("webrtc-p"), SUBJECTS, ref, start=start, timeout_s=5.0)
        ]
        assert b"".join(parts) == data[start:]
        await holder.close()

    asyncio.run(check())


@pytest.mark.parametrize(
    ("length", "ranges"),
    [
        (4 * RANGE_BYTES + 16, 4),  # a chunk and its tag
        (RANGE_BYTES + RANGE_SLACK_BYTES, 1),
        (RANGE_BYTES + RANGE_SLACK_BYTES + 1, 2),
        (1, 1),
    ],
)
async def test_a_few_bytes_more_than_a_range_are_not_worth_a_request(length: int, ranges: int) -> None:
    hub = MemoryHub()
    asked: list[int] = []

    async def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return bytes(length)

    holder = await holder_on(hub.bus("chunk-h"))
    ref = holder.hold_reader(length, read, "webrtc")
    assert len(await pull(hub.bus("webrtc-p"), SUBJECTS, ref, timeout_s=5.0)) == length
    assert (len(asked), sum(asked)) == (ranges, length)
    await holder.close()


async def test_no_more_than_the_window_is_asked_ahead() -> None:
    hub = MemoryHub()
    asked: list[int] = []

    async def read(offset: int, length: int) -> bytes:
        asked.append(offset)
        return bytes(length)

    holder = await holder_on(hub.bus("chunk-h"))
    ref = holder.hold_reader(20 * RANGE_BYTES, read, "webrtc")
    async with aclosing(pull_ranges(hub.bus("webrtc-p"), SUBJECTS, ref, timeout_s=5.0)) as parts:
        await anext(parts)
        await until(lambda: len(asked) == WINDOW_RANGES)
        await asyncio.sleep(0.02)
        assert len(asked) == WINDOW_RANGES
        await anext(parts)
        await until(lambda: len(asked) == WINDOW_RANGES + 1)
    await holder.close()


async def test_a_holder_killed_in_the_middle_is_lost_soon() -> None:
    hub = MemoryHub()
    holder = await holder_on(hub.bus("chunk-h"))
    pulling = hub.bus("webrtc-p")
    reads = 0

    async def read(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads > WINDOW_RANGES:
            await asyncio.Event().wait()
        return bytes(length)

    ref = holder.hold_reader(40 * RANGE_BYTES, read, "webrtc")
    task = asyncio.create_task(pull(pulling, SUBJECTS, ref, timeout_s=60.0))
    await until(lambda: reads > WINDOW_RANGES)
    hub.kill("chunk-h")
    started = time.monotonic()
    with pytest.raises(SwarmbridgeError) as error:
        await task
    assert error.value.cause is Cause.SOURCE_LOST
    assert time.monotonic() - started < STALL_S
    started = time.monotonic()
    with pytest.raises(SwarmbridgeError) as error:
        await pull(pulling, SUBJECTS, ref, timeout_s=60.0)
    assert error.value.cause is Cause.SOURCE_LOST
    assert time.monotonic() - started < STALL_S


async def test_a_body_is_for_one_service_alone() -> None:
    hub = MemoryHub()
    holder = await holder_on(hub.bus("chunk-h"))
    ref = holder.hold(b"secret", "webrtc")
    for thief in ("webtorrent-t", "gateway-t"):
        bus = hub.bus(thief)
        with pytest.raises(SwarmbridgeError) as error:
            await pull(bus, SUBJECTS, ref, timeout_s=1.0)
        assert error.value.cause is Cause.SOURCE_LOST
        await release(bus, SUBJECTS, ref)
    await until(lambda: holder.refused == 4)
    assert await pull(hub.bus("webrtc-p"), SUBJECTS, ref, timeout_s=1.0) == b"secret"
    await holder.close()


@pytest.mark.parametrize("away", ["silent", "cut off", "holder cut off"])
async def test_a_stall_is_waited_out(away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bus.bodies.RANGE_TIMEOUT_S", 0.05)
    hub = MemoryHub()
    holding, pulling = hub.bus("chunk-h"), hub.bus("webrtc-p")
    holder = await holder_on(holding)
    data = os.urandom(6 * RANGE_BYTES)
    ref = holder.hold(data, "webrtc")
    async with aclosing(pull_ranges(pulling, SUBJECTS, ref, timeout_s=60.0)) as parts:
        got = bytearray(await anext(parts))
        match away:
            case "silent":
                hub.freeze("chunk-h")
            case "cut off":
                hub.disconnect("webrtc-p")
            case _:
                hub.disconnect("chunk-h")
        ahead = [bytes(await anext(parts)) for _ in range(WINDOW_RANGES - 1)]
        rest = asyncio.create_task(_rest(parts))
        await asyncio.sleep(0.3)  # longer than several range timeouts: what used to end it
        assert not rest.done()
        hub.thaw("chunk-h")
        hub.reconnect("chunk-h" if away == "holder cut off" else "webrtc-p")
        got += b"".join(ahead) + await rest
    assert bytes(got) == data
    await holder.close()


@pytest.mark.parametrize(("away", "cause"), [("holder", Cause.SOURCE_LOST), ("bus", Cause.BUS_UNAVAILABLE)])
async def test_what_stays_away_is_the_cause(away: str, cause: Cause, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bus.bodies.RANGE_TIMEOUT_S", 0.05)
    hub = MemoryHub()
    holder = await holder_on(hub.bus("chunk-h"))
    pulling = hub.bus("webrtc-p")
    ref = holder.hold(bytes(10), "webrtc")
    if away == "holder":
        hub.freeze("chunk-h")
    else:
        hub.disconnect("webrtc-p")
    with pytest.raises(SwarmbridgeError) as error:
        await pull(pulling, SUBJECTS, ref, timeout_s=60.0, stall_s=0.3)
    assert error.value.cause is cause
    hub.thaw("chunk-h")
    await holder.close()


async def _rest(parts: AsyncGenerator[memoryview, None]) -> bytes:
    return b"".join([bytes(part) async for part in parts])


async def test_a_busy_holder_is_asked_again_and_a_slow_pull_ends_at_its_deadline() -> None:
    hub = MemoryHub()
    holding, pulling = hub.bus("chunk-h"), hub.bus("webrtc-p")
    refusals = 3

    async def serve(call: BodyCall, incoming: Incoming) -> Range:
        nonlocal refusals
        assert isinstance(call, PullRange)
        refusals -= 1
        if refusals >= 0 or call.token == b"never":
            raise RemoteFailure(Cause.BUSY, 0.01)
        return Range(memoryview(bytes(call.length)))

    await holding.serve(SUBJECTS.body("chunk-h", "*"), BodyCall, serve)
    assert await pull(pulling, SUBJECTS, BodyRef("chunk-h", b"t", 5), timeout_s=5.0) == bytes(5)
    with pytest.raises(BusTimeout):
        await pull(pulling, SUBJECTS, BodyRef("chunk-h", b"never", 5), timeout_s=0.1)


@pytest.mark.parametrize("reply", [b"", b"short", bytes(RANGE_BYTES)])
async def test_a_range_of_another_length_is_refused(reply: bytes) -> None:
    hub = MemoryHub()
    holding, pulling = hub.bus("chunk-h"), hub.bus("webrtc-p")

    async def serve(call: BodyCall, incoming: Incoming) -> Range:
        return Range(memoryview(reply))

    await holding.serve(SUBJECTS.body("chunk-h", "*"), BodyCall, serve)
    with pytest.raises(SwarmbridgeError) as error:
        await pull(pulling, SUBJECTS, BodyRef("chunk-h", b"t", 6), timeout_s=1.0)
    assert error.value.cause is Cause.SOURCE_LOST


async def test_ranges_outside_the_body_are_refused() -> None:
    hub = MemoryHub()
    holder = await holder_on(hub.bus("chunk-h"))
    ref = holder.hold(bytes(10), "webrtc")
    for offset, length in [(0, 11), (-1, 5), (8, 3), (0, 0), (0, RANGE_BYTES + RANGE_SLACK_BYTES + 1), (10, 1)]:
        with pytest.raises(RemoteFailure) as error:
            await hub.buses["chunk-h"].request(
                SUBJECTS.body("chunk-h", "webrtc"), PullRange(ref.token, offset, length), Range, 1.0
            )
        assert error.value.cause is Cause.INVALID
    await holder.close()


async def test_budget_time_to_live_and_release() -> None:
    hub, clock = MemoryHub(), FakeClock()
    holder = await holder_on(hub.bus("chunk-h"), ttl_s=60.0, clock=clock)
    first = holder.hold(bytes(3 * 2**20), "webrtc")
    with pytest.raises(SwarmbridgeError) as error:
        holder.hold(bytes(2 * 2**20), "webrtc")
    assert error.value.cause is Cause.BUSY
    holder.release(first.token)
    holder.release(first.token)
    whole = holder.hold(bytes(4 * 2**20), "webrtc")
    with pytest.raises(SwarmbridgeError):
        holder.hold(b"released once, however often it is said", "webrtc")
    holder.release(whole.token)

    kept, forgotten = holder.hold(b"kept", "webrtc"), holder.hold(b"forgotten", "webrtc")
    clock.now_s += 50
    assert await pull(hub.bus("webrtc-p"), SUBJECTS, kept, timeout_s=1.0) == b"kept"
    clock.now_s += 50
    holder.sweep()
    assert await pull(hub.bus("webrtc-p"), SUBJECTS, kept, timeout_s=1.0) == b"kept"
    with pytest.raises(SwarmbridgeError) as error:
        await pull(hub.bus("webrtc-p"), SUBJECTS, forgotten, timeout_s=1.0)
    assert error.value.cause is Cause.SOURCE_LOST
    await holder.close()


async def test_a_reader_that_fails_is_a_lost_source() -> None:
    hub = MemoryHub()

    async def read(offset: int, length: int) -> bytes:
        raise SwarmbridgeError(Cause.INTEGRITY_MISMATCH)

    holder = await holder_on(hub.bus("chunk-h"))
    with pytest.raises(SwarmbridgeError) as error:
        await pull(hub.bus("webrtc-p"), SUBJECTS, holder.hold_reader(10, read, "webrtc"), timeout_s=1.0)
    assert error.value.cause is Cause.SOURCE_LOST
    await holder.close()
