"""Asks managers for deliveries exactly as the chunk service does, and times them.

The clock runs from before the request to a manager until the receipt is here; between lie the hops, the pull of
the body, its check, the verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ops.bench.samples import Sample, sample_of
from shared.bus.bodies import pull, release
from shared.bus.calls import Calls
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Answered, Deliver, Done, Receipt, ReplyMessage, Verdict
from shared.bus.messages.subjects import Subjects
from shared.clock import monotonic
from shared.content.messages import PeerAnswer, PeerRequest
from shared.errors import BusError, Cause, SwarmbridgeError
from shared.ids import new_request_id

DELIVERY_TIMEOUT_S = 10.0
PULL_TIMEOUT_S = 8.0
VERDICT_TIMEOUT_S = 1.0
"""All three as in services.chunk.deliver."""

Check = Callable[[PeerAnswer, bytes], None]
"""Raises SwarmbridgeError where an answer does not pass."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of whom. check: of the answer, as a chunk is verified before it is stored."""

    peer: str
    request: PeerRequest
    check: Check


class Caller:
    """One caller on one bus. `start` it; `close` leaves the bus open. managers: those that gave answers."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self._calls = Calls(bus, subjects, subjects.manager)
        self.managers: set[str] = set()

    async def start(self) -> None:
        await self._calls.start()

    async def close(self) -> None:
        await self._calls.close()

    async def deliver(self, order: Order) -> Sample:
        """One delivery. A failure is a sample here, not an error."""
        started = monotonic()
        delivery_id = new_request_id()
        call = Deliver(delivery_id, self._bus.instance, order.peer, order.request)

        async def on_message(message: ReplyMessage) -> bool:
            if isinstance(message, Answered):
                await self._answered(message, order)
            return isinstance(message, Receipt)

        try:
            receipt = await self._calls.call(self._subjects.deliver, delivery_id, call, DELIVERY_TIMEOUT_S, on_message)
        except BusError:
            return Sample(_ms_since(started), confirmed=False)
        assert isinstance(receipt, Receipt)
        return sample_of(receipt, _ms_since(started))

    async def burst(self, order: Order, count: int) -> list[Sample]:
        """`count` deliveries at once."""
        return list(await asyncio.gather(*(self.deliver(order) for _ in range(count))))

    async def _answered(self, answered: Answered, order: Order) -> None:
        self.managers.add(answered.manager)
        cause: Cause | None = None
        body = b""
        try:
            if answered.body is not None:
                body = await pull(self._bus, self._subjects, answered.body, timeout_s=PULL_TIMEOUT_S)
            order.check(answered.answer, body)
        except SwarmbridgeError as error:
            cause = Cause.WORKER_LOST if error.cause is Cause.SOURCE_LOST else error.cause
        if answered.body is not None:
            await release(self._bus, self._subjects, answered.body)
        verdict = Verdict(answered.delivery_id, answered.hop, cause, len(body))
        try:
            await self._bus.request(self._subjects.manager(answered.manager), verdict, Done, VERDICT_TIMEOUT_S)
        except BusError:
            pass  # its receipt, or the deadline, tells


def _ms_since(started: float) -> float:
    return (monotonic() - started) * 1000
