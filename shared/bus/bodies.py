"""Bodies too large to travel inline: whoever holds the bytes serves ranges, whoever needs them pulls.

The puller asks for 256 KiB ranges, four at a time, when it has room for them: the pull is the flow control
(published answers to a slow consumer were lost in more than half of the cases, docs/nats.md). One subscription a
process, not one a body.

*Who may pull*: a body is held for one service, whose name is the last token of the subject on which it is pulled. The
server lets nobody else publish there, the holder gives the bytes to nobody else, and only the holder's own service
hears the subject: a token is worth something to that service alone.

*A stall is not a loss.* A range that is not answered is asked for again, until nothing has come for `stall_s`: the bus
may be slow, away, or coming back with the holder not there yet. What ended the wait says the cause: BUS_UNAVAILABLE
where the bus was away, SOURCE_LOST where the holder was. A holder that says it has no such body, or that stays away
while the bus is well, is lost at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from shared.backoff import delays_s
from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.envelopes import BodyCall, BodyRef, Done, PullRange, Range, ReleaseBody
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock, monotonic
from shared.errors import BusError, BusTimeout, BusUnavailable, Cause, NoResponders, RemoteFailure, SwarmbridgeError
from shared.ids import service_of
from shared.tasks.ending import end_tasks
from shared.tasks.owned import Tasks

RANGE_BYTES = 256 * 1024
"""One range: the size at which pulling came closest to sending inline (docs/nats.md: 293 against 351 MB/s)."""

RANGE_SLACK_BYTES = 4096
"""What a body's last range may have beyond RANGE_BYTES: a chunk is 1 MiB and a tag of 16 bytes, which are not worth a
request of their own."""

WINDOW_RANGES = 4
"""Ranges asked for and not yet consumed, a pull: bounds its memory to 1 MiB."""

RANGE_TIMEOUT_S = 2.0
"""A range without an answer is asked for again after this long; a live holder answers in milliseconds."""

STALL_S = 15.0
"""Without one byte for this long a pull ends. A frozen server is noticed within 3 s and reached again within 2 s of its
return, and a loaded machine holds up a process for seconds."""

HOLDER_RETURNS_S = 1.0
"""How long nobody may serve a body on a bus that is well: its holder's connection may have dropped alone."""

HOLDER_RETURNS_WITH_BUS_S = 5.0
"""The same after the bus itself was away: everybody connects again, up to 2 s apart."""

RETRY_FIRST_S = 0.05
RETRY_CAP_S = 0.5

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
    puller: str
    length: int
    data: memoryview | None
    read: ReadRange | None
    used_s: float


