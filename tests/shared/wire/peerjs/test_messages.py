"""Signalling messages: vectors by hand from the protocol's facts, then the codec properties."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Cause, RemoteProtocolError
from shared.wire.peerjs.messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    AnswerPayload,
    Candidate,
    CandidatePayload,
    Error,
    ErrorText,
    Expire,
    Heartbeat,
    IceCandidate,
    IdTaken,
    InvalidKey,
    Leave,
    Message,
    Offer,
    OfferPayload,
    Open,
    SessionDescription,
    decode_message,
    decode_relayed,
    encode_message,
)

# What peerjs 1.5 puts on the wire, field for field.
BROWSER_OFFER = (
    '{"type":"OFFER","payload":{"sdp":{"type":"offer","sdp":"v=0\\r\\n"},"type":"data",'
    '"connectionId":"dc_k2v0mzp9a1","metadata":{"userId":"ada"},"label":"dc_k2v0mzp9a1","reliable":true,'
    '"serialization":"binary","browser":"chrome"},"dst":"peer-0123456789abcdef","src":"guest-1"}'
)
BROWSER_CANDIDATE = (
    '{"type":"CANDIDATE","payload":{"candidate":{"candidate":"candidate:1 1 udp 1 x.local 9 typ host",'
    '"sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"abcd"},"type":"data","connectionId":"dc_1"},"dst":"b"}'
)


def test_browser_offer_is_read_with_its_payload() -> None:
    message = decode_message(BROWSER_OFFER)
    assert message == Offer(
        payload=OfferPayload(
            sdp=SessionDescription("offer", "v=0\r\n"),
            connection_id="dc_k2v0mzp9a1",
            metadata={"userId": "ada"},
            label="dc_k2v0mzp9a1",
            reliable=True,
            serialization="binary",
        ),
        src="guest-1",
        dst="peer-0123456789abcdef",
    )


def test_browser_candidate_keeps_every_field() -> None:
    message = decode_message(BROWSER_CANDIDATE)
    assert isinstance(message, Candidate)
    assert message.payload.candidate == IceCandidate("candidate:1 1 udp 1 x.local 9 typ host", "0", 0, "abcd")
    assert json.loads(encode_message(message)) == json.loads(BROWSER_CANDIDATE)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Open(), '{"type":"OPEN"}'),
        (Heartbeat(), '{"type":"HEARTBEAT"}'),
        (IdTaken(ErrorText("ID is taken")), '{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}'),
        (
            InvalidKey(ErrorText("Invalid key provided")),
            '{"type":"INVALID-KEY","payload":{"msg":"Invalid key provided"}}',
        ),
        (Error(ErrorText("no")), '{"type":"ERROR","payload":{"msg":"no"}}'),
        (Leave(src="a", dst="b"), '{"type":"LEAVE","src":"a","dst":"b"}'),
        (Expire(src="gone", dst="b"), '{"type":"EXPIRE","src":"gone","dst":"b"}'),
        (
            Answer(AnswerPayload(SessionDescription("answer", "v=0"), "dc_1"), dst="b"),
            '{"type":"ANSWER","payload":{"sdp":{"type":"answer","sdp":"v=0"},"connectionId":"dc_1","type":"data"},'
            '"dst":"b"}',
        ),
    ],
)
def test_vectors_both_ways(message: Message, text: str) -> None:
    assert encode_message(message) == text
    assert decode_message(text) == message
    assert decode_message(text.encode()) == message


def test_server_errors_may_come_without_text() -> None:
    assert decode_message('{"type":"ERROR"}') == Error()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '{"type":"NOPE"}',
        '{"type":1}',
        '{"payload":{}}',
        BROWSER_OFFER.replace('"type":"data"', '"type":"media"'),
        BROWSER_OFFER.replace('"reliable":true', '"reliable":"yes"'),
        BROWSER_OFFER.replace("dc_k2v0mzp9a1", ""),
        BROWSER_OFFER.replace("guest-1", "g" * 65),
        BROWSER_CANDIDATE.replace('"sdpMLineIndex":0', '"sdpMLineIndex":"0"'),
        '{"type":"OPEN","x":' + "[" * 60_000,
        '{"type":"OPEN","x":"\ud800"}',
        b'{"type":"OPEN","x":"\xff"}',
    ],
)
def test_broken_messages_are_the_peers_fault(text: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(text)
    assert caught.value.cause is Cause.INVALID


def test_a_server_refuses_more_than_64_kib_and_clients_take_what_it_adds() -> None:
    frame = '{"type":"OFFER","payload":"","dst":"b"}'
    full = frame.replace('""', '"' + "x" * (MAX_MESSAGE_BYTES - len(frame)) + '"')
    relayed = decode_relayed(full)
    with pytest.raises(RemoteProtocolError) as caught:
        decode_relayed(full + " ")
    assert caught.value.cause is Cause.TOO_LARGE
    assert len(encode_message(relayed)) == MAX_MESSAGE_BYTES
    longest = '{"type":"OPEN"}' + " " * MAX_MESSAGE_BYTES
    assert decode_message(longest) == Open()


def test_relayed_payload_is_passed_on_byte_for_byte() -> None:
    text = '{"type":"OFFER","dst":"b","payload":{"sdp" : [1,  2.50, "\\u0041"]}}'
    assert encode_message(decode_relayed(text)) == text
    assert encode_message(decode_relayed('{"type":"LEAVE","dst":"b"}')) == '{"type":"LEAVE","dst":"b"}'


ids = st.text(max_size=64)
connection_ids = st.text(min_size=1, max_size=128)
words = st.text(max_size=50)
metadata = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
offers = st.builds(
    OfferPayload,
    sdp=st.builds(SessionDescription, type=st.just("offer"), sdp=words),
    connection_id=connection_ids,
    metadata=metadata,
    label=words,
    reliable=st.booleans(),
    serialization=words,
)
candidates = st.builds(
    CandidatePayload,
    candidate=st.builds(
        IceCandidate,
        candidate=words,
        sdp_mid=st.none() | words,
        sdp_m_line_index=st.none() | st.integers(0, 9),
        username_fragment=st.none() | words,
    ),
    connection_id=connection_ids,
)
messages = st.one_of(
    st.builds(Offer, payload=offers, src=ids, dst=ids),
    st.builds(Candidate, payload=candidates, src=ids, dst=ids),
    st.builds(Leave, src=ids, dst=ids),
    st.builds(Error, payload=st.builds(ErrorText, msg=words)),
)


@settings(max_examples=100)
@given(messages)
def test_encode_then_decode_is_the_identity(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.text(max_size=200) | metadata.map(json.dumps))
def test_arbitrary_input_raises_nothing_else(data: bytes | str) -> None:
    for decode in (decode_message, decode_relayed):
        try:
            decode(data)
        except RemoteProtocolError:
            continue
