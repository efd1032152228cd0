"""Calls of transfers: taken once, pinged, abandoned, repeated, handed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from services.chunk.progress import Progress
from services.chunk.transfers import ABANDONED_AFTER_S, MAX_RUNNING, Transfers
from shared.bus.chunk_api import CancelCall
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Ping, Pong, ReplyMessage, TransferUpdate
from shared.errors import Cause, SwarmbridgeError
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until
from tests.services.chunk.nodes import SUBJECTS

CALL = b"c" * 16
INCOMING = Incoming("s", 0, "")


@dataclass
class Desk:
    """Transfers of one instance, on a clock of ours, and what its asker hears."""

    transfers: Transfers
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

    def final(self) -> list[TransferUpdate]:
        return [update for update in self.heard if update.state != "running"]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    hub = MemoryHub()
    made: Desk
    transfers = Transfers(hub.bus("chunk-1"), SUBJECTS, lambda: made.now_s)
    made = Desk(transfers)

    async def hear(message: ReplyMessage, incoming: Incoming) -> None:
        assert isinstance(message, TransferUpdate)
        made.heard.append(message)

    await hub.bus("asker").serve(SUBJECTS.reply("asker"), ReplyMessage, hear)
    yield made
    await transfers.close()


async def test_a_call_is_taken_once_however_often_it_is_asked(desk: Desk) -> None:
    for _ in range(3):
        assert desk.transfers.take("put", CALL, "asker", desk.work).instance == "chunk-1"
    desk.gate.set()
    await until(desk.final)
    assert desk.started == 1
    assert desk.final()[0].link == "swarmbridge:x"


async def test_an_asker_that_missed_the_end_hears_it_again(desk: Desk) -> None:
    desk.gate.set()
    desk.transfers.take("put", CALL, "asker", desk.work)
    await until(lambda: len(desk.transfers) == 0)
    assert (await desk.ping(CALL)).unknown == []
    await until(lambda: len(desk.final()) == 2)
    desk.transfers.take("put", CALL, "asker", desk.work)
    await until(lambda: len(desk.final()) == 3)
    assert desk.started == 1


async def test_unknown_calls_are_named(desk: Desk) -> None:
    desk.transfers.take("get", CALL, "asker", desk.work)
    assert (await desk.ping(CALL, b"x" * 16)).unknown == [b"x" * 16]


async def test_a_transfer_that_nobody_asks_after_is_given_up(desk: Desk) -> None:
    desk.transfers.take("get", CALL, "asker", desk.work)
    await until(lambda: desk.started)
    desk.now_s = ABANDONED_AFTER_S - 1
    await desk.ping(CALL)
    desk.now_s = ABANDONED_AFTER_S + 1
    desk.transfers.sweep()
    assert len(desk.transfers) == 1
    desk.now_s += ABANDONED_AFTER_S
    desk.transfers.sweep()
    await until(lambda: len(desk.transfers) == 0)
    assert [update.cause for update in desk.final()] == [Cause.CLOSED]


async def test_cancelling_what_is_unknown_is_no_error(desk: Desk) -> None:
    await desk.transfers.command(CancelCall(b"x" * 16), INCOMING)


async def test_a_call_that_is_cancelled_at_once_is_not_kept(desk: Desk) -> None:
    desk.transfers.take("get", CALL, "asker", desk.work)
    await desk.transfers.command(CancelCall(CALL), INCOMING)
    await until(lambda: len(desk.transfers) == 0)
    assert (await desk.ping(CALL)).unknown == [CALL]
    assert desk.started == 0


async def test_a_bug_in_the_work_is_a_failure_with_a_cause(desk: Desk) -> None:
    async def broken(progress: Progress) -> str:
        raise ZeroDivisionError

    desk.transfers.take("get", CALL, "asker", broken)
    await until(desk.final)
    assert [update.cause for update in desk.final()] == [Cause.OTHER]


async def test_too_many_are_busy_and_a_stopping_instance_takes_none_and_fails_none(desk: Desk) -> None:
    for number in range(MAX_RUNNING):
        desk.transfers.take("get", bytes([number]) * 16, "asker", desk.work)
    with pytest.raises(SwarmbridgeError) as raised:
        desk.transfers.take("get", CALL, "asker", desk.work)
    assert raised.value.cause is Cause.BUSY
    await desk.transfers.close()
    with pytest.raises(SwarmbridgeError) as raised:
        desk.transfers.take("get", CALL, "asker", desk.work)
    assert raised.value.cause is Cause.DRAINING
    assert desk.final() == []
