"""Each hop is one span in the caller's trace, and says the same as its record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.errors import Cause
from shared.telemetry import names, tracer
from tests.fakes.waiting import until
from tests.services.manager.node import PEER, Node, fail, stay_silent
from tests.services.manager.rig import WEBRTC


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def hops(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    spans = [span for span in exporter.get_finished_spans() if span.name.startswith(names.SPAN_TRANSPORT_HOP)]
    return sorted(spans, key=lambda span: span.start_time or 0)


async def test_hops_are_sibling_spans_that_agree_with_their_records(node: Node, exporter: InMemorySpanExporter) -> None:
    await node.start()
    await node.warm()
    await until(lambda: len(node.records) == 2)
    exporter.clear()
    node.workers[WEBRTC].behave = fail(Cause.CLOSED)
    with tracer().start_as_current_span("chunk.fetch") as root:
        await node.deliver()
    await until(lambda: len(node.records) == 4)
    first, second = hops(exporter)
    assert [first.name, second.name] == ["transport.attempt webrtc", "transport.attempt webtorrent"]
    assert first.parent is not None
    assert first.parent == second.parent
    assert {first.context.trace_id, second.context.trace_id} == {root.get_span_context().trace_id}
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes[names.ERROR_TYPE] == "closed"
    assert first.attributes[names.HOP_OUTCOME] == "failed"
    assert not first.status.is_ok
    assert second.attributes[names.FALLBACK_REASON] == "closed"
    assert second.attributes[names.FALLBACK_FROM] == "webrtc"
    assert second.attributes[names.HOP_NUMBER] == 2
    assert second.status.status_code is trace.StatusCode.UNSET
    assert {record.trace_id for record in node.records[2:]} == {f"{first.context.trace_id:032x}"}
    assert PEER not in str([span.attributes for span in (first, second)])


async def test_the_workers_part_is_within_the_hop(node: Node, exporter: InMemorySpanExporter) -> None:
    await node.start()
    with tracer().start_as_current_span("chunk.fetch"):
        await node.deliver()
    await until(lambda: hops(exporter))
    (hop,) = hops(exporter)
    sends = [span for span in exporter.get_finished_spans() if span.name.startswith("send sb.{node}.link.webrtc")]
    assert [span.parent.span_id for span in sends if span.parent is not None] == [hop.context.span_id]


async def test_a_cancelled_hop_is_unset(node: Node, exporter: InMemorySpanExporter) -> None:
    await node.start()
    await node.warm()
    exporter.clear()
    node.workers[WEBRTC].behave = stay_silent
    await node.deliver()
    await until(lambda: len(hops(exporter)) == 2)
    loser, winner = hops(exporter)
    assert loser.status.status_code is trace.StatusCode.UNSET
    assert loser.attributes is not None
    assert winner.attributes is not None
    assert (loser.attributes[names.HOP_OUTCOME], winner.attributes[names.HOP_HEDGED]) == ("cancelled", True)


async def test_a_dial_for_a_delivery_is_the_managers_own(node: Node, exporter: InMemorySpanExporter) -> None:
    await node.start()
    with tracer().start_as_current_span("chunk.fetch") as root:
        await node.deliver()
    await until(lambda: hops(exporter))
    spans = exporter.get_finished_spans()
    dials = {span.context.span_id for span in spans if span.name.startswith(names.SPAN_TRANSPORT_DIAL)}
    asked = [span for span in spans if span.name.startswith("send sb.{node}.dial.")]
    assert asked
    assert {span.parent.span_id for span in asked if span.parent is not None} <= dials
    assert {span.context.trace_id for span in asked} == {root.get_span_context().trace_id}
