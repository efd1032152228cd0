"""Messages that must leave in order and survive a short loss of the bus: answers and receipts to callers.

Back-pressure: none towards the machines. The queue is bounded by MAX_QUEUED, which the bound on deliveries keeps
far away; what does not fit is dropped and counted, and the caller's stub asks again. Cancellation: the manager waits
for `flushed`, a bounded time, before its tasks end; what is left then is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from shared.bus.contract import Bus
from shared.clock import Clock
from shared.errors import BusError
from shared.tasks.owned import Tasks

MAX_QUEUED = 16_384
RETRY_S = 0.05
"""Between two tries while the bus is away."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Message:
    subject: str
    body: msgspec.Struct
    expires_at: float


class Outbox:
    """Publishes what is posted, one after another."""

    def __init__(self, bus: Bus, clock: Clock, tasks: Tasks) -> None:
        self._bus = bus
        self._clock = clock
        self._queue: asyncio.Queue[_Message] = asyncio.Queue(MAX_QUEUED)
        self.dropped_count = 0
        tasks.start(self._run(), name="outbox")

    def post(self, subject: str, body: msgspec.Struct, expires_at: float) -> None:
        """Publish when its turn comes; after `expires_at` (monotonic, seconds) nobody wants it any more."""
        try:
            self._queue.put_nowait(_Message(subject, body, expires_at))
        except asyncio.QueueFull:
            self.dropped_count += 1
            log.error("outbox full, %d dropped so far", self.dropped_count)

    def __len__(self) -> int:
        return self._queue.qsize()

    async def flushed(self) -> None:
        """Wait until everything posted has left."""
        await self._queue.join()

    async def _run(self) -> None:
        while True:
            message = await self._queue.get()
            try:
                await self._publish(message)
            finally:
                self._queue.task_done()

    async def _publish(self, message: _Message) -> None:
        while True:
            try:
                await self._bus.publish(message.subject, message.body)
            except BusError as error:
                if self._clock() >= message.expires_at:
                    self.dropped_count += 1
                    log.debug("a message was not sent: %s", error.cause.value)
                    return
                # In place, with the queue behind it: what leaves later must arrive later.
                await asyncio.sleep(RETRY_S)
            else:
                return
