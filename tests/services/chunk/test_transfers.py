"""Calls of transfers: taken once, pinged, abandoned, repeated, handed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from services.chunk.progress import Progress
from services.chunk.transfers import ABANDONED_AFTER_S, MAX_AT_WORK, MAX_TAKEN, Transfers
from shared.bus.chunk_api import CancelCall
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Ping, Pong, ReplyMessage, TransferUpdate
from shared.errors import Cause, SwarmbridgeError
from shared.tasks.ending import CANCEL_AGAIN_S
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until
from tests.services.chunk.nodes import SUBJECTS

CALL = b"c" * 16
INCOMING = Incoming("s", 0, "")


@dataclass
class Desk:
    """Transfers of one instance, on a clock of ours, and what its caller hears."""

    transfers: Transfers
    hub: MemoryHub
    heard: list[TransferUpdate] = field(default_factory=list)
    now_s: float = 0.0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    started: int = 0

    async def work(self, progress: Progress) -> str:
        self.started += 1
        await self.gate.wait()
        return "swarmbridge:x"

    async def ping(self, *calls: bytes) -> Pong:
        pong = await self.transfers.command(Ping(list(calls)), INCOMING)
        assert isinstance(pong, Pong)
        return pong

    def pass_time(self, seconds_s: float) -> None:
        """As the process lives through it: it sweeps every second."""
        for _ in range(round(seconds_s)):
            self.now_s += 1.0
            self.transfers.sweep()

    def final(self) -> list[TransferUpdate]:
        return [update for update in self.heard if update.state != "running"]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    hub = MemoryHub()
    made: Desk
    transfers = Transfers(hub.bus("chunk-1"), SUBJECTS, lambda: made.now_s)
    made = Desk(transfers, hub)

    async def hear(message: ReplyMessage, incoming: Incoming) -> None:
        assert isinstance(message, TransferUpdate)
        made.heard.append(message)

    await hub.bus("caller").serve(SUBJECTS.reply("caller"), ReplyMessage, hear)
    yield made
    await transfers.close()


async def test_a_call_is_taken_once_however_often_it_is_asked(desk: Desk) -> None:
    for _ in range(3):
        assert desk.transfers.take("put", CALL, "caller", desk.work).instance == "chunk-1"
    desk.gate.set()
    await until(desk.final)
    assert desk.started == 1
    assert desk.final()[0].link == "swarmbridge:x"


async def test_a_caller_that_missed_the_end_hears_it_again(desk: Desk) -> None:
    desk.gate.set()
    desk.transfers.take("put", CALL, "caller", desk.work)
    await until(lambda: len(desk.transfers) == 0)
    assert (await desk.ping(CALL)).unknown == []
    await until(lambda: len(desk.final()) == 2)
    desk.transfers.take("put", CALL, "caller", desk.work)
    await until(lambda: len(desk.final()) == 3)
    assert desk.started == 1


async def test_a_transfer_that_stands_still_is_reported_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is started while it runs hears of it, though nothing changes."""
    monkeypatch.setattr("services.chunk.progress.REPEAT_EVERY_S", 0.05)
    desk.transfers.take("get", CALL, "caller", desk.work)
    await until(lambda: desk.started)
    updates: list[TransferUpdate] = []

    async def hear(update: TransferUpdate, incoming: Incoming) -> None:
        updates.append(update)

    await desk.hub.bus("gateway-2").serve(SUBJECTS.event("transfer"), TransferUpdate, hear)
    await until(lambda: len(updates) >= 2)
    assert {(update.call_id, update.state) for update in updates} == {(CALL, "running")}


async def test_unknown_calls_are_named(desk: Desk) -> None:
    desk.transfers.take("get", CALL, "caller", desk.work)
    assert (await desk.ping(CALL, b"x" * 16)).unknown == [b"x" * 16]


async def test_a_transfer_that_nobody_asks_after_is_given_up(desk: Desk) -> None:
    desk.transfers.take("get", CALL, "caller", desk.work)
    await until(lambda: desk.started)
    desk.pass_time(ABANDONED_AFTER_S - 1)
    await desk.ping(CALL)
    desk.pass_time(2)
    assert len(desk.transfers) == 1
    desk.pass_time(ABANDONED_AFTER_S)
    await until(lambda: len(desk.transfers) == 0)
    assert [update.cause for update in desk.final()] == [Cause.CLOSED]


