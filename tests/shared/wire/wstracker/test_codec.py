"""Tracker messages: vectors by hand from the protocol's facts, then the codec properties."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.wstracker.codec import decode_request, decode_response, encode_request, encode_response, named_failure
from shared.wire.wstracker.hint import MAX_ENDPOINTS, wire_hint, with_wire_hint
from shared.wire.wstracker.messages import (
    MAX_INFO_HASHES,
    MAX_MESSAGE_BYTES,
    Announce,
    AnnounceReply,
    AnswerRelayed,
    Description,
    Failure,
    OfferRelayed,
    Request,
    Response,
    Scrape,
    ScrapeReply,
    SendAnswer,
    SwarmCounts,
    TrackerOffer,
)

INFO_HASH = bytes(range(0xEC, 0x100))
PEER = b"-WW0302-abcdefghijkl"
OTHER = b"-SB0001-\x00\x7f\x80\xff........"
OFFER_ID = b"o" * 20
INFO_HASH_TEXT = "ìíîïðñòóôõö÷øùúûüýþÿ"
OFFER = Description("offer", "v=0\r\n")
DEEP = json.loads("[" * 9 + "]" * 9)
ANSWER = Description("answer", "v=0\r\n")


def announce_text(**changes: Any) -> str:
    """An announce as bittorrent-tracker's client writes it; a change to None is written as null."""
    tree: dict[str, Any] = {
        "action": "announce",
        "event": "started",
        "info_hash": INFO_HASH_TEXT,
        "peer_id": PEER.decode(),
        "numwant": 1,
        "uploaded": 0,
        "downloaded": 0,
        "left": None,
        "offers": [{"offer": {"type": "offer", "sdp": "v=0\r\n"}, "offer_id": OFFER_ID.decode()}],
    }
    return json.dumps(tree | changes, ensure_ascii=False)


def test_javascript_announce_is_read() -> None:
    request = decode_request(announce_text())
    assert request == Announce(INFO_HASH, PEER, "started", (TrackerOffer(OFFER_ID, OFFER),), 0, 0, None, 1)


def test_info_hash_characters_are_bytes_on_the_wire() -> None:
    text = encode_request(Announce(INFO_HASH, PEER, left=5))
    assert json.loads(text)["info_hash"] == INFO_HASH_TEXT
    escaped = json.dumps(json.loads(text))
    assert "\\u00ec" in escaped
    assert decode_request(escaped) == Announce(INFO_HASH, PEER, left=5)


@pytest.mark.parametrize(
    ("response", "tree"),
    [
        (
            AnnounceReply(INFO_HASH, 120, 1, 2),
            {"action": "announce", "interval": 120, "info_hash": INFO_HASH_TEXT, "complete": 1, "incomplete": 2},
        ),
        (
            OfferRelayed(INFO_HASH, PEER, OFFER_ID, OFFER),
            {
                "action": "announce",
                "info_hash": INFO_HASH_TEXT,
                "peer_id": PEER.decode(),
                "offer_id": "o" * 20,
                "offer": {"type": "offer", "sdp": "v=0\r\n"},
            },
        ),
        (
            AnswerRelayed(INFO_HASH, PEER, OFFER_ID, ANSWER),
            {
                "action": "announce",
                "info_hash": INFO_HASH_TEXT,
                "peer_id": PEER.decode(),
                "offer_id": "o" * 20,
                "answer": {"type": "answer", "sdp": "v=0\r\n"},
            },
        ),
        (
            ScrapeReply({INFO_HASH: SwarmCounts(1, 2, 3)}),
            {"action": "scrape", "files": {INFO_HASH_TEXT: {"complete": 1, "incomplete": 2, "downloaded": 3}}},
        ),
        (
            Failure("no such swarm", "scrape", INFO_HASH),
            {"action": "scrape", "info_hash": INFO_HASH_TEXT, "failure reason": "no such swarm"},
        ),
        (Failure("soon", warning=True), {"warning message": "soon"}),
    ],
)
def test_response_vectors(response: Response, tree: dict[str, Any]) -> None:
    assert json.loads(encode_response(response)) == tree
    assert decode_response(json.dumps(tree)) == response


