from __future__ import annotations

import pytest

from services.gateway.model import limits
from services.gateway.model.traces import TraceStore
from shared.bus.messages.records import SpanRecord
from shared.telemetry import names

MS = 1_000_000


def _span(
    trace: str,
    span: str,
    parent: str = "",
    name: str = "chunk.fetch",
    start: int = 0,
    end: int = 10,
    **attributes: str | int,
) -> SpanRecord:
    keyed = {key.replace("__", "."): value for key, value in attributes.items()}
    return SpanRecord(trace, span, parent, name, "chunk", "n", start * MS, end * MS, "unset", dict(keyed))


def _hop(
    trace: str, span: str, parent: str, number: int, outcome: str, start: int = 0, **attributes: str | int
) -> SpanRecord:
    return _span(
        trace,
        span,
        parent,
        "transport.attempt webrtc",
        start,
        start + 5,
        attempt__number=number,
        attempt__outcome=outcome,
        **attributes,
    )


def test_a_plain_success_is_no_fallback_however_many_deliveries_it_has() -> None:
    store = TraceStore()
    turned = store.add(
        [_hop("t", f"a{index}", f"delivery-{index}", 1, "confirmed") for index in range(5)]
        + [_hop("t", "s", "delivery-0", 2, "skipped"), _span("t", "root")]
    )
    assert turned == set()
    assert store.newest_first(fallback_only=True) == []
    [summary] = store.newest_first()
    assert (summary.fallback, summary.hops, summary.name) == (False, 6, "chunk.fetch")


@pytest.mark.parametrize(
    "hops",
    [
        [_hop("t", "a", "d", 1, "failed")],
        [_hop("t", "a", "d", 1, "cancelled"), _hop("t", "b", "d", 2, "confirmed")],
        [_hop("t", "b", "d", 2, "confirmed", fallback__reason="closed")],
    ],
)
def test_what_counts_as_a_fallback(hops: list[SpanRecord]) -> None:
    store = TraceStore()
    assert store.add(hops) == {"t"}
    assert store.add([_hop("t", "z", "d", 3, "failed")]) == set()
    [summary] = store.newest_first(fallback_only=True)
    assert summary.fallback


def test_fallbacks_are_kept_when_plain_traces_must_go() -> None:
    store = TraceStore(max_traces=3)
    store.add([_hop("kept", "a", "d", 1, "failed")])
    for index in range(10):
        store.add([_span(f"plain-{index}", "s", start=index, end=index + 1)])
    assert store.get("kept") is not None
    assert [trace.trace_id for trace in store.newest_first()] == ["plain-9", "plain-8", "kept"]


def test_spans_are_bounded_in_all() -> None:
    store = TraceStore(max_spans=10)
    for index in range(30):
        store.add([_span(f"t{index // 4}", f"s{index}", start=index)])
    kept = store.newest_first()
    assert sum(trace.spans for trace in kept) <= 10


def test_a_huge_trace_keeps_its_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SPANS_A_TRACE", 5)
    store = TraceStore()
    store.add([_span("t", f"s{index}") for index in range(20)])
    assert store.add([_hop("t", "a", "d", 1, "failed")]) == {"t"}
    store.add([_hop("t", f"b{index}", "d", 2, "failed") for index in range(20)])
    trace = store.get("t")
    assert trace is not None
    assert len(trace.spans) == 10
    assert trace.dropped == 15 + 16


def test_names_are_those_of_the_telemetry_module() -> None:
    assert names.HOP_OUTCOME == "attempt.outcome"
    assert names.FALLBACK_REASON == "fallback.reason"
