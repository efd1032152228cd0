"""A trace as rows to draw: parents before children, siblings by start, times relative to the first row. Pure.

A transfer of a thousand chunks is one trace; what people want to see of it is the delivery that fell back. So
a trace over MAX_ROWS spans is shown from that delivery on (`focused`), and cut at MAX_ROWS.
"""

from __future__ import annotations

from services.gateway.http.answers import ApiStruct
from services.gateway.model.traces import NS_PER_MS, SKIPPED, Trace, is_attempt
from shared.bus.messages.records import SpanRecord
from shared.telemetry import names

MAX_ROWS = 80


class Row(ApiStruct, frozen=True):
    """One bar. offset_ms: from the waterfall's start. fallback_reason: why the hop before it
    was left. None where the span has none of them."""

    span_id: str
    parent_id: str
    depth: int
    name: str
    service: str
    node: str
    offset_ms: float
    duration_ms: float
    status: str
    attempt: bool
    outcome: str | None
    cause: str | None
    fallback_reason: str | None
    transport: str | None


class Waterfall(ApiStruct, frozen=True):
    """focused: part of the trace, from the delivery that fell back. hidden: spans that are not among the rows."""

    trace_id: str
    fallback: bool
    focused: bool
    hidden: int
    started_at: int
    duration_ms: float
    rows: list[Row]


def waterfall(trace: Trace, max_rows: int = MAX_ROWS) -> Waterfall:
    """Rows of a trace that has at least one span."""
    spans = {span.span_id: span for span in trace.spans}
    children: dict[str, list[SpanRecord]] = {}
    for span in sorted(spans.values(), key=lambda span: span.start_ns):
        # A parent that was not recorded (another node's, or dropped) leaves its children as roots.
        parent = span.parent_id if span.parent_id in spans else ""
        children.setdefault(parent, []).append(span)
    roots = children.get("") or [min(trace.spans, key=lambda span: span.start_ns)]
    focused = False
    if len(spans) > max_rows and (delivery := _fallen_back(trace, spans)) is not None:
        roots, focused = [delivery], True
    ordered = _depth_first(roots, children)[:max_rows]
    start_ns = min(span.start_ns for _, span in ordered)
    end_ns = max(span.end_ns for _, span in ordered)
    return Waterfall(
        trace_id=trace.trace_id,
        fallback=trace.fallback,
        focused=focused,
        hidden=len(spans) - len(ordered) + trace.dropped,
        started_at=start_ns // NS_PER_MS,
        duration_ms=(end_ns - start_ns) / NS_PER_MS,
        rows=[_row(span, depth, start_ns) for depth, span in ordered],
    )


def _fallen_back(trace: Trace, spans: dict[str, SpanRecord]) -> SpanRecord | None:
    """The span over the latest delivery whose attempts show a fallback."""
    for attempt in sorted(filter(is_attempt, trace.spans), key=lambda span: span.start_ns, reverse=True):
        outcome = attempt.attributes.get(names.ATTEMPT_OUTCOME)
        if outcome == "failed" or (outcome != SKIPPED and attempt.attributes.get(names.FALLBACK_REASON)):
            return spans.get(attempt.parent_id, attempt)
    return None


def _depth_first(roots: list[SpanRecord], children: dict[str, list[SpanRecord]]) -> list[tuple[int, SpanRecord]]:
    # A stack, not recursion, and nothing twice: depth and parents are whatever the spans say.
    stack = [(0, root) for root in reversed(roots)]
    ordered: dict[str, tuple[int, SpanRecord]] = {}
    while stack:
        depth, span = stack.pop()
        if span.span_id not in ordered:
            ordered[span.span_id] = (depth, span)
            stack.extend((depth + 1, child) for child in reversed(children.get(span.span_id, [])))
    return list(ordered.values())


def _row(span: SpanRecord, depth: int, start_ns: int) -> Row:
    return Row(
        span_id=span.span_id,
        parent_id=span.parent_id,
        depth=depth,
        name=span.name,
        service=span.service,
        node=span.node,
        offset_ms=(span.start_ns - start_ns) / NS_PER_MS,
        duration_ms=(span.end_ns - span.start_ns) / NS_PER_MS,
        status=span.status,
        attempt=is_attempt(span),
        outcome=_text(span, names.ATTEMPT_OUTCOME),
        cause=_text(span, names.ERROR_TYPE),
        fallback_reason=_text(span, names.FALLBACK_REASON),
        transport=_text(span, names.TRANSPORT),
    )


def _text(span: SpanRecord, key: str) -> str | None:
    value = span.attributes.get(key)
    return None if value in (None, "") else str(value)
