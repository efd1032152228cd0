from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from shared.bus.contract import Incoming
from shared.bus.messages.records import SpanRecord, Spans
from shared.bus.messages.subjects import Subjects
from shared.process import bus_exporter
from shared.process.bus_exporter import BusSpanExporter
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until

SUBJECTS = Subjects("node")


async def test_spans_arrive_whole_and_in_batches() -> None:
    hub = MemoryHub()
    exporter = BusSpanExporter("webrtc", "node")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    got: list[SpanRecord] = []

    async def receive(event: Spans, incoming: Incoming) -> None:
        got.extend(event.spans)

    await hub.bus("gateway").serve(SUBJECTS.event("spans"), Spans, receive)
    with tracer.start_as_current_span("parent"):
        for number in range(250):
            tracer.start_span("child", attributes={"attempt.number": number}).end()
    await exporter.flush(hub.bus("webrtc"), SUBJECTS)
    await until(lambda: len(got) == 251)
    parent = got[-1]
    assert {span.parent_id for span in got[:-1]} == {parent.span_id}
    assert parent.parent_id == ""
    assert got[7].attributes == {"attempt.number": 7}


async def test_a_full_queue_drops_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    exporter = BusSpanExporter("webrtc", "node")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for _ in range(bus_exporter.MAX_QUEUED_SPANS + 3):
        tracer.start_span("one").end()
    assert "spans are not published: 1 so far" in caplog.text
    assert len(caplog.records) == 1, "not one a span"