def test_answer_and_scrape_requests() -> None:
    answer = SendAnswer(INFO_HASH, PEER, OTHER, OFFER_ID, ANSWER)
    assert json.loads(encode_request(answer)) == {
        "action": "announce",
        "info_hash": INFO_HASH_TEXT,
        "peer_id": PEER.decode(),
        "to_peer_id": OTHER.decode("latin-1"),
        "offer_id": "o" * 20,
        "answer": {"type": "answer", "sdp": "v=0\r\n"},
    }
    assert decode_request(encode_request(answer)) == answer
    assert decode_request(json.dumps({"action": "scrape", "info_hash": INFO_HASH_TEXT})) == Scrape((INFO_HASH,))


def test_min_interval_and_floats_of_other_trackers() -> None:
    text = json.dumps({"info_hash": INFO_HASH_TEXT, "min interval": 30.5, "complete": 1.0})
    assert decode_response(text) == AnnounceReply(INFO_HASH, 30.5, 1, None)


def test_counts_are_bounded() -> None:
    text = json.dumps({"info_hash": INFO_HASH_TEXT, "complete": 1e308, "incomplete": 2.0**54})
    assert decode_response(text) == AnnounceReply(INFO_HASH, None, 2**53, 2**53)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        announce_text(action="dance"),
        announce_text(event="exploded"),
        announce_text(info_hash="short"),
        announce_text(info_hash="€" * 20),
        announce_text(info_hash=[INFO_HASH_TEXT]),
        announce_text(peer_id=None),
        announce_text(left="5"),
        announce_text(uploaded=-1),
        announce_text(to_peer_id=PEER.decode()),
        json.dumps({"action": "scrape"}),
        json.dumps({"action": "scrape", "info_hash": []}),
        '{"action":' + "[" * 60_000,
        b'{"action":"\xff"}',
        '"\ud800"',
    ],
)
def test_broken_requests_are_the_peers_fault(text: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_request(text)
    assert caught.value.cause is Cause.INVALID


GOOD = {"offer": {"type": "offer", "sdp": ""}, "offer_id": "o" * 20}


@pytest.mark.parametrize(
    "bad",
    [
        {"offer": {"type": "answer", "sdp": ""}, "offer_id": "o" * 20},
        {"offer": {"type": "offer"}, "offer_id": "o" * 20},
        {"offer": {"type": "offer", "sdp": "", "x": DEEP}, "offer_id": "o" * 20},
        {"offer": {"type": "offer", "sdp": "", "x": "x" * 5000}, "offer_id": "o" * 20},
        {"offer": {"type": "offer", "sdp": ""}, "offer_id": "short"},
        {"offer": "no tree", "offer_id": "o" * 20},
        "no tree",
    ],
)
def test_a_bad_offer_is_dropped_and_its_announce_served(bad: Any) -> None:
    announce = decode_request(announce_text(offers=[bad, GOOD]))
    assert isinstance(announce, Announce)
    assert (len(announce.offers), announce.dropped_offers) == (1, 1)


def test_offers_beyond_the_limit_are_dropped() -> None:
    announce = decode_request(announce_text(offers=[GOOD] * 11))
    assert isinstance(announce, Announce)
    assert (len(announce.offers), announce.dropped_offers) == (10, 1)


@pytest.mark.parametrize(
    ("text", "action", "info_hash"),
    [
        (announce_text(event="exploded"), "announce", INFO_HASH),
        (announce_text(peer_id=3, offers={}), "announce", INFO_HASH),
        (json.dumps({"action": "scrape", "info_hash": [INFO_HASH_TEXT] * 500}), "scrape", INFO_HASH),
        (announce_text(info_hash="short"), "announce", None),
        (json.dumps({"action": "dance", "info_hash": INFO_HASH_TEXT}), "", INFO_HASH),
        ("{", "", None),
    ],
)
def test_a_failure_names_what_can_be_read(text: str, action: str, info_hash: bytes | None) -> None:
    assert named_failure(text, "no") == Failure("no", action, info_hash)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"action": "scrape", "info_hash": [INFO_HASH_TEXT] * (MAX_INFO_HASHES + 1)}),
        " " * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_limits(text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_request(text)
    assert caught.value.cause is Cause.TOO_LARGE


@pytest.mark.parametrize(
    "tree",
    [
        {"action": "announce"},
        {"action": "dance", "info_hash": INFO_HASH_TEXT},
        {"action": "announce", "info_hash": INFO_HASH_TEXT, "interval": -1},
        {"action": "announce", "info_hash": INFO_HASH_TEXT, "offer": {"type": "offer", "sdp": ""}},
        {"action": "scrape", "files": {"short": {}}},
    ],
)
def test_broken_responses_are_the_trackers_fault(tree: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_response(json.dumps(tree))


def test_our_own_mistakes_are_local() -> None:
    for request in (
        Announce(b"short", PEER),
        Announce(INFO_HASH, PEER, offers=(TrackerOffer(OFFER_ID, OFFER),) * 11),
        Announce(INFO_HASH, PEER, offers=(TrackerOffer(OFFER_ID, Description("offer", "x" * MAX_MESSAGE_BYTES)),)),
        Scrape(()),
    ):
        with pytest.raises(LocalProtocolError):
            encode_request(request)


def test_a_hint_survives_the_tracker() -> None:
    hinted = with_wire_hint(OFFER, ["127.0.0.1:6881", "[::1]:6881"])
    sent = encode_request(Announce(INFO_HASH, PEER, offers=(TrackerOffer(OFFER_ID, hinted),)))
    assert '"swarm-space":{"wire":["127.0.0.1:6881","[::1]:6881"]}' in sent
    request = decode_request(sent)
    assert isinstance(request, Announce)
    relayed = decode_response(encode_response(OfferRelayed(INFO_HASH, PEER, OFFER_ID, request.offers[0].offer)))
    assert isinstance(relayed, OfferRelayed)
    assert wire_hint(relayed.offer) == ("127.0.0.1:6881", "[::1]:6881")


@pytest.mark.parametrize(
    "hint", [None, "x", [], {"wire": "a:1"}, {"wire": [1, "", "a", ":1", "a:0", "a:70000", "a:²"]}]
)
def test_a_broken_hint_is_no_hint(hint: Any) -> None:
    assert wire_hint(Description("offer", "", {"swarm-space": hint})) == ()


def test_hints_are_bounded() -> None:
    endpoints = [f"127.0.0.1:{port}" for port in range(1, 100)]
    assert len(wire_hint(Description("offer", "", {"swarm-space": {"wire": endpoints}}))) == MAX_ENDPOINTS


hashes = st.binary(min_size=20, max_size=20)
words = st.text(max_size=20)
counts = st.integers(0, 2**53)
extras = st.dictionaries(words.filter(lambda key: key not in ("type", "sdp")), st.none() | counts | words, max_size=2)


def descriptions(kind: str) -> st.SearchStrategy[Description]:
    return st.builds(Description, st.just(kind), words, extras)


events = st.sampled_from(["", "started", "completed", "stopped", "update", "paused"])
offers = st.lists(st.builds(TrackerOffer, hashes, descriptions("offer")), max_size=3).map(tuple)
requests = st.one_of(
    st.builds(Announce, hashes, hashes, events, offers, counts, counts, st.none() | counts, st.none() | counts),
    st.builds(SendAnswer, hashes, hashes, hashes, hashes, descriptions("answer")),
    st.lists(hashes, min_size=1, max_size=16).map(lambda each: Scrape(tuple(each))),
)
responses = st.one_of(
    st.builds(AnnounceReply, hashes, st.none() | st.floats(0, 1e6), st.none() | counts, st.none() | counts),
    st.builds(OfferRelayed, hashes, hashes, hashes, descriptions("offer")),
    st.builds(AnswerRelayed, hashes, hashes, hashes, descriptions("answer")),
    st.dictionaries(hashes, st.builds(SwarmCounts, counts, counts, counts), max_size=3).map(ScrapeReply),
    st.builds(Failure, words, words, st.none() | hashes, st.booleans()),
)


@settings(max_examples=100)
@given(requests)
def test_requests_encode_then_decode_is_the_identity(request: Request) -> None:
    assert decode_request(encode_request(request)) == request


@settings(max_examples=100)
@given(responses)
def test_responses_encode_then_decode_is_the_identity(response: Response) -> None:
    assert decode_response(encode_response(response)) == response


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_arbitrary_input_raises_nothing_else(data: bytes | str) -> None:
    for decode in (decode_request, decode_response):
        try:
            decode(data)
        except RemoteProtocolError:
            continue
