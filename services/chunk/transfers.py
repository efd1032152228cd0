"""The transfers that this instance works on: taken at once, pinged by their callers, cancelled, ended.

A transfer that is taken waits its turn: so many puts, and so many fetches, are worked on at a time. Puts and fetches
have turns of their own, because a fetch may wait long for a peer.

A transfer whose caller has been silent for ABANDONED_AFTER_S is given up: a caller pings four times a second,
so it is gone, or it has long been asking another instance. What is stored stays; the next fetch goes on there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.chunk.progress import Progress
from shared.bus.chunk_api import CancelCall, ChunkCommand
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import Done, Ping, Pong, Taken, TransferUpdate
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock, monotonic
from shared.errors import Cause, SwarmbridgeError
from shared.tasks.owned import Tasks

MAX_TAKEN = 512
"""Transfers at a time, an instance, those that wait included; one more is BUSY: its caller tries another instance."""
MAX_AT_WORK = {"put": 8, "get": 32}
"""Transfers of a kind that are worked on at a time: a put holds about 4 MiB and a core, a fetch up to 32 MiB."""
MAX_ENDED = 256
"""Ended transfers whose final update is kept, for callers that missed it."""
ABANDONED_AFTER_S = 15.0
SWEEP_INTERVAL_S = 1.0
SUSPENDED_AFTER_S = 5 * SWEEP_INTERVAL_S
CLEAN_UP_S = 3.0
"""What cancelled transfers have for removing what they stored, out of the 10 s that a process has on SIGTERM."""

log = logging.getLogger(__name__)

Work = Callable[[Progress], Awaitable[str]]
"""Does a transfer and returns its link ("" for a fetch). A raised SwarmbridgeError is how it failed."""


@dataclass
class _Running:
    progress: Progress
    task: asyncio.Task[None]
    seen_s: float
    cancelled: bool = False


class Transfers:
    """Driven by: `take` from the put and fetch subjects, `command` from this instance's own subject.

    Cancellation: `close` stops all work without telling callers that it failed: their pings find us gone,
    and another instance takes the same ids.
    """

    def __init__(self, bus: Bus, subjects: Subjects, clock: Clock = monotonic) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._running: dict[bytes, _Running] = {}
        self._ended: OrderedDict[bytes, tuple[Progress, TransferUpdate]] = OrderedDict()
        self._tasks = Tasks()
        self._turns = {kind: asyncio.Semaphore(count) for kind, count in MAX_AT_WORK.items()}
        self._swept_s: float | None = None
        self._closing = False

    def __len__(self) -> int:
        return len(self._running)

    def start(self) -> None:
        self._tasks.start(self._sweep_forever(), name="abandoned transfers")

    async def close(self) -> None:
        self._closing = True
        # First gently: `Tasks.close` cancels again every 50 ms, which would cut short what a put does to leave nothing.
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLEAN_UP_S)
        await self._tasks.close()

    def take(self, kind: str, call_id: bytes, reply_to: str, work: Work) -> Taken:
        """Work on a call, or go on with it where it is already known.

        Raises: SwarmbridgeError: BUSY over MAX_TAKEN, DRAINING once closing.
        """
        if self._closing:
            raise SwarmbridgeError(Cause.DRAINING)
        # Asked again by a caller that has missed the end: the work is not done twice.
        if call_id in self._ended:
            self._repeat(call_id)
        elif call_id in self._running:
            self._running[call_id].seen_s = self._clock()
        else:
            if len(self._running) >= MAX_TAKEN:
                raise SwarmbridgeError(Cause.BUSY, "too many transfers at a time")
            progress = Progress(self._bus, self._subjects, call_id=call_id, kind=kind, reply_to=reply_to)
            task = self._tasks.start(self._run(call_id, kind, progress, work), name=kind)
            # Behind the start and without an await: the task's first step finds its entry.
            self._running[call_id] = _Running(progress, task, self._clock())
            # Not in `_run`: a task that is cancelled before its first step never gets there.
            task.add_done_callback(lambda _: self._running.pop(call_id, None))
        return Taken(self._bus.instance)

    async def command(self, command: ChunkCommand, incoming: Incoming) -> Pong | Done:
        """Answer a ping, or cancel a call; an unknown call cannot be cancelled, which is no error."""
        if isinstance(command, CancelCall):
            self._cancel(command.call_id)
            return Done()
        return self._ping(command)

    def sweep(self) -> None:
        """Give up transfers that nobody asks after."""
        now_s = self._clock()
        silent_s = now_s - self._swept_s if self._swept_s is not None else 0.0
        self._swept_s = now_s
        if not self._bus.connected:
            # Nobody can be heard: only what is said, or not said, over a live bus counts.
            for running in self._running.values():
                running.seen_s = now_s
        elif silent_s > SUSPENDED_AFTER_S:
            # This process was stopped, or its loop held: its callers were not silent for that long.
            for running in self._running.values():
                running.seen_s += silent_s
        oldest_s = now_s - ABANDONED_AFTER_S
        for call_id in [call_id for call_id, running in self._running.items() if running.seen_s < oldest_s]:
            log.info("a transfer was abandoned by its caller")
            self._cancel(call_id)

    def _ping(self, ping: Ping) -> Pong:
        unknown: list[bytes] = []
        for call_id in ping.calls:
            if call_id in self._running:
                self._running[call_id].seen_s = self._clock()
            elif call_id in self._ended:
                self._repeat(call_id)  # still pinged: the final update did not arrive
            else:
                unknown.append(call_id)
        return Pong(unknown)

    def _cancel(self, call_id: bytes) -> None:
        running = self._running.get(call_id)
        if running is not None and not running.cancelled:
            # Tells `_run` whose cancellation it is: the caller hears of its own, and not of the process's.
            running.cancelled = True
            running.task.cancel()

    def _repeat(self, call_id: bytes) -> None:
        progress, update = self._ended[call_id]
        self._tasks.start(progress.repeat_final(update), name="final update")

    async def _run(self, call_id: bytes, kind: str, progress: Progress, work: Work) -> None:
        telling = asyncio.create_task(progress.run(), name="progress")
        link, cause = "", None
        try:
            turns = self._turns[kind]
            # Said before the turn is waited for: the caller sees why nothing moves.
            progress.counts.waits(Cause.BUSY if turns.locked() else None)
            async with turns:
                progress.counts.waits(None)
                link = await work(progress)
        except SwarmbridgeError as error:
            cause = error.cause
        except asyncio.CancelledError:
            if not self._running[call_id].cancelled:
                raise  # the process ends, not the transfer
            cause = Cause.CLOSED
        except Exception as error:
            log.error("a transfer ended with %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
            cause = Cause.OTHER
        finally:
            # Before the final update: a progress report behind it would look like a transfer that runs again.
            telling.cancel()
            await asyncio.wait([telling])
        await self._end(call_id, progress, cause, link)

    async def _end(self, call_id: bytes, progress: Progress, cause: Cause | None, link: str) -> None:
        update = await progress.finish(cause, link)
        self._ended[call_id] = (progress, update)
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.sweep()
