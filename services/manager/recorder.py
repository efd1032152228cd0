"""Writes each hop down, once, in all three places: its span, its record (`HopRecord`), and a fallback's diagnostic.

They are made here from one Hop, so that the numbers agree wherever they are counted. A *hop* is one transport's
turn in a delivery; its *record* is what is written of it once it has ended.

Back-pressure: records wait in a bounded queue while the stream is away; beyond it they are dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from opentelemetry.trace import Span, Status, StatusCode

from services.manager.delivery.hop import Hop
from shared.backoff import delays_s
from shared.bus.contract import Bus
from shared.bus.messages.records import Diagnostic, HopRecord
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock, unix_ms
from shared.errors import BusError
from shared.hops.fold import OUTCOME_FAILED
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from shared.telemetry import names, tracer
from shared.telemetry.propagation import context_of
from shared.transports import TransportName

MAX_QUEUED_RECORDS = 16_384
WRITERS = 8
"""Appends in flight: each waits for the stream's acknowledgement, about a millisecond."""

APPEND_TIMEOUT_S = 1.0
"""One try; a lost acknowledgement is asked for again, which stores nothing twice."""

RETRY_FIRST_S = 0.1
RETRY_CAP_S = 2.0
RECORD_KEPT_S = 100.0
"""While the stream is away. Less than its window for duplicates (2 min): a retry must not be stored twice."""

LOG_EACH = 1_000
"""Of so many lost records one is logged."""

LEVEL_WARN = "warn"
SOURCE = "manager"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryLabel:
    """What every record of one delivery carries. peer: its name, never its token."""

    delivery: str
    peer: str
    transfer: str
    traceparent: str


class Recorder:
    """Spans at once; records and diagnostics through a queue, retried with the same message id."""

    def __init__(self, bus: Bus, subjects: Subjects, flags: Flags, clock: Clock, tasks: Tasks) -> None:
        self._bus = bus
        self._subjects = subjects
        self._flags = flags
        self._clock = clock
        self._queue: asyncio.Queue[tuple[HopRecord, Diagnostic | None, float]] = asyncio.Queue(MAX_QUEUED_RECORDS)
        self.dropped_count = 0
        for _ in range(WRITERS):
            tasks.start(self._write_forever(), name="recorder")

    def hop_started(self, label: DeliveryLabel, transport: TransportName, started_at: float) -> Span:
        """The hop's span, a child of the caller's context; not made current."""
        return tracer().start_span(
            f"{names.SPAN_TRANSPORT_HOP} {transport.value}",
            context=context_of(label.traceparent),
            start_time=self.wall_ms(started_at) * 1_000_000,
            attributes={names.TRANSPORT: transport.value, names.PEER_NAME: label.peer},
        )

    def hop_ended(self, label: DeliveryLabel, hop: Hop, span: Span | None) -> None:
        """Write the hop down. span: as `hop_started` made it, None for a hop that never came to send."""
        if span is None:
            span = self.hop_started(label, hop.transport, hop.started_at)
        _describe(span, hop)
        span.end()
        record = self._record(label, hop, span)
        diagnostic = _diagnostic(record) if record.fallback_from and self._flags.fallback_telemetry else None
        try:
            self._queue.put_nowait((record, diagnostic, self._clock() + RECORD_KEPT_S))
        except asyncio.QueueFull:
            if not self.dropped_count % LOG_EACH:
                log.error("too many hops wait to be recorded, %d dropped before this one", self.dropped_count)
            self.dropped_count += 1

    def __len__(self) -> int:
        """Records that wait."""
        return self._queue.qsize()

    async def flushed(self) -> None:
        """Wait until everything has been written, or given up."""
        await self._queue.join()

    def wall_ms(self, at: float) -> int:
        """A time of the monotonic clock as wall-clock milliseconds."""
        return unix_ms() - round((self._clock() - at) * 1000)

    def _record(self, label: DeliveryLabel, hop: Hop, span: Span) -> HopRecord:
        context = span.get_span_context()
        return HopRecord(
            delivery=label.delivery,
            number=hop.number,
            transport=hop.transport.value,
            peer=label.peer,
            outcome=hop.outcome,
            cause=hop.cause,
            fallback_from=hop.fallback_from.value if hop.fallback_from is not None else "",
            fallback_cause=hop.fallback_cause,
            hedged=hop.hedged,
            started_ms=self.wall_ms(hop.started_at),
            elapsed_ms=round((hop.ended_at - hop.started_at) * 1000, 3),
            bytes=hop.bytes,
            trace_id=f"{context.trace_id:032x}" if context.is_valid else "",
            transfer=label.transfer,
            manager=self._bus.instance,
        )

    async def _write_forever(self) -> None:
        while True:
            record, diagnostic, expires_at = await self._queue.get()
            try:
                # Only of a hop that is in the stream, so that both can be counted against each other.
                if await self._append(record, expires_at) and diagnostic is not None:
                    await self._bus.publish(self._subjects.event("diagnostic"), diagnostic)
            except BusError as error:
                log.debug("diagnostic not published: %s", error.cause.value)
            finally:
                self._queue.task_done()

    async def _append(self, record: HopRecord, expires_at: float) -> bool:
        # The manager's name is part of the id: one that takes a delivery over counts its hops from 1 again,
        # and both managers' hops really happened.
        message_id = f"{record.delivery}.{record.number}.{record.manager}"
        for delay_s in delays_s(RETRY_FIRST_S, RETRY_CAP_S):
            try:
                async with asyncio.timeout(APPEND_TIMEOUT_S):
                    await self._bus.append(self._subjects.hop(record.transport), record, message_id)
            except (BusError, TimeoutError):
                if self._clock() + delay_s >= expires_at:
                    break
                await asyncio.sleep(delay_s)
            else:
                return True
        if not self.dropped_count % LOG_EACH:
            log.error("hops are not recorded, %d before this one", self.dropped_count)
        self.dropped_count += 1
        return False


def _describe(span: Span, hop: Hop) -> None:
    span.set_attribute(names.HOP_NUMBER, hop.number)
    span.set_attribute(names.HOP_OUTCOME, hop.outcome)
    span.set_attribute(names.HOP_HEDGED, hop.hedged)
    span.set_attribute(names.BODY_BYTES, hop.bytes)
    if hop.fallback_from is not None and hop.fallback_cause is not None:
        span.set_attribute(names.FALLBACK_FROM, hop.fallback_from.value)
        span.set_attribute(names.FALLBACK_REASON, hop.fallback_cause.value)
    if hop.cause is not None:
        span.set_attribute(names.ERROR_TYPE, hop.cause.value)
    if hop.outcome == OUTCOME_FAILED:
        # A cancelled or skipped hop stays UNSET: nothing went wrong that was not handled.
        span.set_status(Status(StatusCode.ERROR))


def _diagnostic(record: HopRecord) -> Diagnostic:
    cause = record.fallback_cause.value if record.fallback_cause is not None else ""
    return Diagnostic(
        id=f"{record.delivery}.{record.number}",
        level=LEVEL_WARN,
        source=SOURCE,
        code=names.DIAGNOSTIC_FALLBACK,
        message=f"{record.fallback_from} left for {record.transport} ({cause}): {record.outcome}",
        timestamp_ms=record.started_ms,
        context={
            "from": record.fallback_from,
            "to": record.transport,
            "cause": cause,
            "outcome": record.outcome,
            "elapsedMs": str(record.elapsed_ms),
            "transfer": record.transfer,
        },
    )
