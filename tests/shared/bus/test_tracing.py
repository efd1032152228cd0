"""Spans around requests: `send` and `process`, parent and link, only for traced subjects and recording callers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from shared.bus import serving
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Done, Ping, Pong
from shared.bus.messages.subjects import Subjects
from shared.errors import Cause, NoResponders, RemoteFailure, SwarmbridgeError
from shared.telemetry.propagation import current_traceparent
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until
from tests.shared.bus.conftest import NODE

N = Subjects(NODE)
TRACED = N.link("webrtc", "kabc")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    monkeypatch.setattr(serving, "tracer", lambda: tracer)
    monkeypatch.setattr("tests.shared.bus.test_tracing.TRACER", tracer)
    yield exporter
    provider.shutdown()


TRACER: trace.Tracer = trace.get_tracer("unset")


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_a_traced_request_makes_a_pair_of_spans(spans: InMemorySpanExporter) -> None:
    hub = MemoryHub()
    inside: list[str] = []

    async def handler(body: Ping, incoming: Incoming) -> Pong:
        inside.append(current_traceparent()[3:35])
        return Pong()

    await hub.bus("w1").serve(TRACED, Ping, handler)
    with TRACER.start_as_current_span("root") as root:
        await hub.bus("m1").request(TRACED, Ping(), Pong, 1.0)
    await until(lambda: len(spans.get_finished_spans()) == 3)
    found = by_name(spans)
    send = found["send sb.{node}.link.webrtc.{peer}"]
    process = found["process sb.{node}.link.webrtc.{peer}"]
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert send.parent is not None
    assert process.parent is not None
    assert send.context is not None
    assert send.parent.span_id == root.get_span_context().span_id
    assert process.parent.span_id == send.context.span_id
    assert not process.links, "a link to its own parent would make it the root of a trace in Jaeger"
    assert inside == [f"{root.get_span_context().trace_id:032x}"]
    assert dict(send.attributes or {})["messaging.system"] == "nats"
    assert "kabc" not in f"{[span.to_json() for span in spans.get_finished_spans()]}"


async def test_failures_have_one_error_type_on_both_sides(spans: InMemorySpanExporter) -> None:
    hub = MemoryHub()

    async def refuse(body: Ping, incoming: Incoming) -> None:
        raise SwarmbridgeError(Cause.TOO_LARGE, "a text that stays here")

    await hub.bus("w1").serve(TRACED, Ping, refuse)
    caller = hub.bus("m1")
    with TRACER.start_as_current_span("root"):
        with pytest.raises(RemoteFailure):
            await caller.request(TRACED, Ping(), Pong, 1.0)
        with pytest.raises(NoResponders):
            await caller.request(N.link("broadcast", "kabc"), Ping(), Pong, 1.0)
    await until(lambda: len(spans.get_finished_spans()) == 4)
    errors = {span.name: dict(span.attributes or {}).get("error.type") for span in spans.get_finished_spans()}
    assert errors == {
        "root": None,
        "send sb.{node}.link.webrtc.{peer}": "too_large",
        "process sb.{node}.link.webrtc.{peer}": "too_large",
        "send sb.{node}.link.broadcast.{peer}": "no_link",
    }
    for span in spans.get_finished_spans():
        assert span.status.status_code is (StatusCode.UNSET if span.name == "root" else StatusCode.ERROR)
        assert not span.events
        assert not span.status.description


async def test_untraced_subjects_and_callers_make_none(spans: InMemorySpanExporter) -> None:
    hub = MemoryHub()
    traces: list[str] = []

    async def handler(body: Ping, incoming: Incoming) -> None:
        traces.append(current_traceparent()[3:35])

    server, caller = hub.bus("w1"), hub.bus("m1")
    with TRACER.start_as_current_span("elsewhere"):
        # What is current where a subject is served must not leak into its handlers.
        await server.serve(TRACED, Ping, handler)
        await server.serve(N.worker("w1"), Ping, handler)
    await caller.request(TRACED, Ping(), Done, 1.0)
    assert traces == [""]
    with TRACER.start_as_current_span("root") as root:
        await caller.request(N.worker("w1"), Ping(), Done, 1.0)
    assert traces[1] == f"{root.get_span_context().trace_id:032x}"
    assert set(by_name(spans)) == {"elsewhere", "root"}
