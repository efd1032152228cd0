"""What breaks within a worker, what strangers try, what a drain leaves: each costs what it must and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.content.messages import RequestChunk
from shared.errors import Cause, NoResponders, RemoteFailure
from shared.ids import LinkId, member_token
from shared.speech.contract import AnswerProgressed, RequestFailed
from shared.speech.sealed_native import SealedNative
from shared.transport.contract import LinkDown, LinkUp, RecordReceived
from shared.worker import asking, notices, serve
from shared.worker.asking import Asking
from shared.worker.interest import PeerInterest
from shared.worker.notices import Notices
from shared.worker.peer_requests import PeerRequests
from shared.worker.serve import TransportServer
from shared.worker.status import StatusTracker
from tests.fakes import json_speech
from tests.fakes.json_speech import JSON
from tests.fakes.loop_transport import LoopTransport
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.shared.worker.couple import BODY, ID, Couple

TWO_HOURS_S = 7200


@pytest.fixture
async def couple() -> AsyncIterator[Couple]:
    couple = Couple()
    yield couple
    await couple.stop()


async def _break(*args: Any) -> None:
    raise RuntimeError("a bug of ours")


# ── tasks that die ──


@pytest.mark.parametrize(
    ("owner", "method", "task"),
    [
        (TransportServer, "_report", "status"),
        (TransportServer, "_renew", "renew"),
        (TransportServer, "_obey_flag", "flag"),
        (Notices, "run", "notices"),
        (Asking, "sweep", "sweep"),
    ],
)
async def test_a_worker_without_one_of_its_tasks_ends_so_that_it_is_started_again(
    couple: Couple, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, task: str
) -> None:
    if task == "flag":  # it runs once within the start, and in a task at each change
        await couple.start()
    monkeypatch.setattr(owner, method, _break)
    if task == "flag":
        await couple.near.flags.set(couple.near_transport.name, False)
    else:
        await couple.near.start(couple.near_transport)
    await until(lambda: couple.near.crashed == [f"worker-{task}"])
    assert couple.near.process.stopping.is_set()


async def test_a_route_that_cannot_be_kept_ends_the_worker(couple: Couple, monkeypatch: pytest.MonkeyPatch) -> None:
    await couple.start()
    monkeypatch.setattr(PeerInterest, "_change", _break)
    await couple.near_transport.dial_unasked(couple.far.key)
    await until(lambda: couple.near.crashed == ["worker-route"])


async def test_a_request_that_we_break_on_is_a_failure_to_its_peer(
    couple: Couple, monkeypatch: pytest.MonkeyPatch
) -> None:
    await couple.start()
    await couple.link()
    monkeypatch.setattr(PeerRequests, "_hand_in", _break)
    await couple.send()
    await until(lambda: [failure.cause for failure in couple.near.failures] == [Cause.OTHER])
    monkeypatch.undo()
    await couple.send(b"2" * 16)
    await until(lambda: couple.near.answers)
    assert couple.far.crashed == []


async def test_a_record_that_we_break_on_costs_its_link_alone(couple: Couple, monkeypatch: pytest.MonkeyPatch) -> None:
    await couple.start()
    await couple.link()

    def broken(self: SealedNative, record: bytes, now: float) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(SealedNative, "receive_record", broken)
    await couple.send()
    await until(lambda: [failure.cause for failure in couple.near.failures] != [])
    monkeypatch.undo()
    await couple.link()
    await couple.send(b"2" * 16)
    await until(lambda: couple.near.answers)
    assert couple.far.crashed == couple.near.crashed == []


# ── what is kept ──


class _Heard:
    """In the place of Asking: what managers would have heard."""

    def __init__(self) -> None:
        self.progress = 0
        self.ends: list[object] = []

    async def progressed(self, request_id: bytes, body_bytes: int) -> None:
        self.progress += 1

    async def failed(self, request_id: bytes, cause: Cause, retry_after_ms: int) -> None:
        self.ends.append(cause)

    async def link_down(self, session: object, cause: Cause) -> None:
        self.ends.append(cause)


async def test_a_full_queue_drops_progress_and_never_an_end() -> None:
    heard = _Heard()
    queue = Notices(heard, StatusTracker())  # type: ignore[arg-type]
    session: Any = None
    for _ in range(notices.MAX_QUEUED + 10):
        queue.queue(session, AnswerProgressed(ID, 1))
    queue.queue(session, RequestFailed(ID, Cause.BUSY))
    queue.queue(session, LinkDown(LinkId("x"), Cause.CLOSED))
    running = asyncio.create_task(queue.run())
    await until(lambda: heard.ends == [Cause.BUSY, Cause.CLOSED])
    assert heard.progress == notices.MAX_QUEUED
    running.cancel()


async def test_a_request_whose_manager_is_gone_is_forgotten_after_its_time(
    couple: Couple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "EXPIRY_GRACE_S", 0.0)
    monkeypatch.setattr(asking, "SWEEP_INTERVAL_S", 0.01)
    await couple.start()
    await couple.link()
    couple.far.hub.freeze("chunk-0")
    subject = couple.near.subjects.link("webrtc", couple.far.token)
    call = SendRequest(ID, "manager-1", 1, RequestChunk("chunk-a"))
    await couple.near.caller.request(subject, call, Accepted, timeout_s=0.5)
    await until(lambda: [failure.cause for failure in couple.near.failures] == [Cause.TIMEOUT])
    couple.far.hub.thaw("chunk-0")


async def test_a_request_that_ends_while_others_are_forgotten_does_not_end_the_worker(
    couple: Couple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "EXPIRY_GRACE_S", 0.0)
    monkeypatch.setattr(asking, "SWEEP_INTERVAL_S", 0.3)
    others: dict[bytes, bytes] = {b"1" * 16: b"2" * 16, b"2" * 16: b"1" * 16}
    failed = Asking.failed

    async def one_ends_both(self: Asking, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        await failed(self, request_id, cause, retry_after_ms)
        await failed(self, others[request_id], Cause.CLOSED)

    monkeypatch.setattr(Asking, "failed", one_ends_both)
    await couple.start()
    await couple.link()
    couple.far.hub.freeze("chunk-0")
    subject = couple.near.subjects.link("webrtc", couple.far.token)
    for request_id in others:
        call = SendRequest(request_id, "manager-1", 1, RequestChunk("chunk-a"))
        await couple.near.caller.request(subject, call, Accepted, timeout_s=0.05)
    await until(lambda: len(couple.near.failures) == 2)
    assert couple.near.crashed == []
    couple.far.hub.thaw("chunk-0")


async def test_what_changes_while_a_status_is_published_is_reported_at_once(
    couple: Couple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "STATUS_INTERVAL_S", 3600.0)
    publish = TransportServer._publish_status
    states: list[str] = []

    async def changes_meanwhile(self: TransportServer) -> None:
        states.append(self._health().state)
        await publish(self)
        if len(states) < 3:
            self._report_now.set()

    monkeypatch.setattr(TransportServer, "_publish_status", changes_meanwhile)
    await couple.near.start(couple.near_transport)
    await until(lambda: len(states) >= 3)


# ── a peer that leaves ──


async def test_a_link_that_its_peer_leaves_takes_nothing_new_and_another_one_is_opened(
    couple: Couple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "DRAIN_GRACE_S", 60.0)
    await couple.start()
    await couple.link()
    couple.far.hub.freeze("chunk-0")
    await couple.send(b"1" * 16)
    await until(lambda: couple.near.progress)
    draining = asyncio.create_task(couple.far.stop())

    async def refused() -> None:
        while True:
            try:
                await couple.send(b"2" * 16)
                await asyncio.sleep(0.01)
            except NoResponders:
                return

    await asyncio.wait_for(refused(), 5.0)
    another = WorkerNode(b"\x02" * 32)
    another.bodies["chunk-a"] = BODY
    await another.start(LoopTransport(couple.net))
    await until(lambda: couple.net.listening.get(couple.far.key) is not couple.far_transport)
    await couple.near.dial(couple.far.token)
    await couple.send(b"3" * 16)
    await until(lambda: [answer.request_id for answer in couple.near.answers] == [b"3" * 16])
    assert not draining.done(), "the link that is left still has its request"
    couple.far.hub.thaw("chunk-0")
    await until(lambda: b"1" * 16 in [answer.request_id for answer in couple.near.answers])
    couple.net.listening[couple.far.key] = couple.far_transport
    await draining
    couple.far.serving = None
    couple.net.listening[couple.far.key] = couple.far_transport
    await another.stop()


# ── strangers, clocks, numbers ──


async def test_what_a_stranger_tries_is_counted_and_no_error_of_ours(couple: Couple) -> None:
    await couple.start()
    link = LinkId("00000000000000aa")
    couple.near_transport.emit(LinkUp(link, dialer=False, binding=bytes(32), expected_key=None))
    couple.near_transport.emit(RecordReceived(link, b"no handshake"))
    couple.near_transport.emit(LinkDown(link, Cause.CLOSED))
    await until(lambda: couple.near.status and couple.near.status.refused == {"unauthenticated": 1})
    assert couple.near.status is not None
    assert couple.near.status.last_error is None


async def test_an_error_has_a_time_and_goes_when_something_works(couple: Couple) -> None:
    await couple.start()
    with pytest.raises(RemoteFailure):
        await couple.near.dial(WorkerNode(b"\x04" * 32).token)
    await until(lambda: couple.near.status and couple.near.status.last_error is Cause.PEER_UNKNOWN)
    assert couple.near.status is not None
    assert couple.near.status.last_error_ms > 0
    await couple.link()
    await until(lambda: couple.near.status and couple.near.status.last_error is None)


async def test_what_was_sent_is_counted_while_the_link_is_open(couple: Couple) -> None:
    await couple.start()
    await couple.link()
    await couple.send()
    await until(lambda: couple.near.answers)
    await until(lambda: couple.far.status and couple.far.status.bytes_out >= len(BODY))
    assert couple.far.status is not None
    assert couple.far.status.peers, "it is still open"
    assert couple.far.status.last_activity_ms > 0
    sent = couple.far.status.bytes_out
    await couple.near.stop()
    couple.near.serving = None
    await until(lambda: couple.far.status and not couple.far.status.peers)
    assert sent <= couple.far.status.bytes_out < 2 * len(BODY), "counted once"


@pytest.mark.parametrize("off_s", [TWO_HOURS_S, -26 * 3600], ids=["ahead", "a-day-behind"])
@pytest.mark.parametrize("dials", ["near", "far"])
async def test_clocks_that_differ_are_the_cause_at_both_ends(off_s: int, dials: str) -> None:
    couple = Couple()
    couple.far.clock_off_s = off_s
    await couple.start()
    dialer, other = (couple.near, couple.far) if dials == "near" else (couple.far, couple.near)
    # A dialer that is refused by the listener has a link for a moment: its dial may succeed, or say so.
    [outcome] = await asyncio.gather(dialer.dial(other.token), return_exceptions=True)
    assert not isinstance(outcome, RemoteFailure) or outcome.cause is Cause.CLOCK_SKEW
    for node in (couple.near, couple.far):
        await until(lambda node=node: node.status and node.status.refused == {"clock_skew": 1})  # type: ignore[misc]
        await until(lambda node=node: node.status and not node.status.peers)  # type: ignore[misc]
    if dials == "near":
        assert couple.near.status is not None
        assert couple.near.status.last_error is Cause.CLOCK_SKEW
    await couple.stop()


async def test_a_speech_without_a_seal_makes_a_guest_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one of ours that errs: who the transport has proved is who it is."""
    guests = Couple(JSON)
    monkeypatch.setattr(json_speech, "guest_token", lambda _: member_token(b"\x07" * 32))
    await guests.start()
    with pytest.raises(RemoteFailure) as refusal:
        await guests.near.dial(guests.far.token, timeout_s=2.0)
    assert refusal.value.cause in (Cause.UNAUTHENTICATED, Cause.CLOSED), "whichever end closes it first"
    assert guests.near.status is None or guests.near.status.peers == []
    await guests.stop()


async def test_a_link_that_goes_down_gives_back_what_its_bodies_had_reserved(
    couple: Couple, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[SealedNative] = []
    close = SealedNative.close

    def watch(self: SealedNative) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(SealedNative, "close", watch)
    await couple.start()
    await couple.link()
    await couple.far.stop()
    couple.far.serving = None
    await until(lambda: len(closed) == 2)
