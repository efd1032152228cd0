"""Native frames under the seal, both ends in memory: who is proved, in which order records leave, what is bounded."""

from __future__ import annotations

import pytest

from shared.content.messages import MAX_BODY_BYTES, ChunkData, NotFound, RequestChunk
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError
from shared.ids import member_token
from shared.speech import native_queues, sealed_native
from shared.speech.budget import MAX_LINK_BYTES, ByteBudget
from shared.speech.contract import (
    AnswerProgressed,
    AnswerReceived,
    Event,
    PeerLeft,
    PeerProved,
    RequestReceived,
    SpeechEnded,
)
from shared.speech.sealed_native import SealedNative
from shared.wire.sealed.sealed_link import SealedLink
from tests.shared.wire.sealed.links import NOW_S, end, identity

ID, OTHER = b"0123456789abcdef", b"fedcba9876543210"
ASK = RequestChunk("chunk-x")


def speech(seal: SealedLink) -> SealedNative:
    return SealedNative(seal, ByteBudget(MAX_LINK_BYTES), 0.0, NOW_S)


def carry(source: SealedNative, target: SealedNative, now: float = 0.0) -> int:
    """Hand over everything that is ready. Returns: how many records."""
    count = 0
    while (record := source.next_record()) is not None:
        target.receive_record(record, now)
        count += 1
    return count


def settle(one: SealedNative, two: SealedNative) -> None:
    while carry(one, two) + carry(two, one):
        pass


def open_pair() -> tuple[SealedNative, SealedNative]:
    near, far = speech(end("alice", dialer=True, expected_key=identity("bob"))), speech(end("bob", dialer=False))
    settle(near, far)
    assert near.events() == [PeerProved(member_token(identity("bob")))]
    assert far.events() == [PeerProved(member_token(identity("alice")))]
    return near, far


def answering(body_bytes: int) -> tuple[SealedNative, SealedNative]:
    """Far has begun to answer near's request."""
    near, far = open_pair()
    near.ask(ID, ASK, 5000, "", 0.0)
    carry(near, far)
    assert far.events() == [RequestReceived(ID, ASK, 5000, "")]
    far.answer(ID, ChunkData("chunk-x", 0, 1, 5, b"i" * 12, "text/plain", "x"), body_bytes)
    return near, far


def test_nothing_is_said_before_the_peer_is_proved_and_nothing_is_lost_by_that() -> None:
    near, far = speech(end("alice", dialer=True)), speech(end("bob", dialer=False))
    far.goodbye()
    assert far.next_record() is None
    assert far.has_more_to_send()
    settle(near, far)
    assert near.events()[-1] == PeerLeft()
    assert not far.has_more_to_send()


def test_a_body_is_taken_as_there_is_room_and_arrives_whole() -> None:
    body = bytes(range(256)) * 4096
    near, far = answering(len(body))
    view, rounds = memoryview(body), 0
    while len(view):
        taken = far.take_body(ID, view)
        assert taken <= native_queues.BODY_QUEUE_BYTES
        assert far.take_body(ID, view[taken:]) == 0 or taken == len(view), "the queue is full"
        view, rounds = view[taken:], rounds + 1
        carry(far, near)
    assert rounds > 1
    received = [event for event in near.events() if isinstance(event, AnswerReceived)]
    assert [event.body for event in received] == [body]
    assert far.open_requests() == []


def test_small_frames_go_ahead_of_bodies() -> None:
    near, far = answering(200_000)
    carry(far, near)
    near.events()
    far.take_body(ID, memoryview(bytes(200_000)))
    far.goodbye()
    record = far.next_record()
    assert record is not None
    near.receive_record(record, 0.0)
    assert near.events() == [PeerLeft()]


def test_a_body_for_a_request_that_was_cancelled_goes_nowhere() -> None:
    near, far = answering(100)
    near.cancel(ID)
    carry(near, far)
    assert far.take_body(ID, memoryview(bytes(100))) == 100
    carry(far, near)
    assert not [event for event in near.events() if isinstance(event, AnswerReceived | AnswerProgressed)]
    assert near.asked_count == 0


def test_no_body_is_longer_than_any_may_be() -> None:
    near, far = answering(0)
    near.ask(OTHER, ASK, 5000, "", 0.0)
    carry(near, far)
    with pytest.raises(SwarmbridgeError) as refusal:
        far.answer(OTHER, NotFound("chunk-x"), MAX_BODY_BYTES + 1)
    assert refusal.value.cause is Cause.TOO_LARGE
    assert far.open_requests() == [OTHER]


def test_a_handshake_that_does_not_end_ends_the_link() -> None:
    near = speech(end("alice", dialer=True))
    assert near.next_deadline() == sealed_native.HANDSHAKE_TIMEOUT_S
    near.handle_timer(sealed_native.HANDSHAKE_TIMEOUT_S - 0.1)
    assert near.events() == []
    near.handle_timer(sealed_native.HANDSHAKE_TIMEOUT_S)
    assert near.events() == [SpeechEnded(Cause.UNAUTHENTICATED)]


def test_a_peer_that_does_not_read_ends_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_queues, "CONTROL_QUEUE_FRAMES", 4)
    near, _ = open_pair()
    for _ in range(5):
        near.goodbye()
    assert near.events() == [SpeechEnded(Cause.BUSY)]


def test_a_closed_link_gives_back_what_reassembly_had_reserved() -> None:
    budget = ByteBudget(MAX_LINK_BYTES)
    near, far = SealedNative(end("alice", dialer=True), budget, 0.0, NOW_S), speech(end("bob", dialer=False))
    settle(near, far)
    near.ask(ID, ASK, 5000, "", 0.0)
    carry(near, far)
    far.answer(ID, ChunkData("chunk-x", 0, 1, 5, b"i" * 12, "text/plain", "x"), 1000)
    carry(far, near)
    assert budget.used_bytes == 1000
    near.close()
    assert budget.used_bytes == 0
    assert near.next_record() is None


def test_a_record_that_was_tampered_with_is_the_end() -> None:
    near, far = open_pair()
    near.goodbye()
    record = near.next_record()
    assert record is not None
    with pytest.raises(RemoteProtocolError) as refusal:
        far.receive_record(bytes([record[0] ^ 1]) + record[1:], 0.0)
    assert refusal.value.cause is Cause.UNAUTHENTICATED
    far.goodbye()
    assert far.next_record() is None


def test_the_wall_clock_goes_on_with_the_link() -> None:
    """The certificate of the other end has expired by the time its handshake message comes."""
    near, far = speech(end("alice", dialer=True)), speech(end("bob", dialer=False))
    carry(near, far)
    with pytest.raises(RemoteProtocolError):
        carry(far, near, now=4000.0)


def test_events_come_once() -> None:
    near, far = open_pair()
    far.goodbye()
    carry(far, near)
    first: list[Event] = near.events()
    assert first == [PeerLeft()]
    assert near.events() == []
