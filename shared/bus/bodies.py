"""Bodies too large to travel inline: whoever holds the bytes serves ranges, whoever needs them pulls.

The puller asks for 256 KiB ranges, four at a time, when it has room for them: the pull is the flow control
(published answers to a slow consumer were lost in more than half of the cases, docs/nats.md). One subscription a
process, not one a body. A holder that died is noticed by its range's timeout, or at once by NATS's 503.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.envelopes import BodyCall, BodyRef, Done, PullRange, Range, ReleaseBody
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock, monotonic
from shared.errors import BusError, BusTimeout, Cause, RemoteFailure, SwarmbridgeError
from shared.tasks.ending import end_tasks

RANGE_BYTES = 256 * 1024
"""One range: the size at which pulling came closest to sending inline (docs/nats.md: 293 against 351 MB/s)."""

RANGE_SLACK_BYTES = 4096
"""What a body's last range may have beyond RANGE_BYTES: a chunk is 1 MiB and a tag of 16 bytes, which are not worth a
request of their own."""

WINDOW_RANGES = 4
"""Ranges asked for and not yet consumed, a pull: bounds its memory to 1 MiB."""

RANGE_TIMEOUT_S = 2.0
"""Silence of a holder after which it counts as lost; a live one answers a range in milliseconds."""

MAX_BODIES = 4096
"""Bodies one process holds at a time, whatever their size."""

SWEEP_INTERVAL_S = 5.0
"""How often forgotten bodies are dropped."""

TOKEN_BYTES = 16

ReadRange = Callable[[int, int], Awaitable[bytes]]
"""read(offset, length): exactly `length` bytes from `offset`."""

log = logging.getLogger(__name__)


@dataclass
class _Held:
    length: int
    data: memoryview | None
    read: ReadRange | None
    used_s: float


class BodyHolder:
    """The bodies of one process, served on `sb.N.body.<instance>`.

    A body is forgotten when it is released, or `ttl_s` after it was last asked for. Bytes in memory are
    bounded by `max_total_bytes`; a body behind a reader costs none.
    """

    def __init__(
        self, bus: Bus, subjects: Subjects, *, max_total_bytes: int, ttl_s: float = 60.0, clock: Clock = monotonic
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._max_total_bytes = max_total_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._held: dict[bytes, _Held] = {}
        self._total_bytes = 0
        self._subscription: Subscription | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes held in memory now."""
        return self._total_bytes

    @property
    def count(self) -> int:
        return len(self._held)

    async def start(self) -> None:
        self._subscription = await self._bus.serve(self._subjects.body(self._bus.instance), BodyCall, self._serve)
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="bodies")

    async def close(self) -> None:
        """Forget every body; pulls under way get SOURCE_LOST."""
        await end_tasks([self._sweeper])
        if self._subscription is not None:
            await self._subscription.close()
        self._held.clear()
        self._total_bytes = 0

    def hold(self, data: bytes | memoryview) -> BodyRef:
        """Keep bytes for pullers. `data` must not change while held.

        Raises: SwarmbridgeError(BUSY) over budget: try again when pullers have released theirs.
        """
        view = memoryview(data).cast("B")
        self.sweep()
        if self._total_bytes + len(view) > self._max_total_bytes:
            raise SwarmbridgeError(Cause.BUSY, "no room for another body")
        return self._keep(_Held(len(view), view, None, self._clock()))

    def hold_reader(self, length: int, read: ReadRange) -> BodyRef:
        """Serve a body of `length` bytes that `read` gets when asked (a file, a store).

        A SwarmbridgeError that `read` raises reaches the puller as SOURCE_LOST.
        Raises: SwarmbridgeError(BUSY) when too many bodies are held.
        """
        self.sweep()
        return self._keep(_Held(length, None, read, self._clock()))

    def release(self, token: bytes) -> None:
        """Forget a body; an unknown token is ignored."""
        held = self._held.pop(token, None)
        if held is not None and held.data is not None:
            self._total_bytes -= held.length

    def sweep(self) -> None:
        """Forget what nobody has asked for within `ttl_s`."""
        oldest_s = self._clock() - self._ttl_s
        for token in [token for token, held in self._held.items() if held.used_s < oldest_s]:
            self.release(token)

    def _keep(self, held: _Held) -> BodyRef:
        if len(self._held) >= MAX_BODIES:
            raise SwarmbridgeError(Cause.BUSY, "too many bodies held")
        token = os.urandom(TOKEN_BYTES)
        self._held[token] = held
        if held.data is not None:
            self._total_bytes += held.length
        return BodyRef(self._bus.instance, token, held.length)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.sweep()

    async def _serve(self, call: BodyCall, incoming: Incoming) -> Range | Done:
        if isinstance(call, ReleaseBody):
            self.release(call.token)
            return Done()
        held = self._held.get(call.token)
        if held is None:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "no such body, or no longer")
        if not (0 < call.length <= RANGE_BYTES + RANGE_SLACK_BYTES and 0 <= call.offset <= held.length - call.length):
            raise SwarmbridgeError(Cause.INVALID, "a range outside the body")
        held.used_s = self._clock()
        if held.data is not None:
            return Range(held.data[call.offset : call.offset + call.length])
        assert held.read is not None
        return Range(memoryview(await held.read(call.offset, call.length)))


