"""Notices workers that die or stop while they hold requests of ours: one ping loop for all of them.

A killed worker's subject has no responders; a stopped one leaves two pings unanswered. Without this its hops would
wait out their silence, or their deadline where they had been acked.

A worker that has just reported something for any of our requests is there, and is not pinged. One that has fallen
quiet is pinged after FIRST_PING_S, and while it says nothing but Pong, ever less often, down to LAST_PING_S: at most
once for each stretch of progress reports, and about four times a second where a slow peer keeps it waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Ping, Pong
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock
from shared.errors import BusError, BusTimeout, NoResponders
from shared.tasks.owned import Tasks

FIRST_PING_S = 0.05
"""Nearly all of what a killed worker costs the requests that it was busy with (measured: 150 ms with 250 ms)."""

LAST_PING_S = 0.25
"""What a killed worker may cost a request that had been waiting for long already."""

LOOK_INTERVAL_S = 0.05
"""Workers report progress this often: one that works on a body is never quiet for long enough to be pinged."""

PING_TIMEOUT_S = 0.45
MAX_MISSES = 2
"""Half a second without an answer in all: a worker on a busy machine may be late by a few hundred milliseconds."""


@dataclass(slots=True)
class _Watched:
    """sign_at: its last sign of life, Pongs apart. wait_s: from the last ping, or sign, to the next ping."""

    sign_at: float
    pinged_at: float
    wait_s: float = FIRST_PING_S
    misses: int = 0

    def ping_due(self, now: float) -> bool:
        """Whether to ping it now; counts as pinged then."""
        if now - max(self.sign_at, self.pinged_at) < self.wait_s:
            return False
        self.pinged_at = now
        self.wait_s = min(LAST_PING_S, 2 * self.wait_s)
        return True

    def gave_sign(self, at: float) -> None:
        if at > self.sign_at:
            self.sign_at, self.wait_s = at, FIRST_PING_S


class WorkerWatch:
    """workers: who holds requests now, and its last sign of life. lost: called once for each loss noticed."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        workers: Callable[[], dict[str, float]],
        lost: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._workers = workers
        self._lost = lost
        self._watched: dict[str, _Watched] = {}

    async def run(self, tasks: Tasks) -> None:
        """Ping until cancelled. Slow pings do not slow the loop: each look starts its own."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            now, workers = self._clock(), self._workers()
            # Who holds nothing of ours is forgotten, with its misses.
            self._watched = {
                worker: self._watched.get(worker) or _Watched(heard_at, heard_at)
                for worker, heard_at in workers.items()
            }
            for worker, heard_at in workers.items():
                watched = self._watched[worker]
                watched.gave_sign(heard_at)
                if watched.ping_due(now):
                    tasks.start(self._ping(worker, watched), name="ping")

    async def _ping(self, worker: str, watched: _Watched) -> None:
        try:
            await self._bus.request(self._subjects.worker(worker), Ping(), Pong, PING_TIMEOUT_S)
        except NoResponders:
            self._lost(worker)
        except BusTimeout:
            watched.misses += 1
            if watched.misses >= MAX_MISSES:
                self._lost(worker)
        except BusError:
            # We are not connected, or it is busy: neither says that it is gone.
            pass
        else:
            watched.misses = 0
