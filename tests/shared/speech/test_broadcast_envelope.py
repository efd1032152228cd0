"""A page's envelope on its BroadcastChannel: who is meant, requests both ways, and what is ignored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.content.messages import ChunkData, ManifestData, NotFound, RequestChunk, RequestManifest
from shared.content.refs import encode_base64
from shared.errors import Cause, RemoteProtocolError
from shared.ids import guest_token
from shared.speech import page_speech
from shared.speech.broadcast_envelope import MAX_QUEUED_VALUES, BroadcastEnvelope
from shared.speech.contract import (
    Announced,
    AnswerReceived,
    NamedElsewhere,
    PeerProved,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    SpeechEnded,
)
from shared.speech.page_speech import IGNORED_BURST, MAX_OPEN_REQUESTS
from shared.wire.pages.values import decode_value, encode_value

OWN, PAGE = "peer-0123456789abcdef", "peer-fedcba9876543210"
REF = f"chunk-{'a' * 64}"
ASKED = b"r" * 16
HEADER = ChunkData(REF, 0, 1, 5, bytes(12), "text/plain", "a.txt")
CHUNK = {
    "ref": REF,
    "seq": 0,
    "total": 1,
    "size": 5,
    "iv": encode_base64(bytes(12)),
    "cipher": encode_base64(b"x" * 21),
    "meta": {"mime": "text/plain", "originalName": "a.txt"},
}


def speech() -> BroadcastEnvelope:
    made = BroadcastEnvelope("page-1", OWN, 0.0, 1_700_000_000.0)
    assert made.events() == [PeerProved(guest_token("page-1"))]
    return made


def envelope(payload: dict[str, Any], /, **fields: Any) -> bytes:
    """As the page's adapter posts it."""
    message = {"type": "chunk", "payload": payload, "from": PAGE, "target": OWN, "transport": "webtorrent"}
    return encode_value({**message, **fields})


def asks(request_id: str = "q", ref: str = REF) -> dict[str, Any]:
    return {"type": "request_chunk", "requestId": request_id, "hash": ref}


def heard(made: BroadcastEnvelope) -> list[Any]:
    """Its events, without the name that comes with a page's first words."""
    return [event for event in made.events() if not isinstance(event, NamedElsewhere)]


def said(made: BroadcastEnvelope) -> list[Any]:
    found = []
    while (record := made.next_record()) is not None:
        found.append(decode_value(record))
    return found


