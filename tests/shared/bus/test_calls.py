"""Calls outlive their servers: asked again under the same id, answered once, ended by their deadline."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared.bus.calls import Calls
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import (
    CancelDelivery,
    Deliver,
    ManagerMessage,
    Ping,
    Pong,
    Receipt,
    ReplyMessage,
    Taken,
)
from shared.bus.messages.subjects import QUEUE_MANAGER, Subjects
from shared.clock import unix_ms
from shared.content.messages import RequestChunk
from shared.errors import BusTimeout, BusUnavailable, Cause, LocalProtocolError, RemoteFailure, SwarmbridgeError
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until
from tests.shared.bus.conftest import NODE, CountingBus, World

SUBJECTS = Subjects(NODE)
CALL_ID = bytes(range(16))


class FakeManager:
    """Takes deliveries; `answer` gives a call its final message."""

    def __init__(self, bus: CountingBus) -> None:
        self.bus = bus
        self.taken: dict[bytes, Deliver] = {}
        self.cancelled: list[bytes] = []
        self.asked = 0
        self.deadlines_ms: list[int] = []
        self.refusal: SwarmbridgeError | None = None

    async def start(self) -> None:
        self.taking = await self.bus.serve(SUBJECTS.deliver, Deliver, self._take, queue=QUEUE_MANAGER)
        await self.bus.serve(SUBJECTS.manager(self.bus.instance), ManagerMessage, self._message)

    async def answer(self, call_id: bytes, outcome: str = "confirmed") -> None:
        receipt = Receipt(call_id, outcome, None, [], 1.0)
        await self.bus.publish(SUBJECTS.reply(self.taken[call_id].reply_to), receipt)

    async def _take(self, body: Deliver, incoming: Incoming) -> Taken:
        self.asked += 1
        self.deadlines_ms.append(incoming.deadline_ms)
        if self.refusal is not None:
            raise self.refusal
        self.taken[body.delivery_id] = body
        return Taken(self.bus.instance)

    async def _message(self, body: ManagerMessage, incoming: Incoming) -> Pong | None:
        if isinstance(body, CancelDelivery):
            self.cancelled.append(body.delivery_id)
            return None
        assert isinstance(body, Ping)
        return Pong([call for call in body.calls if call not in self.taken])


class Caller:
    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.messages: list[ReplyMessage] = []

    def ask(self, timeout_s: float = 5.0, call_id: bytes = CALL_ID) -> asyncio.Task[ReplyMessage]:
        body = Deliver(call_id, "chunk-1", "kpeer", RequestChunk("chunk-00"))
        call = self.calls.call(
            SUBJECTS.deliver, call_id, body, timeout_s, self._on_message, on_cancel=CancelDelivery(call_id)
        )
        return asyncio.create_task(call)

    async def _on_message(self, message: ReplyMessage) -> bool:
        self.messages.append(message)
        return isinstance(message, Receipt) and message.outcome != "running"


async def caller_on(bus: CountingBus) -> Caller:
    calls = Calls(bus, SUBJECTS, SUBJECTS.manager)
    await calls.start()
    return Caller(calls)


async def manager_on(bus: CountingBus) -> FakeManager:
    manager = FakeManager(bus)
    await manager.start()
    return manager


async def test_messages_come_in_order_until_the_final_one(world: World) -> None:
    manager = await manager_on(await world.bus("manager-1"))
    caller = await caller_on(await world.bus("chunk-1"))
    task = caller.ask()
    await until(lambda: manager.taken)
    assert 4000 < manager.deadlines_ms[0] - unix_ms() <= 5000
    for _ in range(20):
        await manager.answer(CALL_ID, "running")
    await manager.answer(CALL_ID)
    final = await task
    assert isinstance(final, Receipt)
    assert final.outcome == "confirmed"
    assert [message.outcome for message in caller.messages if isinstance(message, Receipt)] == ["running"] * 20 + [
        "confirmed"
    ]
    await caller.calls.close()


async def test_a_cancelled_call_is_asked_to_its_server(world: World) -> None:
    manager = await manager_on(await world.bus("manager-1"))
    caller = await caller_on(await world.bus("chunk-1"))
    task, other = caller.ask(), caller.ask(call_id=b"o" * 16)
    await until(lambda: len(manager.taken) == 2)
    await until(lambda: caller.calls._calls[CALL_ID].server)
    task.cancel()
    await until(lambda: manager.cancelled)
    await manager.answer(b"o" * 16)
    await other
    assert manager.cancelled == [CALL_ID]
    assert task.cancelled()
    await caller.calls.close()


async def test_a_killed_server_is_replaced_under_the_same_id_and_answers_once(world: World) -> None:
    first_bus, second_bus = await world.bus("manager-1"), await world.bus("manager-2")
    first = await manager_on(first_bus)
    caller = await caller_on(await world.bus("chunk-1"))
    tasks = [caller.ask(call_id=bytes([number]) * 16) for number in range(10)]
    await until(lambda: len(first.taken) == 10)
    second = await manager_on(second_bus)
    await world.kill(first_bus)
    await until(lambda: len(second.taken) == 10)
    assert set(second.taken) == set(first.taken)
    for call_id in second.taken:
        await second.answer(call_id)
    finals = await asyncio.gather(*tasks)
    for call_id in second.taken:
        await second.answer(call_id)
    await until(lambda: caller.calls.late == 10)
    assert len(caller.messages) == len(finals) == 10
    assert caller.calls.asked_again == 10
    await caller.calls.close()


async def test_a_frozen_server_is_given_up_after_two_misses() -> None:
    hub = MemoryHub()
    first = await manager_on(hub.bus("manager-1"))
    caller = await caller_on(hub.bus("chunk-1"))
    task = caller.ask()
    await until(lambda: first.taken)
    second = await manager_on(hub.bus("manager-2"))
    await first.taking.close()  # else the queue group goes on choosing it, at random
    hub.freeze("manager-1")
    await until(lambda: second.taken, 2.0)
    await second.answer(CALL_ID)
    await task
    hub.thaw("manager-1")
    await first.answer(CALL_ID)
    await until(lambda: caller.calls.late == 1)
    assert len(caller.messages) == 1
    await caller.calls.close()


async def test_a_server_that_forgot_the_call_is_asked_again() -> None:
    hub = MemoryHub()
    manager = await manager_on(hub.bus("manager-1"))
    caller = await caller_on(hub.bus("chunk-1"))
    task = caller.ask()
    await until(lambda: manager.taken)
    manager.taken.clear()
    await until(lambda: manager.taken)
    assert manager.asked == 2
    await manager.answer(CALL_ID)
    await task
    await caller.calls.close()


async def test_nobody_answers_by_the_deadline() -> None:
    hub = MemoryHub()
    caller = await caller_on(hub.bus("chunk-1"))
    started = time.monotonic()
    with pytest.raises(BusTimeout):
        await caller.ask(0.2)
    assert 0.15 < time.monotonic() - started < 1.0
    manager = await manager_on(hub.bus("manager-1"))
    with pytest.raises(BusTimeout):
        await caller.ask(0.2)
    await manager.answer(CALL_ID)
    await until(lambda: caller.calls.late == 1)
    await caller.calls.close()


async def test_a_server_that_comes_late_takes_the_call() -> None:
    hub = MemoryHub()
    caller = await caller_on(hub.bus("chunk-1"))
    task = caller.ask()
    await asyncio.sleep(0.1)
    manager = await manager_on(hub.bus("manager-1"))
    await until(lambda: manager.taken)
    await manager.answer(CALL_ID)
    await task
    await caller.calls.close()


async def test_refusals_are_raised_and_busy_is_asked_again() -> None:
    hub = MemoryHub()
    manager = await manager_on(hub.bus("manager-1"))
    caller = await caller_on(hub.bus("chunk-1"))
    manager.refusal = SwarmbridgeError(Cause.INVALID)
    with pytest.raises(RemoteFailure) as failure:
        await caller.ask()
    assert failure.value.cause is Cause.INVALID
    manager.refusal = RemoteFailure(Cause.BUSY, 0.02)
    task = caller.ask()
    await until(lambda: manager.asked > 3)
    manager.refusal = None
    await until(lambda: manager.taken)
    await manager.answer(CALL_ID)
    await task
    await caller.calls.close()


async def test_one_id_once_and_close_ends_calls() -> None:
    hub = MemoryHub()
    manager = await manager_on(hub.bus("manager-1"))
    caller = await caller_on(hub.bus("chunk-1"))
    task = caller.ask()
    await until(lambda: manager.taken)
    with pytest.raises(LocalProtocolError):
        await caller.ask()
    await caller.calls.close()
    with pytest.raises(BusUnavailable):
        await task


async def test_what_on_message_raises_is_raised() -> None:
    hub = MemoryHub()
    manager = await manager_on(hub.bus("manager-1"))
    caller = await caller_on(hub.bus("chunk-1"))

    async def refuse(message: ReplyMessage) -> bool:
        raise TimeoutError("of its own")

    body = Deliver(CALL_ID, "chunk-1", "kpeer", RequestChunk("chunk-00"))
    task = asyncio.create_task(caller.calls.call(SUBJECTS.deliver, CALL_ID, body, 5.0, refuse))
    await until(lambda: manager.taken)
    await manager.answer(CALL_ID)
    with pytest.raises(TimeoutError):
        await task
    await caller.calls.close()