async def test_silence_counts_only_while_somebody_could_be_heard(desk: Desk) -> None:
    desk.transfers.take("put", CALL, "caller", desk.work)
    await until(lambda: desk.started)
    desk.hub.disconnect("chunk-1")
    desk.pass_time(4 * ABANDONED_AFTER_S)
    desk.hub.reconnect("chunk-1")
    desk.pass_time(ABANDONED_AFTER_S - 1)
    # The process was stopped for a day, and its callers with it.
    desk.now_s += 86_400
    desk.transfers.sweep()
    assert len(desk.transfers) == 1
    desk.gate.set()
    await until(desk.final)
    assert desk.final()[0].cause is None


async def test_what_is_taken_waits_its_turn_and_a_fetch_does_not_wait_for_puts(desk: Desk) -> None:
    for number in range(2 * MAX_AT_WORK["put"]):
        desk.transfers.take("put", bytes([number]) * 16, "caller", desk.work)
    desk.transfers.take("get", CALL, "caller", desk.work)
    await until(lambda: desk.started == MAX_AT_WORK["put"] + 1)
    assert len(desk.transfers) == 2 * MAX_AT_WORK["put"] + 1
    # One that waits can be cancelled, and takes no turn.
    await desk.transfers.command(CancelCall(bytes([2 * MAX_AT_WORK["put"] - 1]) * 16), INCOMING)
    await until(lambda: len(desk.transfers) == 2 * MAX_AT_WORK["put"])
    assert desk.started == MAX_AT_WORK["put"] + 1
    desk.gate.set()
    await until(lambda: len(desk.transfers) == 0)
    assert desk.started == 2 * MAX_AT_WORK["put"]
    assert sum(update.state == "done" for update in desk.final()) == desk.started


async def test_a_stopping_instance_lets_its_work_clean_up(desk: Desk) -> None:
    cleaned: list[int] = []

    async def work(progress: Progress) -> str:
        try:
            await desk.gate.wait()
        finally:
            for number in range(5):
                await asyncio.sleep(2 * CANCEL_AGAIN_S)  # each longer than until the next cancellation
                cleaned.append(number)
        return ""

    desk.transfers.take("put", CALL, "caller", work)
    await until(lambda: desk.heard)
    await desk.transfers.close()
    assert cleaned == [0, 1, 2, 3, 4]


async def test_cancelling_what_is_unknown_is_no_error(desk: Desk) -> None:
    await desk.transfers.command(CancelCall(b"x" * 16), INCOMING)


async def test_a_call_that_is_cancelled_at_once_is_not_kept(desk: Desk) -> None:
    desk.transfers.take("get", CALL, "caller", desk.work)
    await desk.transfers.command(CancelCall(CALL), INCOMING)
    await until(lambda: len(desk.transfers) == 0)
    assert (await desk.ping(CALL)).unknown == [CALL]
    assert desk.started == 0


async def test_a_bug_in_the_work_is_a_failure_with_a_cause(desk: Desk) -> None:
    async def broken(progress: Progress) -> str:
        raise ZeroDivisionError

    desk.transfers.take("get", CALL, "caller", broken)
    await until(desk.final)
    assert [update.cause for update in desk.final()] == [Cause.OTHER]


async def test_too_many_are_busy_and_a_stopping_instance_takes_none_and_fails_none(desk: Desk) -> None:
    for number in range(MAX_TAKEN):
        desk.transfers.take("get", number.to_bytes(16, "big"), "caller", desk.work)
    with pytest.raises(SwarmbridgeError) as raised:
        desk.transfers.take("get", CALL, "caller", desk.work)
    assert raised.value.cause is Cause.BUSY
    await desk.transfers.close()
    with pytest.raises(SwarmbridgeError) as raised:
        desk.transfers.take("get", CALL, "caller", desk.work)
    assert raised.value.cause is Cause.DRAINING
    assert desk.final() == []
