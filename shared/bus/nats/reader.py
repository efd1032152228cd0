"""Reads a bucket or stream in order, and goes on with what comes: batched gets, and a hint at each write.

The server publishes the headers of every write on `stored.<name>` (the stream's `republish`); whoever hears that
reads what is new. The hint is no more than that: it may be lost, forged or doubled, and is looked for every POLL_S
anyway. So a reader needs no consumer, no acknowledgement and no flow control: it asks for the next batch when it has
taken the one before.

A stream that was lost and made again has a new *generation* in the bucket `layout`. Its reader starts again from the
beginning, passes over what it has handed on already, and calls `on_recreated`.

*Back-pressure*: one batch at a time. *Cancellation*: none of the caller's; `close` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from shared.bus.nats.connection import Interest, NatsConnection
from shared.bus.nats.jetstream import Record, get_at, read_after
from shared.bus.nats.layout import Place, generation, wait_for_stream
from shared.clock import monotonic
from shared.errors import BusError, BusTimeout
from shared.tasks.owned import Tasks

POLL_S = 2.0
"""How often is looked without a hint: a hint that was lost, or a stream that was made again, costs this long."""

READ_EVERY_S = 0.02
"""Reads of one reader are at least so far apart, so that a burst of writes is a few batches, not a read each."""

CATCH_UP_TIMEOUT_S = 30.0
"""How long reading what is stored may take: 100,000 records are a few seconds."""

log = logging.getLogger(__name__)


class OrderedReader:
    """One stream, from its first record on. `on_record` is synchronous; what it raises is logged."""

    def __init__(
        self,
        connection: NatsConnection,
        place: Place,
        on_record: Callable[[Record], None],
        *,
        on_recreated: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._place = place
        self._on_record = on_record
        self._on_recreated = on_recreated
        self._last_sequence = 0
        self._last_ns = 0
        self._known_until_ns = 0
        self._generation = b""
        self._check_due_s = 0.0
        self._interest: Interest | None = None
        self._news = asyncio.Event()
        self._forget_renewed: Callable[[], None] = lambda: None
        self._tasks = Tasks(lambda task: connection.on_crash(task))

    async def start(self) -> None:
        """Return when everything stored has been handed to `on_record`.

        Raises: BusError where the stream cannot be read; BusTimeout where that takes over CATCH_UP_TIMEOUT_S.
        """
        await wait_for_stream(self._connection, self._place)
        # Interest first: a write that falls between reading and listening is hinted at.
        self._interest = await self._connection.subscribe(self._place.hints, self._hinted)
        self._connection.own(self)
        self._forget_renewed = self._connection.on_renewed(self._renewed)
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_S):
                self._generation = await generation(self._connection, self._place)
                await self._read()
        except TimeoutError:
            await self.close()
            raise BusTimeout("reading what is stored takes too long") from None
        except BaseException:
            await self.close()
            raise
        self._check_due_s = monotonic() + POLL_S
        self._tasks.start(self._follow(), name="stream reader")

    async def close(self) -> None:
        self._connection.disown(self)
        self._forget_renewed()
        await self._tasks.close()
        if self._interest is not None:
            await self._interest.close()

    def _hinted(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        self._news.set()

    def _renewed(self) -> None:
        self._check_due_s = 0.0
        self._news.set()

    async def _follow(self) -> None:
        """Read when hinted, and every POLL_S. A bus that is away is waited for: the next round tries again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._news.wait()
            self._news.clear()
            try:
                if monotonic() >= self._check_due_s:
                    await self._check()
                await self._read()
            except BusError as error:
                log.debug("reading %s: %s", self._place.stream, error.cause)
            await asyncio.sleep(READ_EVERY_S)

    async def _check(self) -> None:
        """See whether what was read is still what is stored: a stream that was made again counts from 1, and a server
        that was killed may have lost its last records, whose numbers then come again."""
        now = await generation(self._connection, self._place)
        recreated = bool(now) and now != self._generation
        if recreated or not await self._is_where_it_was():
            self._last_sequence = 0
            # By the server's clock: numbers begin again, times go on.
            self._known_until_ns = self._last_ns
        if recreated:
            log.warning("%s was lost and made again: reading it from its start", self._place.stream)
            self._generation = now
            self._on_recreated()
            self._connection.on_lost(self._place.name)
        self._check_due_s = monotonic() + POLL_S

    async def _is_where_it_was(self) -> bool:
        if self._last_sequence == 0:
            return True
        last = await get_at(self._connection, self._place.stream, self._last_sequence)
        # A value that was overwritten or expired since is not there either: then all is read again, for nothing.
        return last is not None and last.stored_ns == self._last_ns

    async def _read(self) -> None:
        more = True
        while more:
            records, more = await read_after(self._connection, self._place.stream, self._last_sequence)
            for record in records:
                self._take(record)

    def _take(self, record: Record) -> None:
        # Also of one that is passed over, or the next batch would begin before it.
        self._last_sequence = record.sequence
        if record.stored_ns <= self._known_until_ns:
            return  # handed on before the stream had to be read again
        self._last_ns = record.stored_ns
        try:
            self._on_record(record)
        except Exception as error:
            log.error("a reader of %s raised %s", self._place.stream, type(error).__name__)
