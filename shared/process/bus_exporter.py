"""Finished spans onto the bus, for the gateway's own trace view: no backend needed on one machine.

Back-pressure: none towards the work. The queue to the bus is bounded; what does not fit is dropped and
counted, as OpenTelemetry's batch processor does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from shared.bus.contract import Bus
from shared.bus.messages.records import SpanRecord, Spans
from shared.bus.messages.subjects import Subjects
from shared.errors import BusError

MAX_QUEUED_SPANS = 8192
MAX_SPANS_A_MESSAGE = 200
FLUSH_INTERVAL_S = 0.25

LOG_EACH = 1_000
"""After the first, of so many spans that are dropped one is logged."""

log = logging.getLogger(__name__)


class BusSpanExporter(SpanExporter):
    """`export` runs in the SDK's thread and only queues; `run` publishes on the loop."""

    def __init__(self, service: str, node: str) -> None:
        self._service = service
        self._node = node
        self._queue: deque[SpanRecord] = deque(maxlen=MAX_QUEUED_SPANS)
        self._dropped_count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            if len(self._queue) == MAX_QUEUED_SPANS:
                self._dropped(1)
            self._queue.append(self._record(span))
        return SpanExportResult.SUCCESS

    async def run(self, bus: Bus, subjects: Subjects) -> None:
        """Publish what is queued until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush(bus, subjects)

    async def flush(self, bus: Bus, subjects: Subjects) -> None:
        while self._queue:
            count = min(MAX_SPANS_A_MESSAGE, len(self._queue))
            batch = [self._queue.popleft() for _ in range(count)]
            try:
                await bus.publish(subjects.event("spans"), Spans(batch))
            except BusError:
                self._dropped(count)
                return

    def _dropped(self, count: int) -> None:
        before, self._dropped_count = self._dropped_count, self._dropped_count + count
        if before // LOG_EACH != self._dropped_count // LOG_EACH or not before:
            log.warning("spans are not published: %d so far; traces have gaps", self._dropped_count)

    def _record(self, span: ReadableSpan) -> SpanRecord:
        context = span.get_span_context()
        assert context is not None
        return SpanRecord(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id=f"{span.parent.span_id:016x}" if span.parent else "",
            name=span.name,
            service=self._service,
            node=self._node,
            start_ns=span.start_time or 0,
            end_ns=span.end_time or 0,
            status=span.status.status_code.name.lower(),
            attributes={
                key: value for key, value in (span.attributes or {}).items() if isinstance(value, (str, int, float))
            },
            links=[f"{link.context.trace_id:032x}" for link in span.links],
        )
