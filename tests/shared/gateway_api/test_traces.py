"""One waterfall for the CLI, the page and the demo."""

from __future__ import annotations

from shared.gateway_api.traces import waterfall
from tests.services.gateway.model.test_traces import _hop, _span


def test_rows_are_parents_first_and_in_time() -> None:
    drawn = waterfall(
        "t",
        [
            _hop("t", "second", "delivery", 2, "confirmed", 20, fallback__reason="closed"),
            _hop("t", "first", "delivery", 1, "failed", 10, error__type="closed", swarmbridge__transport="webrtc"),
            _span("t", "root", start=0, end=50),
            _span("t", "delivery", "root", "process", start=5, end=40),
            _span("t", "orphan", "elsewhere", "chunk.serve", start=1, end=2),
        ],
        fallback=True,
    )
    assert [(row.span_id, row.depth) for row in drawn.rows] == [
        ("root", 0),
        ("delivery", 1),
        ("first", 2),
        ("second", 2),
        ("orphan", 0),
    ]
    first, second = drawn.rows[2], drawn.rows[3]
    assert (first.offset_ms, first.duration_ms, first.outcome, first.cause) == (10, 5, "failed", "closed")
    assert (first.hop, first.transport, second.fallback_reason, second.cause) == (True, "webrtc", "closed", None)
    assert (drawn.duration_ms, drawn.hidden, drawn.focused) == (50, 0, False)


def test_a_long_trace_is_shown_from_the_delivery_that_fell_back() -> None:
    spans = [
        _span("t", "root", end=1000),
        *(_span("t", f"d{index}", "root", "delivery", index, index + 1) for index in range(100)),
        _hop("t", "a1", "d50", 1, "failed", 50),
        _hop("t", "a2", "d50", 2, "confirmed", 51),
    ]
    drawn = waterfall("t", spans, fallback=True)
    assert (drawn.focused, [row.span_id for row in drawn.rows]) == (True, ["d50", "a1", "a2"])
    assert drawn.hidden == 100
    whole = waterfall("t", spans, fallback=True, max_rows=len(spans))
    assert (whole.focused, whole.hidden, len(whole.rows)) == (False, 0, 103)


def test_a_circle_of_spans_ends() -> None:
    assert len(waterfall("t", [_span("t", "a", "b"), _span("t", "b", "a")], fallback=False).rows) == 2


def test_a_span_that_two_gateways_hold_is_one_row_and_an_unknown_parent_makes_a_root() -> None:
    drawn = waterfall("t", [_span("t", "a", "elsewhere"), _span("t", "a", "elsewhere")], fallback=False, dropped=2)
    assert ([row.depth for row in drawn.rows], drawn.hidden) == ([0], 2)
