from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.content.messages import ChunkData, NotFound, RequestChunk
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.native import link as native
from shared.wire.native.frames import AnswerFrame, BodyFrame, body_frames, encode_frame
from shared.wire.native.link import (
    AnswerProgressed,
    AnswerReceived,
    NativeLink,
    PeerFellSilent,
    PeerLeft,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    RequestRefused,
)

ID = b"0123456789abcdef"
ASK = RequestChunk("chunk-x")
DATA = ChunkData("chunk-x", 0, 1, 5, b"i" * 12, "text/plain", "x")


def carry(source: NativeLink, target: NativeLink, now: float = 0.0) -> list[native.Event]:
    return [event for frame in source.frames_to_send() for event in target.receive_frame(frame, now)]


def answer_with(server: NativeLink, client: NativeLink, body: bytes, now: float = 0.0) -> list[native.Event]:
    header = server.answer(ID, DATA, len(body))
    assert header is not None
    events = client.receive_frame(header, now)
    for frame in body_frames(ID, 0, memoryview(body)):
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


def test_a_cancel_stops_the_server_and_late_bodies_are_strays() -> None:
    client, server = asked_pair()
    header = server.answer(ID, DATA, 10)
    cancel = client.cancel(ID)
    assert header is not None
    assert cancel is not None
    assert server.receive_frame(cancel, 0.0) == [RequestCancelled(ID)]
    assert not server.is_open(ID)
    assert client.receive_frame(header, 0.0) == []
    assert client.receive_frame(encode_frame(BodyFrame(ID, 0, memoryview(b"late"))), 0.0) == []
    assert client.stray_count == 2
    assert client.cancel(ID) is None


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
    events: list[native.Event] = []
    while not events:
        now = link.next_deadline()
        events = link.handle_timer(now)
    assert events == [PeerFellSilent()]
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
