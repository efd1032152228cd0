"""The signalling client, driven by hand with a clock of plain numbers."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from shared.errors import Cause, LocalProtocolError, SwarmbridgeError
from shared.wire.peerjs.messages import (
    Answer,
    AnswerPayload,
    Candidate,
    CandidatePayload,
    Error,
    Expire,
    IceCandidate,
    IdTaken,
    InvalidKey,
    Leave,
    Message,
    Offer,
    OfferPayload,
    Open,
    SessionDescription,
    encode_message,
)
from shared.wire.peerjs.signalling import (
    ECHO_GRACE_S,
    HEARTBEAT_INTERVAL_S,
    MAX_EARLY_AGE_S,
    MAX_EARLY_CANDIDATES,
    MAX_EARLY_CONNECTIONS,
    MAX_QUEUED_MESSAGES,
    OPEN_GRACE_S,
    AnswerReceived,
    CandidateReceived,
    MessageRefused,
    OfferReceived,
    OfferUnusable,
    Opened,
    PeerLeft,
    PeerMissing,
    ServerRefused,
    SignallingClient,
    SignallingState,
)
from shared.wire.peerjs.urls import socket_url

OPEN = encode_message(Open())
OFFER = OfferPayload(SessionDescription("offer", "v=0"), "dc_1")
ANSWER = AnswerPayload(SessionDescription("answer", "v=0"), "dc_1")


def client(now: float = 0.0) -> SignallingClient:
    return SignallingClient("peer-0123456789abcdef", "tok en&", "peerjs", "1.5.5", now)


def candidate(number: int = 0, connection_id: str = "dc_1") -> CandidatePayload:
    return CandidatePayload(IceCandidate(f"candidate:{number}"), connection_id)


def text(message: Message) -> str:
    return encode_message(message)


def test_socket_url_escapes_what_it_is_given() -> None:
    url = urlsplit(client().socket_url("https://host:9000/base"))
    assert (url.scheme, url.netloc, url.path) == ("wss", "host:9000", "/base/peerjs")
    assert parse_qs(url.query) == {
        "key": ["peerjs"],
        "id": ["peer-0123456789abcdef"],
        "token": ["tok en&"],
        "version": ["1.5.5"],
    }
    assert "tok%20en%26" in url.query
    assert socket_url("http://h", "i", "t", "k").startswith("ws://h/peerjs?")
    for bad in ("", "host:9000", "ftp://h/", "http:///x", "http://[::1"):
        with pytest.raises(SwarmbridgeError):
            client().socket_url(bad)


def test_open_comes_once() -> None:
    machine = client()
    assert machine.next_deadline() == OPEN_GRACE_S
    assert machine.receive_text(OPEN, 0.1) == [Opened(reattached=False)]
    assert machine.receive_text(OPEN, 0.2) == []
    assert machine.handle_timer(OPEN_GRACE_S) == []
    assert machine.next_deadline() == HEARTBEAT_INTERVAL_S


def test_a_socket_without_open_is_reattached() -> None:
    machine = client()
    assert machine.handle_timer(OPEN_GRACE_S - 0.1) == []
    assert machine.handle_timer(OPEN_GRACE_S) == []
    [echo] = machine.data_to_send()
    assert machine.state is SignallingState.CONNECTING
    relayed = json.dumps({**json.loads(echo), "src": json.loads(echo)["dst"]})
    assert machine.receive_text(relayed, 1.6) == [Opened(reattached=True)]
    assert machine.receive_text(OPEN, 9.0) == []


def test_a_server_that_accepts_and_never_answers_is_silent() -> None:
    machine = client()
    assert machine.handle_timer(OPEN_GRACE_S) == []
    deadline = machine.next_deadline()
    assert deadline == OPEN_GRACE_S + ECHO_GRACE_S
    assert machine.handle_timer(deadline) == [ServerRefused(Cause.SILENT)]
    assert machine.state is SignallingState.CLOSED


def test_a_peers_message_before_open_means_reattached() -> None:
    events = client().receive_text(text(Offer(OFFER, src="a")), 0.0)
    assert events == [Opened(reattached=True), OfferReceived("a", OFFER)]


@pytest.mark.parametrize(
    ("message", "cause"),
    [(IdTaken(), Cause.ID_TAKEN), (InvalidKey(), Cause.FORBIDDEN), (Error(), Cause.REFUSED)],
)
def test_a_refusal_closes_for_good(message: Message, cause: Cause) -> None:
    machine = client()
    machine.send(Leave(dst="b"))
    assert machine.receive_text(text(message), 0.0) == [ServerRefused(cause)]
    assert machine.state is SignallingState.CLOSED
    assert machine.data_to_send() == []
    assert machine.next_deadline() is None
    assert machine.receive_text(OPEN, 1.0) == machine.handle_timer(100.0) == []
    with pytest.raises(LocalProtocolError):
        machine.send(Leave(dst="b"))


def test_heartbeats_follow_the_clock_without_bursts() -> None:
    machine = client()
    machine.receive_text(OPEN, 0.0)
    machine.handle_timer(4.9)
    assert machine.data_to_send() == []
    machine.handle_timer(5.0)
    assert machine.data_to_send() == ['{"type":"HEARTBEAT"}']
    machine.handle_timer(60.0)
    assert machine.data_to_send() == ['{"type":"HEARTBEAT"}']
    assert machine.next_deadline() == 65.0


def test_peers_messages_become_events() -> None:
    machine = client()
    machine.receive_text(OPEN, 0.0)
    machine.send(Offer(OFFER, dst="b"))
    assert machine.data_to_send() == [text(Offer(OFFER, dst="b"))]
    assert machine.receive_text(text(Answer(ANSWER, src="b")), 0.0) == [AnswerReceived("b", ANSWER)]
    assert machine.receive_text(text(Candidate(candidate(), src="b")), 0.0) == [CandidateReceived("b", candidate())]
    assert machine.receive_text(text(Leave(src="b")), 0.0) == [PeerLeft("b")]
    assert machine.receive_text(text(Expire(src="c")), 0.0) == [PeerMissing("c")]


def test_broken_messages_are_reported_and_dropped() -> None:
    machine = client()
    machine.receive_text(OPEN, 0.0)
    assert machine.receive_text("nonsense", 0.0) == [MessageRefused(Cause.INVALID)]
    assert machine.receive_text(" " * 100_000, 0.0) == [MessageRefused(Cause.TOO_LARGE)]
    assert machine.receive_text(text(Offer(OFFER)), 0.0) == [MessageRefused(Cause.INVALID)]
    assert machine.state is SignallingState.OPEN


def test_candidates_wait_for_their_offer() -> None:
    machine = client()
    machine.receive_text(OPEN, 0.0)
    for number in range(3):
        assert machine.receive_text(text(Candidate(candidate(number), src="a")), 1.0) == []
    assert machine.receive_text(text(Offer(OFFER, src="other")), 1.0) == [OfferReceived("other", OFFER)]
    assert machine.receive_text(text(Offer(OFFER, src="a")), 1.0) == [
        OfferReceived("a", OFFER),
        *(CandidateReceived("a", candidate(number)) for number in range(3)),
    ]
    assert machine.receive_text(text(Candidate(candidate(9), src="a")), 2.0) == [CandidateReceived("a", candidate(9))]


def test_waiting_candidates_are_bounded_and_aged() -> None:
    machine = client()
    machine.receive_text(OPEN, 0.0)
    for number in range(MAX_EARLY_CANDIDATES):
        machine.receive_text(text(Candidate(candidate(number), src="a")), 0.0)
    assert machine.receive_text(text(Candidate(candidate(99), src="a")), 0.0) == [MessageRefused(Cause.RATE_LIMITED)]
    for number in range(MAX_EARLY_CONNECTIONS):
        machine.receive_text(text(Candidate(candidate(0, f"dc_{number + 2}"), src="a")), 1.0)
    assert machine.receive_text(text(Offer(OFFER, src="a")), 1.0) == [OfferReceived("a", OFFER)], "oldest was dropped"
    machine.handle_timer(1.0 + MAX_EARLY_AGE_S)
    late = msgspec.structs.replace(OFFER, connection_id="dc_2")
    assert machine.receive_text(text(Offer(late, src="a")), 1.0 + MAX_EARLY_AGE_S) == [OfferReceived("a", late)]


def test_the_queue_is_bounded() -> None:
    machine = client()
    for _ in range(MAX_QUEUED_MESSAGES):
        machine.send(Leave(dst="b"))
    with pytest.raises(SwarmbridgeError) as caught:
        machine.send(Leave(dst="b"))
    assert caught.value.cause is Cause.BUSY


@pytest.mark.parametrize("payload", ['{"type":"media","connectionId":"mc_1","sdp":{"type":"offer","sdp":"v=0"}}', "5"])
def test_an_offer_of_a_call_or_out_of_form_names_who_waits_for_a_word(payload: str) -> None:
    client = SignallingClient("peer-own", "token", "peerjs", "1.5.5", 0.0)
    client.receive_text('{"type":"OPEN"}', 0.0)
    text = '{"type":"OFFER","src":"page-one","dst":"peer-own","payload":' + payload + "}"
    assert client.receive_text(text, 0.0) == [OfferUnusable("page-one")]
    assert client.receive_text(text.replace("OFFER", "ANSWER"), 0.0) == [MessageRefused(Cause.INVALID)]
