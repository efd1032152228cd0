"""Pages in both dialects, held to what the real client has said and to what it does with an answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.content.messages import MAX_ANNOUNCED, ChunkData, ManifestData, NotFound, RequestChunk, RequestManifest
from shared.errors import Cause, RemoteProtocolError
from shared.ids import guest_token
from shared.speech import page_speech, peerjs
from shared.speech.budget import MAX_LINK_BYTES, ByteBudget
from shared.speech.contract import (
    Announced,
    AnswerReceived,
    Event,
    PeerLeft,
    PeerProved,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    SpeechEnded,
)
from shared.speech.peerjs import MANAGER, MESH, PeerjsSpeech
from shared.wire.peerjs.chunking import Joiner, ValueReceived, encode_close, split_value
from tests.shared.content.space_vectors import VECTORS

WIRE: list[dict[str, Any]] = [each["message"] for each in VECTORS["chunk_protocol_wire"]]
ASK_CHUNK, CHUNK_DATA, ASK_MISSING, CHUNK_MISSING, ASK_MANIFEST, MANIFEST_DATA, _, MANIFEST_MISSING = WIRE
CHUNK: dict[str, Any] = CHUNK_DATA["chunk"]
REF, FILE_ID = CHUNK["ref"], MANIFEST_DATA["hash"]
OWN_ID, PAGE_ID = "peer-0123456789abcdef", "peer-fedcba9876543210"
NOW_S = 1_800_000_000.0
HEADER = ChunkData(REF, 0, 1, 11, b"\x08\x08\xf9\x14 \xc0\xbb\xb8\xe9\r\x1e;", "text/plain", "hello.txt")
ID = b"0123456789abcdef"


def page(hint: str | None = None, budget: ByteBudget | None = None) -> PeerjsSpeech:
    speech = PeerjsSpeech(PAGE_ID, OWN_ID, budget or ByteBudget(MAX_LINK_BYTES), 0.0, NOW_S, hint)
    assert speech.events() == [PeerProved(guest_token(PAGE_ID))]
    return speech


def hear(speech: PeerjsSpeech, value: Any, now: float = 0.0) -> list[Event]:
    for record in split_value(value, 1):
        speech.receive_record(record, now)
    return speech.events()


def said(speech: PeerjsSpeech) -> list[Any]:
    """The values that go to the page, put together as it does."""
    joiner, values = Joiner(), []
    while (record := speech.next_record()) is not None:
        assert len(record) <= 65_535
        event = joiner.receive_frame(record, 0.0)
        if isinstance(event, ValueReceived):
            values.append(event.value)
    return values


def manager(payload: dict[str, Any], kind: str = "chunk") -> dict[str, Any]:
    return {"type": kind, "payload": payload, "from": "whoever", "timestamp": 1}


def mesh(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields, "from": "whoever"})


# ── the manager dialect, as the real client wrote it ──


def test_what_a_page_asks_is_answered_as_a_page_answers() -> None:
    speech = page()
    [request] = hear(speech, manager(ASK_CHUNK))
    assert isinstance(request, RequestReceived)
    assert (request.request, request.remaining_ms) == (RequestChunk(REF), 30_000)
    cipher = decode(CHUNK["cipher"])
    speech.answer(request.request_id, HEADER, len(cipher))
    assert speech.take_body(request.request_id, memoryview(cipher)[:5]) == 5
    assert said(speech) == [], "not before it is whole"
    speech.take_body(request.request_id, memoryview(cipher)[5:])
    [message] = said(speech)
    assert message["payload"] == CHUNK_DATA
    assert (message["type"], message["from"], message["timestamp"]) == ("chunk", OWN_ID, NOW_S * 1000)
    assert speech.open_requests() == []


def test_a_manifest_goes_out_with_every_field() -> None:
    speech = page()
    [request] = hear(speech, manager(ASK_MANIFEST))
    assert isinstance(request, RequestReceived)
    assert request.request == RequestManifest(FILE_ID)
    body = json.dumps({**MANIFEST_DATA["manifest"], "unknown": [1, None, {"a": "ü"}]}).encode()
    speech.answer(request.request_id, ManifestData(FILE_ID), len(body))
    speech.take_body(request.request_id, memoryview(body))
    [message] = said(speech)
    assert message["payload"]["manifest"] == json.loads(body)


def test_what_we_ask_and_what_the_page_answers() -> None:
    speech = page(MANAGER)
    speech.ask(ID, RequestChunk(REF), 5000, "", 0.0)
    [asked] = said(speech)
    assert asked["payload"] == {**ASK_CHUNK, "requestId": ID.hex()}
    [answer] = hear(speech, manager({**CHUNK_DATA, "requestId": ID.hex()}))
    assert answer == AnswerReceived(ID, HEADER, decode(CHUNK["cipher"]))
    assert hear(speech, manager({**CHUNK_DATA, "requestId": ID.hex()})) == [], "once"
    speech.ask(ID, RequestManifest(FILE_ID), 5000, "", 0.0)
    [answer] = hear(speech, manager({**MANIFEST_DATA, "requestId": ID.hex()}))
    assert isinstance(answer, AnswerReceived)
    assert json.loads(answer.body) == MANIFEST_DATA["manifest"]


@pytest.mark.parametrize("message", [CHUNK_MISSING, MANIFEST_MISSING])
def test_what_a_page_lacks(message: dict[str, Any]) -> None:
    speech = page(MANAGER)
    speech.ask(ID, RequestChunk(REF), 5000, "", 0.0)
    assert hear(speech, manager({**message, "requestId": ID.hex()})) == [AnswerReceived(ID, NotFound(REF), b"")]


def test_what_we_lack_is_said_in_the_pages_own_words() -> None:
    speech = page()
    hear(speech, manager({**ASK_CHUNK, "requestId": "r"}))
    [request_id] = speech.open_requests()
    speech.fail(request_id, Cause.BUSY)
    [message] = said(speech)
    assert message["payload"] == {**CHUNK_MISSING, "requestId": "r", "hash": REF}
    hear(speech, manager(ASK_MISSING))
    [message] = said(speech)
    assert message["payload"] == CHUNK_MISSING, "a ref of another form, at once, and nobody is asked"


def test_ping_pong_and_announcements_of_the_manager() -> None:
    speech = page()
    hear(speech, manager({"sentAt": 17}, "ping"))
    [pong] = said(speech)
    assert (pong["type"], pong["payload"]) == ("pong", {"sentAt": 17, "receivedAt": NOW_S * 1000})
    held = [FILE_ID, "", 5, "x" * 500]
    assert hear(speech, manager({"availableContent": held}, "announce")) == [Announced((FILE_ID,))]
    speech.announce([FILE_ID])
    [announce] = said(speech)
    assert announce["payload"]["availableContent"] == [FILE_ID]


# ── the mesh dialect ──


def test_the_mesh_asks_and_is_answered() -> None:
    speech = page()
    text = mesh("chunk-request", chunkRef=REF, requestId="r1")
    [request] = hear(speech, text)
    assert isinstance(request, RequestReceived)
    assert (request.request, request.remaining_ms) == (RequestChunk(REF), 10_000)
    cipher = decode(CHUNK["cipher"])
    speech.answer(request.request_id, HEADER, len(cipher))
    speech.take_body(request.request_id, memoryview(cipher))
    [answer] = said(speech)
    expected = {"type": "chunk-response", "requestId": "r1", "chunkRef": REF, "found": True, "chunk": CHUNK}
    assert json.loads(answer) == {**expected, "from": OWN_ID}
    hear(speech, mesh("manifest-request", manifestId=FILE_ID, requestId="r2"))
    speech.fail(speech.open_requests()[0], Cause.FORBIDDEN)
    [answer] = said(speech)
    expected = {"type": "manifest-response", "requestId": "r2", "manifestId": FILE_ID, "found": False}
    assert json.loads(answer) == {**expected, "from": OWN_ID}


def test_the_mesh_is_asked_and_answers() -> None:
    speech = page(MESH)
    speech.ask(ID, RequestChunk(REF), 5000, "", 0.0)
    [asked] = said(speech)
    assert json.loads(asked) == {"type": "chunk-request", "chunkRef": REF, "requestId": ID.hex(), "from": OWN_ID}
    answer = mesh("chunk-response", requestId=ID.hex(), chunkRef=REF, found=True, chunk=CHUNK)
    assert hear(speech, answer) == [AnswerReceived(ID, HEADER, decode(CHUNK["cipher"]))]
    speech.ask(ID, RequestManifest(FILE_ID), 5000, "", 0.0)
    answer = mesh("manifest-response", requestId=ID.hex(), manifestId=FILE_ID, found=False)
    assert hear(speech, answer) == [AnswerReceived(ID, NotFound(FILE_ID), b"")]


def test_keepalives_and_announcements_of_the_mesh() -> None:
    speech = page()
    hear(speech, mesh("heartbeat"))
    hear(speech, mesh("ping", ts=17))
    ack, pong = map(json.loads, said(speech))
    assert ack == {"type": "heartbeat-ack", "ts": NOW_S * 1000, "from": OWN_ID}
    assert pong == {"type": "pong", "echoTs": 17, "from": OWN_ID}
    assert hear(speech, mesh("seeding-available", manifestId=FILE_ID, peerId="x")) == [Announced((FILE_ID,))]
    speech.announce([FILE_ID, "file-2"])
    values = [json.loads(value) for value in said(speech)]
    assert [(value["type"], value["manifestId"]) for value in values] == [
        ("seeding-available", FILE_ID),
        ("seeding-available", "file-2"),
    ]


# ── which of the two ──


@pytest.mark.parametrize("hint", [None, MANAGER, MESH])
def test_the_first_message_decides_and_until_then_both_are_spoken(hint: str | None) -> None:
    speech = page(hint)
    speech.announce([FILE_ID])
    speech.ask(ID, RequestChunk(REF), 5000, "", 0.0)
    early = said(speech)
    kinds = [value["type"] if isinstance(value, dict) else json.loads(value)["type"] for value in early]
    in_manager, in_mesh = ["announce", "chunk"], ["seeding-available", "chunk-request"]
    expected = in_manager * (hint != MESH) + in_mesh * (hint != MANAGER)
    assert sorted(kinds) == sorted(expected)
    hear(speech, mesh("content-inventory", ids=[]))
    hear(speech, mesh("ping", ts=1))
    late = [json.loads(value)["type"] for value in said(speech)]
    assert late[-1] == "pong", "in the dialect that it speaks"
    if hint == MANAGER:  # its OFFER named another; it is said again in words that it knows
        assert late == ["chunk-request", "seeding-available", "pong"]
    else:
        assert late == ["pong"]


# ── over the other serializations ──


@pytest.mark.parametrize("serialization", ["json", "raw"])
@pytest.mark.parametrize("dialect", [MANAGER, MESH])
def test_a_small_chunk_crosses_in_json(serialization: str, dialect: str) -> None:
    speech = PeerjsSpeech(PAGE_ID, OWN_ID, ByteBudget(MAX_LINK_BYTES), 0.0, NOW_S, None, serialization)
    speech.events()
    ask = manager(ASK_CHUNK) if dialect == MANAGER else json.loads(mesh("chunk-request", chunkRef=REF, requestId="r"))
    speech.receive_record(json.dumps(ask).encode(), 0.0)
    [request] = speech.events()
    assert isinstance(request, RequestReceived)
    cipher = decode(CHUNK["cipher"])
    speech.answer(request.request_id, HEADER, len(cipher))
    speech.take_body(request.request_id, memoryview(cipher))
    record = speech.next_record()
    assert record is not None
    message = json.loads(record)
    if isinstance(message, str):  # mesh over `json`: its text is a JSON string
        message = json.loads(message)
    assert (message["payload"] if dialect == MANAGER else message)["chunk"] == CHUNK


@pytest.mark.parametrize("serialization", ["json", "raw"])
def test_a_chunk_too_long_for_one_message_is_not_found(serialization: str) -> None:
    speech = PeerjsSpeech(PAGE_ID, OWN_ID, ByteBudget(MAX_LINK_BYTES), 0.0, NOW_S, None, serialization)
    speech.events()
    speech.receive_record(mesh("chunk-request", chunkRef=REF, requestId="r").encode(), 0.0)
    [request] = speech.events()
    assert isinstance(request, RequestReceived)
    speech.answer(request.request_id, HEADER, 2**20)
    speech.take_body(request.request_id, memoryview(bytes(2**20)))
    record = speech.next_record()
    assert record is not None
    assert len(record) < 1000
    assert speech.next_record() is None


def test_closing_over_json_and_what_raw_cannot_say() -> None:
    close = b'{"__peerData":{"type":"close"}}'
    for serialization, ends in (("json", True), ("raw", False)):
        speech = PeerjsSpeech(PAGE_ID, OWN_ID, ByteBudget(MAX_LINK_BYTES), 0.0, NOW_S, None, serialization)
        speech.events()
        speech.goodbye(Cause.DRAINING)
        assert (speech.next_record() == close) is ends
        speech.receive_record(close, 0.0)
        assert (speech.events() == [PeerLeft(Cause.CLOSED)]) is ends
        speech.receive_record(b"\xff" if serialization == "raw" else b"1", 0.0)
        with pytest.raises(RemoteProtocolError):
            speech.receive_record(bytes(262_145), 0.0)


# ── what a stranger may do ──


def test_too_many_requests_are_not_found_at_once() -> None:
    speech = page()
    for number in range(page_speech.MAX_OPEN_REQUESTS):
        assert len(hear(speech, mesh("chunk-request", chunkRef=REF, requestId=f"r{number}"))) == 1
    assert hear(speech, mesh("chunk-request", chunkRef=REF, requestId="one more")) == [RequestRefused(Cause.BUSY)]
    [answer] = said(speech)
    assert json.loads(answer)["found"] is False


@pytest.mark.parametrize("value", [mesh("profile-exchange"), mesh("heartbeat"), {"type": "gossip"}, 5, None, "{", []])
def test_a_flood_of_what_means_nothing_ends_the_link(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_speech, "IGNORED_BURST", 20.0)
    speech = page()
    with pytest.raises(RemoteProtocolError) as refusal:
        for _ in range(30):
            hear(speech, value)
            said(speech)
    assert refusal.value.cause is Cause.RATE_LIMITED


@pytest.mark.parametrize(
    "change",
    [
        {"iv": "AAAA"},
        {"cipher": "not base64"},
        {"cipher": CHUNK["cipher"][:-1]},
        {"seq": -1},
        {"seq": True},
        {"size": 1.5},
        {"ref": 7},
        {"meta": [1]},
        {"meta": {"mime": "x" * 5000}},
    ],
)
def test_a_chunk_out_of_shape_fails_its_request_and_not_the_link(change: dict[str, Any]) -> None:
    speech = page(MANAGER)
    speech.ask(ID, RequestChunk(REF), 5000, "", 0.0)
    answer = {**CHUNK_DATA, "requestId": ID.hex(), "chunk": {**CHUNK, **change}}
    assert hear(speech, manager(answer)) == [RequestFailed(ID, Cause.INVALID)]
    assert speech.asked_count == 0


@pytest.mark.parametrize("value", [{"a": b"raw"}, {"a": float("nan")}, [], "text"])
def test_a_manifest_that_json_cannot_hold_fails_its_request(value: Any) -> None:
    speech = page(MANAGER)
    speech.ask(ID, RequestManifest(FILE_ID), 5000, "", 0.0)
    answer = {"type": "manifest_data", "requestId": ID.hex(), "hash": FILE_ID, "manifest": value}
    assert hear(speech, manager(answer)) == [RequestFailed(ID, Cause.INVALID)]


def test_what_is_being_joined_is_within_the_budget_and_given_back() -> None:
    budget = ByteBudget(40_000)
    speech = page(budget=budget)
    slices = split_value({"big": bytes(100_000)}, 1)
    speech.receive_record(slices[0], 0.0)
    assert budget.used_bytes > 16_000
    speech.handle_timer(31.0)
    assert budget.used_bytes == 0, "too old"
    with pytest.raises(RemoteProtocolError) as refusal:
        for record in slices:
            speech.receive_record(record, 32.0)
    assert refusal.value.cause is Cause.BUSY
    speech.close()
    assert budget.used_bytes == 0


def test_a_page_that_does_not_read_ends_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peerjs, "MAX_QUEUED_VALUES", 2)
    speech = page(MESH)
    speech.announce(["a", "b", "c"])
    assert speech.events() == [SpeechEnded(Cause.BUSY)]


def test_long_announcements_are_cut() -> None:
    speech = page()
    [heard] = hear(speech, manager({"availableContent": [f"file-{n}" for n in range(1000)]}, "announce"))
    assert isinstance(heard, Announced)
    assert len(heard.manifests) == MAX_ANNOUNCED


# ── life and end ──


def test_a_quiet_page_is_pinged_and_a_silent_one_is_given_up() -> None:
    speech = page(MESH)
    now, events, pings = 0.0, list[Event](), 0
    while not events:
        now = speech.next_deadline()
        speech.handle_timer(now)
        events, pings = speech.events(), pings + len(said(speech))
    assert events == [SpeechEnded(Cause.SILENT)]
    assert (now, pings) == (peerjs.SILENT_AFTER_S, 7)


def test_a_pong_is_a_round_trip_and_an_invented_one_is_not() -> None:
    speech = page(MESH)
    speech.handle_timer(8.0)
    [ping] = map(json.loads, said(speech))
    hear(speech, mesh("pong", echoTs=ping["ts"]), 8.2)
    assert speech.rtt_s == pytest.approx(0.2, abs=0.002)
    for invented in (0, -1e300, NOW_S * 2000, "x"):
        hear(speech, mesh("pong", echoTs=invented), 9.0)
    assert speech.rtt_s == pytest.approx(0.2, abs=0.002)


def test_a_close_is_heard_and_said() -> None:
    speech = page()
    speech.receive_record(encode_close(), 0.0)
    assert speech.events() == [PeerLeft(Cause.CLOSED)]
    speech.goodbye()
    assert speech.next_record() is None
    speech.goodbye(Cause.BLOCKED)
    assert speech.next_record() == encode_close()


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"pong","echoTs":1' + "0" * 400 + "}",
        '{"type":"ping","ts":1' + "0" * 400 + "}",
        '{"type":"ping","ts":{"a":"' + "x" * 1000 + '"}}',
        '{"type":"chunk-request","chunkRef":"\\ud800","requestId":"r"}',
        '{"type":"chunk-request","chunkRef":"x","requestId":"\\ud800"}',
    ],
)
def test_what_json_alone_can_spell_is_not_given_back(text: str) -> None:
    speech = page()
    assert hear(speech, text) == []
    assert all(len(value) < 200 for value in said(speech))


def test_half_a_character_in_a_chunk_fails_its_request() -> None:
    speech = page(MESH)
    speech.ask(ID, RequestChunk(REF), 5000, "", 0.0)
    chunk = {**CHUNK, "meta": {"originalName": "\ud800"}}
    answer = mesh("chunk-response", requestId=ID.hex(), found=True, chunk=chunk)
    assert hear(speech, answer) == [RequestFailed(ID, Cause.INVALID)]


@pytest.mark.parametrize("body", [b'{"originalName":"\\ud800"}', b"[]", b"no JSON"])
def test_what_cannot_be_written_for_a_page_is_not_found(body: bytes) -> None:
    speech = page()
    hear(speech, manager(ASK_MANIFEST))
    [request_id] = speech.open_requests()
    speech.answer(request_id, ManifestData(FILE_ID), len(body))
    speech.take_body(request_id, memoryview(body))
    [message] = said(speech)
    assert message["payload"]["type"] == "manifest_not_found"


def test_small_values_go_between_the_slices_of_a_body() -> None:
    speech = page()
    [request] = hear(speech, mesh("chunk-request", chunkRef=REF, requestId="r"))
    assert isinstance(request, RequestReceived)
    body = bytes(200_000)
    speech.answer(request.request_id, HEADER, len(body))
    speech.take_body(request.request_id, memoryview(body))
    first = speech.next_record()
    assert first is not None
    hear(speech, mesh("heartbeat"))
    second = speech.next_record()
    assert second is not None
    assert b"heartbeat-ack" in second
    assert speech.has_more_to_send()


FIELDS = [*CHUNK, *CHUNK_DATA, "payload", "sentAt", "availableContent"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=20,
)


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, MANAGER, MESH]))
def test_arbitrary_values_raise_only_remote_protocol_errors(values: list[Any], hint: str | None) -> None:
    speech = page(hint)
    speech.ask(ID, RequestChunk(REF), 5000, "", 0.0)
    for value in values:
        try:
            hear(speech, manager(value) if isinstance(value, dict) else value)
            said(speech)
        except RemoteProtocolError:
            return


@given(st.binary(max_size=300))
def test_arbitrary_records_raise_only_remote_protocol_errors(record: bytes) -> None:
    try:
        page().receive_record(record, 0.0)
    except RemoteProtocolError:
        return


def decode(text: str) -> bytes:
    return base64.b64decode(text)
