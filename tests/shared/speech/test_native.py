from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.content.messages import ChunkData, NotFound, RequestChunk
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.speech import native
from shared.speech.budget import ByteBudget
from shared.speech.contract import (
    Announced,
    AnswerProgressed,
    AnswerReceived,
    Event,
    PeerLeft,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    SpeechEnded,
)
from shared.speech.native import NativeLink
from shared.wire.native.frames import (
    MAX_BODY_SLICE_BYTES,
    AckFrame,
    AnswerFrame,
    BodyFrame,
    CancelFrame,
    FailedFrame,
    Frame,
    PingFrame,
    PongFrame,
    encode_frame,
)

ID = b"0123456789abcdef"
ASK = RequestChunk("chunk-x")
DATA = ChunkData("chunk-x", 0, 1, 5, b"i" * 12, "text/plain", "x")


def carry(source: NativeLink, target: NativeLink, now: float = 0.0) -> list[Event]:
    return [event for frame in source.frames_to_send() for event in target.receive_frame(frame, now)]


def answer_with(server: NativeLink, client: NativeLink, body: bytes, now: float = 0.0) -> list[Event]:
    header = server.answer(ID, DATA, len(body))
    assert header is not None
    events = client.receive_frame(header, now)
    for at in range(0, len(body), MAX_BODY_SLICE_BYTES):
        frame = BodyFrame(ID, at, memoryview(body)[at : at + MAX_BODY_SLICE_BYTES])
        events += client.receive_frame(encode_frame(frame), now)
    server.finish(ID)
    return events


def asked_pair() -> tuple[NativeLink, NativeLink]:
    client, server = NativeLink(0.0), NativeLink(0.0)
    events = server.receive_frame(client.ask(ID, ASK, 5000, "tp", 0.0), 0.0)
    assert events == [RequestReceived(ID, ASK, 5000, "tp")]
    return client, server


def test_a_request_is_acknowledged_at_once_and_answered() -> None:
    client, server = asked_pair()
    assert carry(server, client, 0.02) == [AnswerProgressed(ID, 0)]
    assert client.rtt_s == pytest.approx(0.02)
    body = bytes(range(256)) * 600
    events = answer_with(server, client, body)
    assert events[-1] == AnswerReceived(ID, DATA, body)
    assert [event.bytes for event in events if isinstance(event, AnswerProgressed)] == [0, 65_498, 130_996]
    assert client.asked_count == 0
    assert not server.is_open(ID)


def test_an_answer_without_a_body_ends_with_its_header() -> None:
    client, server = asked_pair()
    frame = server.answer(ID, NotFound("chunk-x"), 0)
    assert frame is not None
    assert client.receive_frame(frame, 0.0) == [AnswerReceived(ID, NotFound("chunk-x"), b"")]