class BodyHolder:
    """The bodies of one process, served on `sb.N.body.<service>.<instance>.<puller>`.

    refused: pulls by a service that the body is not for.

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
        self._tasks = Tasks()
        self.refused = 0

    @property
    def count(self) -> int:
        return len(self._held)

    async def start(self) -> None:
        subject = self._subjects.body(self._bus.instance, "*")
        self._subscription = await self._bus.serve(subject, BodyCall, self._serve)
        self._tasks.start(self._sweep_forever(), name="bodies")

    async def close(self) -> None:
        """Forget every body; pulls in flight get SOURCE_LOST."""
        await self._tasks.close()
        if self._subscription is not None:
            await self._subscription.close()
        self._held.clear()
        self._total_bytes = 0

    def hold(self, data: bytes | memoryview, puller: str) -> BodyRef:
        """Keep bytes for a service to pull. `data` must not change while held.

        Raises: SwarmbridgeError(BUSY) over budget: try again when pullers have released theirs.
        """
        view = memoryview(data).cast("B")
        self.sweep()
        if self._total_bytes + len(view) > self._max_total_bytes:
            raise SwarmbridgeError(Cause.BUSY, "no room for another body")
        return self._keep(_Held(puller, len(view), view, None, self._clock()))

    def hold_reader(self, length: int, read: ReadRange, puller: str) -> BodyRef:
        """Serve a service a body of `length` bytes that `read` gets when asked (a file, a store).

        A SwarmbridgeError that `read` raises reaches the puller as SOURCE_LOST.
        Raises: SwarmbridgeError(BUSY) when too many bodies are held.
        """
        self.sweep()
        return self._keep(_Held(puller, length, None, read, self._clock()))

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
        held = self._held.get(call.token)
        if held is not None and held.puller != incoming.subject.rpartition(".")[2]:
            self.refused += 1
            log.error("a service pulls a body that is not for it, %d so far", self.refused)
            held = None  # and it learns no more than of a body that is not there
        if isinstance(call, ReleaseBody):
            if held is not None:
                self.release(call.token)
            return Done()
        if held is None:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "no such body, or no longer")
        if not (0 < call.length <= RANGE_BYTES + RANGE_SLACK_BYTES and 0 <= call.offset <= held.length - call.length):
            raise SwarmbridgeError(Cause.INVALID, "a range outside the body")
        # Each pull keeps it for another `ttl_s`: a slow link must not lose its body half way.
        held.used_s = self._clock()
        if held.data is not None:
            return Range(held.data[call.offset : call.offset + call.length])
        assert held.read is not None
        return Range(memoryview(await held.read(call.offset, call.length)))


async def pull(bus: Bus, subjects: Subjects, ref: BodyRef, *, timeout_s: float, stall_s: float = STALL_S) -> bytes:
    """The whole body.

    Raises: SwarmbridgeError: SOURCE_LOST where its holder is gone or has forgotten it, BUS_UNAVAILABLE where the bus
        was; BusTimeout after timeout_s.
    """
    body = bytearray(ref.length)
    offset = 0
    async with aclosing(pull_ranges(bus, subjects, ref, timeout_s=timeout_s, stall_s=stall_s)) as ranges:
        async for part in ranges:
            body[offset : offset + len(part)] = part
            offset += len(part)
    return bytes(body)


async def pull_ranges(
    bus: Bus,
    subjects: Subjects,
    ref: BodyRef,
    *,
    start: int = 0,
    timeout_s: float,
    stall_s: float = STALL_S,
    returns_s: float = HOLDER_RETURNS_S,
) -> AsyncGenerator[memoryview, None]:
    """The body from `start` on, in order, in parts of at most 256 KiB; each part is the caller's to keep.

    Back-pressure: at most WINDOW_RANGES ranges are asked for ahead of the consumer.
    Cancellation: wrap in `contextlib.aclosing` where the loop may be left early.
    Raises: as `pull`; timeout_s is for the whole body, stall_s for a time without a byte, returns_s for one without
        anybody who holds it.
    """
    subject = subjects.body(ref.instance, service_of(bus.instance))
    pulling = _Pull(bus, subject, monotonic() + timeout_s, stall_s, returns_s)
    window: deque[asyncio.Task[memoryview]] = deque()
    next_offset = start
    try:
        while next_offset < ref.length or window:
            while next_offset < ref.length and len(window) < WINDOW_RANGES:
                left = ref.length - next_offset
                length = left if left <= RANGE_BYTES + RANGE_SLACK_BYTES else RANGE_BYTES
                window.append(asyncio.create_task(pulling.range(PullRange(ref.token, next_offset, length))))
                next_offset += length
            # The oldest first, so that parts leave in order; it stays in the window for `finally` until it is here.
            part = await window[0]
            window.popleft()
            yield part
    finally:
        await end_tasks(window)


async def release(bus: Bus, subjects: Subjects, ref: BodyRef) -> None:
    """Tell the holder that the body is no longer needed. Best effort: its time to live does the rest."""
    try:
        await bus.publish(subjects.body(ref.instance, service_of(bus.instance)), ReleaseBody(ref.token))
    except BusError as error:
        log.debug("release not sent: %s", error.cause)


class _Pull:
    """One body's ranges, and what they know of the bus and of the holder together."""

    def __init__(self, bus: Bus, subject: str, deadline_s: float, stall_s: float, returns_s: float) -> None:
        self._bus = bus
        self._subject = subject
        self._deadline_s = deadline_s
        self._stall_s = stall_s
        self._returns_s = returns_s
        self._heard_s = monotonic()
        """When the holder last answered: a stall is of the whole pull, not of one range."""
        self._bus_was_away = False
        self._gone_since_s: float | None = None

    async def range(self, call: PullRange) -> memoryview:
        for delay_s in delays_s(RETRY_FIRST_S, RETRY_CAP_S):
            remaining_s = self._deadline_s - monotonic()
            if remaining_s <= 0:
                raise BusTimeout("the body was not pulled in time")
            try:
                data = (await self._bus.request(self._subject, call, Range, min(RANGE_TIMEOUT_S, remaining_s))).data
            except RemoteFailure as error:
                self._heard()
                if error.cause is not Cause.BUSY:
                    raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder has no such range") from error
                delay_s = max(error.retry_after_s, delay_s)
            except NoResponders as error:
                self._holder_is_gone(error)
            except (BusTimeout, BusUnavailable) as error:
                self._bus_was_away |= not self._bus.connected or isinstance(error, BusUnavailable)
                if monotonic() < self._deadline_s:
                    self._check_stall(error)
            except BusError as error:
                raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder's answer cannot be read") from error
            else:
                self._heard()
                if len(data) != call.length:
                    raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder answered another range")
                return data
            await asyncio.sleep(min(delay_s, max(0.0, self._deadline_s - monotonic())))
        raise AssertionError("delays never end")

    def _heard(self) -> None:
        self._heard_s = monotonic()
        self._gone_since_s = None

    def _holder_is_gone(self, error: BusError) -> None:
        """Nobody serves its subject. Raises: SOURCE_LOST when it has been so for longer than coming back takes."""
        now = monotonic()
        if self._gone_since_s is None:
            self._gone_since_s = now
        returns_s = max(self._returns_s, HOLDER_RETURNS_WITH_BUS_S) if self._bus_was_away else self._returns_s
        if now - self._gone_since_s >= returns_s:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder is gone") from error

    def _check_stall(self, error: BusError) -> None:
        if monotonic() - self._heard_s < self._stall_s:
            return
        # A silent holder on a bus that is connected is the holder's fault: a silent bus is disconnected by then.
        if self._bus.connected and isinstance(error, BusTimeout):
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the holder is silent") from error
        raise SwarmbridgeError(Cause.BUS_UNAVAILABLE, "the bus is away") from error