async def pull(bus: Bus, subjects: Subjects, ref: BodyRef, *, timeout_s: float) -> bytes:
    """The whole body.

    Raises: SwarmbridgeError(SOURCE_LOST) where its holder is gone or has forgotten it; BusTimeout after timeout_s.
    """
    body = bytearray(ref.length)
    offset = 0
    async with aclosing(pull_ranges(bus, subjects, ref, timeout_s=timeout_s)) as ranges:
        async for part in ranges:
            body[offset : offset + len(part)] = part
            offset += len(part)
    return bytes(body)


async def pull_ranges(
    bus: Bus, subjects: Subjects, ref: BodyRef, *, start: int = 0, timeout_s: float
) -> AsyncGenerator[memoryview, None]:
    """The body from `start` on, in order, in parts of at most 256 KiB; each part is the caller's to keep.

    Back-pressure: at most WINDOW_RANGES ranges are asked for ahead of the consumer.
    Cancellation: wrap in `contextlib.aclosing` where the loop may be left early.
    Raises: as `pull`; timeout_s is for the whole body.
    """
    deadline_s = monotonic() + timeout_s
    window: deque[asyncio.Task[memoryview]] = deque()
    next_offset = start
    try:
        while next_offset < ref.length or window:
            while next_offset < ref.length and len(window) < WINDOW_RANGES:
                left = ref.length - next_offset
                length = left if left <= RANGE_BYTES + RANGE_SLACK_BYTES else RANGE_BYTES
                call = PullRange(ref.token, next_offset, length)
                window.append(asyncio.create_task(_pull_range(bus, subjects.body(ref.instance), call, deadline_s)))
                next_offset += length
            part = await window[0]
            window.popleft()
            yield part
    finally:
        await end_tasks(window)


async def release(bus: Bus, subjects: Subjects, ref: BodyRef) -> None:
    """Tell the holder that the body is no longer needed. Best effort: its time to live does the rest."""
    try:
        await bus.publish(subjects.body(ref.instance), ReleaseBody(ref.token))
    except BusError as error:
        log.debug("release not sent: %s", error.cause)


async def _pull_range(bus: Bus, subject: str, call: PullRange, deadline_s: float) -> memoryview:
    while True:
        remaining_s = deadline_s - monotonic()
        if remaining_s <= 0:
            raise BusTimeout("the body was not pulled in time")
        try:
            data = (await bus.request(subject, call, Range, min(RANGE_TIMEOUT_S, remaining_s))).data
        except RemoteFailure as error:
            if error.cause is Cause.BUSY:
                await asyncio.sleep(min(max(error.retry_after_s, 0.01), remaining_s))
                continue
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder has no such range") from error
        except BusTimeout as error:
            if monotonic() >= deadline_s:
                raise
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder is silent") from error
        except BusError as error:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder is gone") from error
        if len(data) != call.length:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder answered another range")
        return data
