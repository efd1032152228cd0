"""The last traces, in bounded memory, and what a waterfall of one needs. Pure.

A trace with a fallback is what people look for: it is kept while plain successes go first, oldest first
(limits.MAX_TRACES, MAX_SPANS). A long transfer is one trace of thousands of spans; over MAX_SPANS_A_TRACE only
spans of hops and failures are taken, the rest is counted as dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from services.gateway.model import limits
from shared.bus.messages.records import SpanRecord
from shared.gateway_api.traces import FAILED, NS_PER_MS, SKIPPED, SpanView, TraceSummary, is_hop
from shared.telemetry import names


@dataclass(slots=True)
class Trace:
    """The spans of one trace as they arrived. groups: hop numbers that were started, by parent span."""

    trace_id: str
    spans: list[SpanRecord] = field(default_factory=list)
    dropped: int = 0
    fallback: bool = False
    groups: dict[str, set[int]] = field(default_factory=dict)

    def add(self, span: SpanRecord) -> bool:
        """Returns: whether it was kept."""
        hop = is_hop(span)
        if len(self.spans) >= limits.MAX_SPANS_A_TRACE and not hop and span.status != "error":
            self.dropped += 1
            return False
        if len(self.spans) >= 2 * limits.MAX_SPANS_A_TRACE:
            self.dropped += 1
            return False
        self.spans.append(span)
        if hop:
            self.fallback = self.fallback or self._shows_fallback(span)
        return True

    def _shows_fallback(self, span: SpanRecord) -> bool:
        """A failed hop, one that says what it replaces, or a second one that was started under one parent."""
        attributes = span.attributes
        outcome = attributes.get(names.HOP_OUTCOME)
        if outcome == SKIPPED:
            return False
        started = self.groups.setdefault(span.parent_id, set())
        started.add(int(attributes.get(names.HOP_NUMBER, 0)))
        return (
            outcome == FAILED
            or bool(attributes.get(names.FALLBACK_REASON) or attributes.get(names.FALLBACK_FROM))
            or len(started) > 1
        )

    def summary(self) -> TraceSummary:
        start_ns = min(span.start_ns for span in self.spans)
        root = min(self.spans, key=lambda span: (bool(span.parent_id), span.start_ns))
        return TraceSummary(
            trace_id=self.trace_id,
            name=root.name,
            fallback=self.fallback,
            failed=root.status == "error",
            started_at=start_ns // NS_PER_MS,
            duration_ms=(max(span.end_ns for span in self.spans) - start_ns) / NS_PER_MS,
            spans=len(self.spans),
            dropped=self.dropped,
            hops=sum(is_hop(span) for span in self.spans),
            services=sorted({span.service for span in self.spans}),
            nodes=sorted({span.node for span in self.spans}),
        )


class TraceStore:
    """The traces of this node (and of members', where propagation is `join`)."""

    def __init__(self, max_traces: int = limits.MAX_TRACES, max_spans: int = limits.MAX_SPANS) -> None:
        self._max_traces = max_traces
        self._max_spans = max_spans
        # Two queues, oldest first: dropping the oldest plain trace must not mean searching for it.
        self._plain: OrderedDict[str, Trace] = OrderedDict()
        self._fallback: OrderedDict[str, Trace] = OrderedDict()
        self._span_count = 0

    def add(self, spans: Iterable[SpanRecord]) -> set[str]:
        """Returns: ids of the traces in which these spans showed the first fallback."""
        turned: set[str] = set()
        for span in spans:
            trace = self._fallback.get(span.trace_id) or self._plain.get(span.trace_id)
            if trace is None:
                trace = self._plain[span.trace_id] = Trace(span.trace_id)
            was_fallback = trace.fallback
            self._span_count += trace.add(span)
            if trace.fallback and not was_fallback:
                self._fallback[trace.trace_id] = self._plain.pop(trace.trace_id)
                turned.add(trace.trace_id)
            self._drop_oldest()
        return turned

    def get(self, trace_id: str) -> Trace | None:
        return self._fallback.get(trace_id) or self._plain.get(trace_id)

    def newest_first(self, *, fallback_only: bool = False, limit: int = 100) -> list[TraceSummary]:
        kept = list(self._fallback.values()) if fallback_only else [*self._fallback.values(), *self._plain.values()]
        return sorted((trace.summary() for trace in kept), key=lambda trace: trace.started_at, reverse=True)[:limit]

    def _drop_oldest(self) -> None:
        while len(self._plain) + len(self._fallback) > self._max_traces or self._span_count > self._max_spans:
            queue = self._plain if self._plain else self._fallback
            _, dropped = queue.popitem(last=False)
            self._span_count -= len(dropped.spans)


def span_view(span: SpanRecord) -> SpanView:
    """A span as the API shows it: with names, where the bus has positions."""
    return SpanView(**msgspec.structs.asdict(span))
