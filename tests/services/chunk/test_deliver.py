"""One delivery: verdicts, losses and its root span."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from services.chunk import deliver as deliver_module
from services.chunk.deliver import Delivered, Deliveries
from shared.bus.calls import Calls
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Answered, BodyRef, Deliver, Done, InboundAnswer, Receipt, Slowed, Taken
from shared.content.messages import ChunkData, ManifestData, NotFound, PeerAnswer, RequestManifest
from shared.errors import Cause, RemoteProtocolError
from shared.ids import guest_token
from shared.telemetry import names
from tests.fakes.memory_bus import MemoryHub
from tests.services.chunk.nodes import BUS_TIMEOUT_S, SUBJECTS, FakeManager

PEER = guest_token("peer")
REQUEST = RequestManifest("x")
FOUND = InboundAnswer(ManifestData("x"), BodyRef("", b"", 4))


class Desk:
    """Deliveries of one process, and a manager whose answers the test writes."""

    def __init__(self) -> None:
        self.hub = MemoryHub()
        self.bus = self.hub.bus("chunk-1")
        self.calls = Calls(self.bus, SUBJECTS, SUBJECTS.manager)
        self.deliveries = Deliveries(self.bus, SUBJECTS, self.calls)
        self.answer: tuple[InboundAnswer, bytes] = (FOUND, b"body")
        self.manager = FakeManager(self.hub, self._forward)
        self.kept: list[bytes] = []
        self.refuse: Cause | None = None
        self.slowed: list[float] = []

    async def _forward(self, deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        return self.answer

    async def accept(self, answer: PeerAnswer, body: bytes) -> None:
        if self.refuse is not None:
            raise RemoteProtocolError("no", self.refuse)
        self.kept.append(body)

    async def ask(self, max_bytes: int = 100) -> Delivered:
        return await self.deliveries.ask(
            PEER, REQUEST, max_bytes, self.accept, transfer="t", on_slow=self.slowed.append
        )

    def verdicts(self) -> list[tuple[Cause | None, int]]:
        return [(verdict.cause, verdict.bytes) for verdict in self.manager.verdicts]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    await made.calls.start()
    await made.manager.start()
    yield made
    await made.calls.close()
    await made.manager.close()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, StatusCode, object]]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(deliver_module, "tracer", lambda: provider.get_tracer("test"))

    def finished() -> list[tuple[str, StatusCode, object]]:
        for span in exporter.get_finished_spans():
            # The text of an error is for the local log alone.
            assert span.status.description is None
            assert not span.events
        return [
            (span.name, span.status.status_code, (span.attributes or {}).get(names.ERROR_TYPE))
            for span in exporter.get_finished_spans()
        ]

    return finished


async def test_a_good_answer_is_kept_and_confirmed(
    desk: Desk, spans: Callable[[], list[tuple[str, StatusCode, object]]]
) -> None:
    assert await desk.ask() == Delivered(True, None, "webrtc", 4)
    assert desk.kept == [b"body"]
    assert desk.verdicts() == [(None, 4)]
    assert spans() == [
        (names.SPAN_CHUNK_VERIFY, StatusCode.UNSET, None),
        (names.SPAN_CHUNK_FETCH, StatusCode.UNSET, None),
    ]


async def test_a_refused_answer_fails_the_delivery_with_its_cause(
    desk: Desk, spans: Callable[[], list[tuple[str, StatusCode, object]]]
) -> None:
    desk.refuse = Cause.INTEGRITY_MISMATCH
    result = await desk.ask()
    assert (result.found, result.absent, result.cause) == (False, False, Cause.INTEGRITY_MISMATCH)
    assert desk.verdicts() == [(Cause.INTEGRITY_MISMATCH, 0)]
    assert spans() == [
        (names.SPAN_CHUNK_VERIFY, StatusCode.ERROR, "integrity_mismatch"),
        (names.SPAN_CHUNK_FETCH, StatusCode.ERROR, "integrity_mismatch"),
    ]


async def test_not_found_is_an_answer(desk: Desk) -> None:
    desk.answer = (InboundAnswer(NotFound("x"), None), b"")
    assert (await desk.ask()).absent
    assert desk.verdicts() == [(None, 0)]


async def test_a_body_over_its_limit_is_not_pulled(desk: Desk) -> None:
    assert (await desk.ask(max_bytes=3)).cause is Cause.TOO_LARGE
    assert desk.verdicts() == [(Cause.TOO_LARGE, 0)]


async def test_a_worker_that_died_with_the_body_is_charged_to_the_hop(desk: Desk) -> None:
    hold = desk.manager.bodies.hold
    desk.manager.bodies.hold = lambda data, puller: BodyRef("webrtc-gone", hold(data, puller).token, 4)  # type: ignore[method-assign]
    assert (await desk.ask()).cause is Cause.WORKER_LOST
    assert desk.verdicts() == [(Cause.WORKER_LOST, 0)]


async def test_no_manager_is_a_timeout_and_a_killed_one_is_replaced(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def hang(deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        await never.wait()
        return FOUND, b"body"

    desk.manager.forward = hang
    asking = asyncio.create_task(desk.ask())
    while not desk.manager.delivered:
        await asyncio.sleep(0)
    second = await FakeManager(desk.hub, desk._forward, "manager-2").start()
    desk.hub.kill("manager-1")
    assert (await asking).found
    assert second.delivered[0].delivery_id == desk.manager.delivered[0].delivery_id
    await second.close()
    desk.hub.kill("manager-2")
    monkeypatch.setattr(deliver_module, "DELIVERY_TIMEOUT_S", 0.05)
    assert (await desk.ask()).cause is Cause.TIMEOUT


async def test_a_busy_peer_slows_its_caller_and_the_delivery_goes_on(desk: Desk) -> None:
    async def busy_first(deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        slowed = Slowed(deliver.delivery_id, 250)
        await desk.manager.bus.request(SUBJECTS.reply(deliver.reply_to), slowed, Done, BUS_TIMEOUT_S)
        return desk.answer

    desk.manager.forward = busy_first
    assert (await desk.ask()).found
    assert desk.slowed == [0.25]


async def test_a_peer_that_took_the_request_and_cannot_answer_was_silent(desk: Desk) -> None:
    async def accepted(deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        receipt = Receipt(deliver.delivery_id, "accepted", None, [], 1.0)
        await desk.manager.bus.request(SUBJECTS.reply(deliver.reply_to), receipt, Done, BUS_TIMEOUT_S)
        await asyncio.Event().wait()
        return desk.answer

    desk.manager.forward = accepted
    result = await desk.ask()
    assert (result.found, result.absent, result.cause) == (False, False, Cause.SILENT)
    assert desk.verdicts() == []


async def test_a_second_answer_is_confirmed_without_a_second_pull(desk: Desk) -> None:
    """A new manager asks the peer again; and a receipt that says otherwise does not unmake what is stored."""

    async def twice(deliver: Deliver, incoming: Incoming) -> Taken:
        async def carry() -> None:
            reply = SUBJECTS.reply(deliver.reply_to)
            body = desk.manager.bodies.hold(b"body", "chunk")
            answers: list[PeerAnswer] = [ManifestData("x"), ChunkData("r", 0, 1, 0, b"", "", "")]
            for hop, answer in enumerate(answers):
                message = Answered(deliver.delivery_id, "manager-1", hop, "webrtc", answer, body)
                await other.request(reply, message, Done, BUS_TIMEOUT_S)
            receipt = Receipt(deliver.delivery_id, "failed", Cause.TIMEOUT, [], 1.0)
            await other.request(reply, receipt, Done, BUS_TIMEOUT_S)

        desk.manager.tasks.start(carry(), name="carry")
        return Taken("manager-1")

    other = desk.hub.bus("manager-x")
    desk.hub.interests = {interest for interest in desk.hub.interests if interest.pattern != SUBJECTS.deliver}
    await other.serve(SUBJECTS.deliver, Deliver, twice)
    assert (await desk.ask()).found
    assert desk.kept == [b"body"]
    assert desk.verdicts() == [(None, 4), (None, 4)]
