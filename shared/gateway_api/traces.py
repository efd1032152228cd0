"""Traces: their summaries, their spans, and a waterfall of one, built here and nowhere else. Pure.

The gateway builds it for the CLI and the page; the demo builds it from the spans of two gateways. A transfer of a
thousand chunks is one trace; what people want to see of it is the delivery that fell back. So a trace over `max_rows`
spans is shown from that delivery on (`focused`), and cut at `max_rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from shared.gateway_api.structs import ApiStruct
from shared.telemetry import names

MAX_ROWS = 80
NS_PER_MS = 1_000_000
SKIPPED = "skipped"
FAILED = "failed"


class Span(Protocol):
    """What a waterfall needs of a span: the API's SpanView and the bus's record both have it."""

    @property
    def span_id(self) -> str: ...
    @property
    def parent_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def attributes(self) -> Mapping[str, str | int | float | bool]: ...


class TraceSummary(ApiStruct, frozen=True):
    """fallback: some delivery in it left a transport for another. started_at: wall clock, ms."""

    trace_id: str
    name: str
    fallback: bool
    failed: bool
    started_at: int
    duration_ms: float
    spans: int
    dropped: int
    hops: int
    services: list[str]
    nodes: list[str]


class SpanView(ApiStruct, frozen=True):
    """One finished span. start_ns, end_ns: wall clock; ids as hex."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    node: str
    start_ns: int
    end_ns: int
    status: str = "unset"
    attributes: dict[str, str | int | float | bool] = msgspec.field(default_factory=dict)
    links: list[str] = msgspec.field(default_factory=list)


class WaterfallRow(ApiStruct, frozen=True):
    """One bar. offset_ms: from the waterfall's start. fallback_reason: why the hop before it was left. None where the
    span has none of them.
    """

    span_id: str
    parent_id: str
    depth: int
    name: str
    service: str
    node: str
    offset_ms: float
    duration_ms: float
    status: str
    hop: bool
    outcome: str | None
    cause: str | None
    fallback_reason: str | None
    transport: str | None


class Waterfall(ApiStruct, frozen=True):
    """Rows: parents before children, siblings by start. focused: part of the trace, from the delivery that fell back.
    hidden: spans that are not among the rows.
    """

    trace_id: str
    fallback: bool
    focused: bool
    hidden: int
    started_at: int
    duration_ms: float
    rows: list[WaterfallRow]


def waterfall(
    trace_id: str, found: Iterable[Span], *, fallback: bool, dropped: int = 0, max_rows: int = MAX_ROWS
) -> Waterfall:
    """Rows of a trace. found: at least one span. dropped: spans that are known of and not among them."""
    spans = {span.span_id: span for span in found}
    children: dict[str, list[Span]] = {}
    for span in sorted(spans.values(), key=lambda span: span.start_ns):
        # A parent that was not recorded (another node's, or dropped) leaves its children as roots.
        parent = span.parent_id if span.parent_id in spans else ""
        children.setdefault(parent, []).append(span)
    roots = children.get("") or [min(spans.values(), key=lambda span: span.start_ns)]
    focused = False
    if len(spans) > max_rows and (delivery := _fallen_back(spans)) is not None:
        roots, focused = [delivery], True
    ordered = _depth_first(roots, children)[:max_rows]
    start_ns = min(span.start_ns for _, span in ordered)
    end_ns = max(span.end_ns for _, span in ordered)
    return Waterfall(
        trace_id=trace_id,
        fallback=fallback,
        focused=focused,
        hidden=len(spans) - len(ordered) + dropped,
        started_at=start_ns // NS_PER_MS,
        duration_ms=(end_ns - start_ns) / NS_PER_MS,
        rows=[_row(span, depth, start_ns) for depth, span in ordered],
    )


def is_hop(span: Span) -> bool:
    """Span names are `transport.attempt <transport>`."""
    return span.name.startswith(names.SPAN_TRANSPORT_HOP)


def _fallen_back(spans: Mapping[str, Span]) -> Span | None:
    """The span over the latest delivery whose hops show a fallback."""
    for hop in sorted(filter(is_hop, spans.values()), key=lambda span: span.start_ns, reverse=True):
        outcome = hop.attributes.get(names.HOP_OUTCOME)
        if outcome == FAILED or (outcome != SKIPPED and hop.attributes.get(names.FALLBACK_REASON)):
            return spans.get(hop.parent_id, hop)
    return None


def _depth_first(roots: list[Span], children: Mapping[str, list[Span]]) -> list[tuple[int, Span]]:
    # A stack, not recursion, and nothing twice: depth and parents are whatever the spans say.
    stack = [(0, root) for root in reversed(roots)]
    ordered: dict[str, tuple[int, Span]] = {}
    while stack:
        depth, span = stack.pop()
        if span.span_id not in ordered:
            ordered[span.span_id] = (depth, span)
            stack.extend((depth + 1, child) for child in reversed(children.get(span.span_id, [])))
    return list(ordered.values())


def _row(span: Span, depth: int, start_ns: int) -> WaterfallRow:
    return WaterfallRow(
        span_id=span.span_id,
        parent_id=span.parent_id,
        depth=depth,
        name=span.name,
        service=span.service,
        node=span.node,
        offset_ms=(span.start_ns - start_ns) / NS_PER_MS,
        duration_ms=(span.end_ns - span.start_ns) / NS_PER_MS,
        status=span.status,
        hop=is_hop(span),
        outcome=_text(span, names.HOP_OUTCOME),
        cause=_text(span, names.ERROR_TYPE),
        fallback_reason=_text(span, names.FALLBACK_REASON),
        transport=_text(span, names.TRANSPORT),
    )


def _text(span: Span, key: str) -> str | None:
    value = span.attributes.get(key)
    return None if value in (None, "") else str(value)
