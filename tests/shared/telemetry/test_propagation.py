from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from shared.telemetry.propagation import attached, context_of, current_traceparent, link_to

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACER = TracerProvider().get_tracer("test")


def test_no_span_has_no_traceparent() -> None:
    assert current_traceparent() == ""


def test_a_span_travels_as_a_string() -> None:
    with TRACER.start_as_current_span("one") as one:
        traceparent = current_traceparent()
    with attached(traceparent), TRACER.start_as_current_span("two") as two:
        assert two.get_span_context().trace_id == one.get_span_context().trace_id
        assert current_traceparent()[3:35] == f"{one.get_span_context().trace_id:032x}"


def test_an_empty_parent_hides_the_context_of_whoever_subscribed() -> None:
    with TRACER.start_as_current_span("subscriber"), attached(""):
        assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("nonsense", ["x", "00-0-0-0", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\x00" * 55])
def test_nonsense_from_a_peer_is_no_parent(nonsense: str) -> None:
    assert not trace.get_current_span(context_of(nonsense)).get_span_context().is_valid
    assert link_to(nonsense) == []


def test_a_link_points_at_the_other_trace() -> None:
    (link,) = link_to(PARENT)
    assert f"{link.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
