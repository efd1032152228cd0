"""Notices workers that die or stop while they hold requests of ours: one ping loop for all of them.

A killed worker's subject has no responders within one interval; a stopped one leaves two pings unanswered. Without
this its hops would wait out their silence, or their deadline where they had been acked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Ping, Pong
from shared.bus.messages.subjects import Subjects
from shared.errors import BusError, BusTimeout, NoResponders
from shared.tasks.owned import Tasks

PING_INTERVAL_S = 0.05
"""Nearly all of what a killed worker costs its requests (measured: 150 ms with 250 ms between pings)."""

PING_TIMEOUT_S = 0.45
MAX_MISSES = 2
"""Half a second without an answer in all: a worker on a busy machine may be late by a few hundred milliseconds."""


class WorkerWatch:
    """workers: who holds requests now. lost: told once for each loss noticed."""

    def __init__(
        self, bus: Bus, subjects: Subjects, workers: Callable[[], set[str]], lost: Callable[[str], None]
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._workers = workers
        self._lost = lost
        self._misses: dict[str, int] = {}

    async def run(self, tasks: Tasks) -> None:
        """Ping until cancelled. Slow pings do not slow the loop: each interval starts its own."""
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            workers = self._workers()
            self._misses = {worker: self._misses.get(worker, 0) for worker in workers}
            for worker in workers:
                tasks.start(self._ping(worker), name="ping")

    async def _ping(self, worker: str) -> None:
        try:
            await self._bus.request(self._subjects.worker(worker), Ping(), Pong, PING_TIMEOUT_S)
        except NoResponders:
            self._lost(worker)
        except BusTimeout:
            misses = self._misses.get(worker, 0) + 1
            self._misses[worker] = misses
            if misses >= MAX_MISSES:
                self._lost(worker)
        except BusError:
            # We are not connected, or it is busy: neither says that it is gone.
            pass
        else:
            self._misses[worker] = 0