@contextmanager
def no_patience() -> Iterator[None]:
    """Of speeches made within, the first message that means nothing to us ends the link."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_speech, "IGNORED_BURST", 0.0)
        yield


def is_ignored(made: BroadcastEnvelope, record: bytes) -> bool:
    """Whether a record ends a link without patience, and nothing else comes of it."""
    try:
        made.receive_record(record, 0.0)
    except RemoteProtocolError as error:
        return (error.cause, made.events(), said(made)) == (Cause.RATE_LIMITED, [], [])
    return False


def test_a_page_asks_for_a_chunk_and_gets_it_named_as_the_target() -> None:
    made = speech()
    made.receive_record(envelope(asks()), 1.0)
    [event] = heard(made)
    assert isinstance(event, RequestReceived)
    assert event.request == RequestChunk(REF)
    made.answer(event.request_id, HEADER, 21)
    assert made.take_body(event.request_id, memoryview(b"x" * 21)) == 21
    [answer] = said(made)
    assert (answer["type"], answer["from"], answer["target"], answer["transport"]) == ("chunk", OWN, PAGE, "webtorrent")
    assert answer["payload"] == {"type": "chunk_data", "requestId": "q", "hash": REF, "chunk": CHUNK}
    assert made.open_requests() == []
    assert not made.has_more_to_send()


def test_a_manifest_and_what_is_not_here() -> None:
    made = speech()
    made.receive_record(envelope({"type": "request_manifest", "requestId": "m", "hash": "file-1"}), 1.0)
    made.receive_record(envelope(asks("none")), 1.0)
    one, two = heard(made)
    assert isinstance(one, RequestReceived)
    assert isinstance(two, RequestReceived)
    assert one.request == RequestManifest("file-1")
    made.answer(one.request_id, ManifestData("file-1"), 2)
    made.take_body(one.request_id, memoryview(b"{}"))
    made.fail(two.request_id, Cause.BUSY)
    payloads = {each["payload"]["requestId"]: each["payload"]["type"] for each in said(made)}
    assert payloads == {"m": "manifest_data", "none": "chunk_not_found"}


@pytest.mark.parametrize(
    "fields",
    [{"from": OWN}, {"target": "peer-somebody"}, {"from": None}, {"from": 5}, {"target": 7}, {"payload": "x"}],
    ids=["own", "for another", "nobody's", "no text", "no target", "no payload"],
)
def test_our_own_and_what_is_for_others_is_ignored(fields: dict[str, Any]) -> None:
    with no_patience():
        assert is_ignored(speech(), envelope(asks(), **fields))


@pytest.mark.parametrize("target", [None, "", OWN])
def test_a_message_to_all_or_to_us_is_heard(target: str | None) -> None:
    made = speech()
    made.receive_record(envelope(asks(), target=target), 1.0)
    assert len(heard(made)) == 1


def test_we_ask_a_page_and_it_serves() -> None:
    with no_patience():
        made = speech()
    made.ask(ASKED, RequestChunk(REF), 1000, "", 0.0)
    [request] = said(made)
    assert request["payload"] == {"type": "request_chunk", "requestId": ASKED.hex(), "hash": REF}
    assert "target" not in request, "it has not said who it is: to all, which is it"
    answer = envelope({"type": "chunk_data", "requestId": ASKED.hex(), "hash": REF, "chunk": CHUNK})
    made.receive_record(answer, 0.0)
    assert heard(made) == [AnswerReceived(ASKED, HEADER, b"x" * 21)]
    assert is_ignored(made, answer), "once"


def test_what_a_page_does_not_have_and_what_is_no_chunk() -> None:
    made = speech()
    answers: list[dict[str, Any]] = [{"type": "chunk_not_found"}, {"type": "chunk_data", "chunk": {"ref": 1}}]
    for number, payload in enumerate(answers):
        made.ask(bytes([number]) * 16, RequestChunk(REF), 1000, "", 1.0)
        made.receive_record(envelope({**payload, "requestId": (bytes([number]) * 16).hex(), "hash": REF}), 1.0)
    assert heard(made) == [
        AnswerReceived(bytes(16), NotFound(REF), b""),
        RequestFailed(b"\x01" * 16, Cause.INVALID),
    ]


def test_a_page_announces_and_so_do_we() -> None:
    made = speech()
    made.receive_record(envelope({"availableContent": ["file-1"]}, type="announce", target=None), 1.0)
    assert heard(made) == [Announced(("file-1",))]
    made.announce(["file-2"])
    assert said(made)[0]["payload"]["availableContent"] == ["file-2"]


def test_a_request_that_is_said_again_is_one_request() -> None:
    made = speech()
    made.receive_record(envelope(asks()), 1.0)
    made.receive_record(envelope(asks()), 1.0)
    assert len(heard(made)) == 1


def test_requests_and_what_waits_are_bounded() -> None:
    made = speech()
    for number in range(MAX_OPEN_REQUESTS + 1):
        made.receive_record(envelope(asks(f"q{number}")), 1.0)
    assert heard(made)[-1] == RequestRefused(Cause.BUSY)
    for _ in range(MAX_QUEUED_VALUES + 1):
        made.announce(["file"])
    assert SpeechEnded(Cause.BUSY) in heard(made)


def test_a_manifest_that_no_post_can_carry_is_not_here() -> None:
    made = speech()
    made.receive_record(envelope({"type": "request_manifest", "requestId": "m", "hash": "file-1"}), 1.0)
    [event] = heard(made)
    assert isinstance(event, RequestReceived)
    body = b'{"a":"' + b"x" * 2_000_000 + b'"}'
    made.answer(event.request_id, ManifestData("file-1"), len(body))
    made.take_body(event.request_id, memoryview(body))
    assert [each["payload"]["type"] for each in said(made)] == ["manifest_not_found"]


def test_a_flood_of_nothing_ends_the_link_and_others_talk_does_not() -> None:
    made = speech()
    with pytest.raises(RemoteProtocolError) as error:
        for _ in range(int(IGNORED_BURST) + 1):
            made.receive_record(b"\xc0", 1.0)
    assert error.value.cause is Cause.RATE_LIMITED
    made = speech()
    for second in range(200):
        for _ in range(40):
            made.receive_record(envelope(asks(), target="peer-somebody"), float(second))


@given(st.binary(max_size=200))
def test_arbitrary_records_are_ignored(record: bytes) -> None:
    with no_patience():
        assert is_ignored(speech(), record)


def test_it_says_what_it_is() -> None:
    made = speech()
    assert (made.acks, made.confirms, made.next_deadline(), made.claimed_key) == (False, True, None, b"")
    made.goodbye(Cause.DRAINING)
    assert said(made) == []


def test_a_page_that_says_who_it_is_elsewhere_is_passed_on_once() -> None:
    made = speech()
    made.receive_record(envelope(asks("q1")), 0.0)
    made.receive_record(envelope(asks("q2")), 0.0)
    assert [event for event in made.events() if isinstance(event, NamedElsewhere)] == [NamedElsewhere(PAGE)]
    made.receive_record(envelope(asks("q3"), **{"from": "peer-another"}), 0.0)
    assert [event for event in made.events() if isinstance(event, NamedElsewhere)] == [NamedElsewhere("peer-another")]