def test_a_refusal_carries_its_cause() -> None:
    client, server = asked_pair()
    frame = server.fail(ID, Cause.BUSY, 250)
    assert frame is not None
    assert client.receive_frame(frame, 0.0) == [RequestFailed(ID, Cause.BUSY, 250)]
    assert server.fail(ID, Cause.BUSY) is None


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first useless frame ends the link."""
    monkeypatch.setattr(native, "USELESS_BURST", 0.0)


def is_useless(link: NativeLink, frame: bytes) -> bool:
    """Whether a frame ends a link without patience."""
    try:
        assert link.receive_frame(frame, 0.0) == []
    except RemoteProtocolError as error:
        return error.cause is Cause.RATE_LIMITED
    return False


@pytest.mark.usefixtures("no_patience")
def test_a_cancel_stops_the_server_and_what_crosses_it_is_late_and_not_useless() -> None:
    client, server = asked_pair()
    header = server.answer(ID, DATA, 10)
    cancel = client.cancel(ID)
    assert header is not None
    assert cancel is not None
    assert server.receive_frame(cancel, 0.0) == [RequestCancelled(ID)]
    assert not server.is_open(ID)
    assert client.receive_frame(header, 0.0) == []
    for offset in (0, 4):
        assert not is_useless(client, encode_frame(BodyFrame(ID, offset, memoryview(b"late"))))
    assert is_useless(client, encode_frame(BodyFrame(ID, 8, memoryview(b"more than was announced"))))
    assert client.cancel(ID) is None


@pytest.mark.usefixtures("no_patience")
def test_a_cancel_that_crosses_the_answer_is_not_useless_once() -> None:
    client, server = asked_pair()
    cancel = client.cancel(ID)
    assert cancel is not None
    assert server.fail(ID, Cause.BUSY) is not None
    assert not is_useless(server, cancel)
    assert is_useless(server, cancel)


USELESS: list[Frame] = [
    AckFrame(ID),
    FailedFrame(ID, Cause.BUSY),
    AnswerFrame(ID, DATA, 4),
    BodyFrame(ID, 0, memoryview(b"x")),
    CancelFrame(ID),
    PingFrame(1),
    PongFrame(1),
]


@pytest.mark.parametrize("frame", [*map(encode_frame, USELESS), b"\xff of a later version"])
def test_a_flood_of_frames_that_mean_nothing_ends_the_link(frame: bytes) -> None:
    link = NativeLink(0.0)
    with pytest.raises(RemoteProtocolError) as refusal:
        for _ in range(int(native.USELESS_BURST) + 1):
            link.receive_frame(frame, 0.0)
    assert refusal.value.cause is Cause.RATE_LIMITED


def test_pings_of_a_whole_day_do_not() -> None:
    link = NativeLink(0.0)
    for second in range(24 * 3600):
        link.receive_frame(encode_frame(PingFrame(second)), float(second))


@pytest.mark.usefixtures("no_patience")
def test_an_answer_over_the_budget_is_busy_and_the_peer_is_notified() -> None:
    worker = ByteBudget(100)
    client, server = NativeLink(0.0, ByteBudget(80, worker)), NativeLink(0.0)
    for number in (1, 2):
        server.receive_frame(client.ask(bytes([number]) * 16, ASK, 5000, "", 0.0), 0.0)
    carry(server, client)
    first = server.answer(b"\x01" * 16, DATA, 60)
    second = server.answer(b"\x02" * 16, DATA, 60)
    assert first is not None
    assert second is not None
    client.receive_frame(first, 0.0)
    assert worker.used_bytes == 60
    assert client.receive_frame(second, 0.0) == [RequestFailed(b"\x02" * 16, Cause.BUSY, native.BUSY_RETRY_MS)]
    assert carry(client, server) == [RequestCancelled(b"\x02" * 16)]
    assert not is_useless(client, encode_frame(BodyFrame(b"\x02" * 16, 0, memoryview(bytes(60)))))
    [done] = client.receive_frame(encode_frame(BodyFrame(b"\x01" * 16, 0, memoryview(bytes(60)))), 0.0)
    assert isinstance(done, AnswerReceived)
    assert worker.used_bytes == 0


@pytest.mark.parametrize("end", ["cancel", "failed"])
def test_what_a_body_had_reserved_is_given_back(end: str) -> None:
    budget = ByteBudget(100)
    client, server = NativeLink(0.0, budget), NativeLink(0.0)
    server.receive_frame(client.ask(ID, ASK, 5000, "", 0.0), 0.0)
    header = server.answer(ID, DATA, 50)
    assert header is not None
    client.receive_frame(header, 0.0)
    if end == "cancel":
        client.cancel(ID)
    else:
        client.receive_frame(encode_frame(FailedFrame(ID, Cause.SOURCE_LOST)), 0.0)
    assert budget.used_bytes == 0


def test_an_announcement_is_heard() -> None:
    link = NativeLink(0.0)
    assert link.receive_frame(NativeLink(0.0).announce(["a", "b"]), 0.0) == [Announced(("a", "b"))]


@pytest.mark.parametrize(
    "frames",
    [
        [BodyFrame(ID, 0, memoryview(b"x"))],
        [AnswerFrame(ID, DATA, 4), BodyFrame(ID, 1, memoryview(b"x"))],
        [AnswerFrame(ID, DATA, 4), BodyFrame(ID, 0, memoryview(b"12345"))],
        [AnswerFrame(ID, DATA, 4), BodyFrame(ID, 0, memoryview(b"12")), BodyFrame(ID, 0, memoryview(b"12"))],
        [AnswerFrame(ID, DATA, 4), AnswerFrame(ID, DATA, 4)],
    ],
)
def test_a_body_out_of_place_closes_the_link(frames: list[AnswerFrame | BodyFrame]) -> None:
    client, _ = asked_pair()
    with pytest.raises(RemoteProtocolError):
        for frame in frames:
            client.receive_frame(encode_frame(frame), 0.0)


def test_one_request_id_is_asked_once() -> None:
    client, server = asked_pair()
    with pytest.raises(LocalProtocolError):
        client.ask(ID, ASK, 1, "", 0.0)
    again = NativeLink(0.0).ask(ID, ASK, 1, "", 0.0)
    assert server.receive_frame(again, 0.0) == []


def test_more_than_the_open_requests_are_refused_busy() -> None:
    client, server = NativeLink(0.0), NativeLink(0.0)
    for number in range(native.MAX_OPEN_REQUESTS):
        server.receive_frame(client.ask(number.to_bytes(16, "big"), ASK, 1, "", 0.0), 0.0)
    assert server.receive_frame(client.ask(b"\xff" * 16, ASK, 1, "", 0.0), 0.0) == [RequestRefused(Cause.BUSY)]
    assert carry(server, client)[-1] == RequestFailed(b"\xff" * 16, Cause.BUSY, 1000)


def test_a_quiet_peer_is_pinged_and_a_pong_is_life() -> None:
    one, two = NativeLink(0.0), NativeLink(0.0)
    assert one.next_deadline() == native.PING_AFTER_S
    assert one.handle_timer(1.0) == []
    assert carry(one, two, 1.05) == []
    assert carry(two, one, 1.1) == []
    assert one.rtt_s == pytest.approx(0.1)
    assert one.next_deadline() == pytest.approx(2.1)


def test_a_silent_peer_is_given_up() -> None:
    link = NativeLink(0.0)
    now = 0.0
    events: list[Event] = []
    while not events:
        now = link.next_deadline()
        events = link.handle_timer(now)
    assert events == [SpeechEnded(Cause.SILENT)]
    assert now == native.SILENT_AFTER_S
    assert len(link.frames_to_send()) == 3


def test_goodbye_is_heard() -> None:
    link = NativeLink(0.0)
    assert link.receive_frame(NativeLink(0.0).goodbye(), 0.0) == [PeerLeft()]
    assert link.receive_frame(NativeLink(0.0).goodbye(Cause.BLOCKED), 0.0) == [PeerLeft(Cause.BLOCKED)]


@given(st.lists(st.binary(max_size=120), max_size=20))
def test_arbitrary_frames_raise_only_remote_protocol_errors(frames: list[bytes]) -> None:
    link, _ = asked_pair()
    for data in frames:
        try:
            link.receive_frame(data, 0.0)
        except RemoteProtocolError:
            return
