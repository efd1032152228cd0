"""The tracker client, driven by hand with a clock of plain numbers."""

from __future__ import annotations

import pytest

from shared.errors import Cause, LocalProtocolError, SwarmbridgeError
from shared.wire.wstracker.client import (
    DEFAULT_INTERVAL_S,
    MAX_INCOMING_OFFERS,
    MAX_INTERVAL_S,
    MIN_INTERVAL_S,
    OFFER_LIFETIME_S,
    Announced,
    AnnounceDue,
    AnswerReceived,
    MessageRefused,
    OfferExpired,
    OfferReceived,
    Scraped,
    TrackerClient,
    TrackerRefused,
)
from shared.wire.wstracker.codec import decode_request, encode_response
from shared.wire.wstracker.messages import (
    Announce,
    AnnounceReply,
    AnswerRelayed,
    Description,
    Failure,
    OfferRelayed,
    Scrape,
    ScrapeReply,
    SendAnswer,
    SwarmCounts,
    TrackerOffer,
)

SWARM = b"s" * 20
ME = b"m" * 20
PEER = b"p" * 20
OFFER = Description("offer", "v=0")
ANSWER = Description("answer", "v=0")


def offer(number: int) -> TrackerOffer:
    return TrackerOffer(number.to_bytes(20, "big"), OFFER)


def offer_id(number: int) -> bytes:
    return number.to_bytes(20, "big")


def client() -> TrackerClient:
    return TrackerClient(SWARM, ME, 0.0)


def reply(interval_s: float | None) -> str:
    return encode_response(AnnounceReply(SWARM, interval_s, 1, 2))


def test_announces_at_once_and_then_at_the_trackers_interval() -> None:
    machine = client()
    assert machine.next_deadline() == 0.0
    assert machine.handle_timer(0.0) == [AnnounceDue()]
    assert machine.handle_timer(0.1) == [], "asked for once"
    machine.announce([offer(1)], 1.0)
    sent = [decode_request(text) for text in machine.data_to_send()]
    assert sent == [Announce(SWARM, ME, "started", (offer(1),), numwant=1)]
    assert machine.receive_text(reply(30), 1.1) == [Announced(1, 2)]
    assert machine.next_deadline() == 31.0
    assert machine.handle_timer(31.0) == [AnnounceDue()]
    machine.announce([], 31.0, left=0)
    assert decode_request(machine.data_to_send()[0]) == Announce(SWARM, ME, "", left=0, numwant=0)


@pytest.mark.parametrize(
    ("said", "kept"),
    [(None, DEFAULT_INTERVAL_S), (0, MIN_INTERVAL_S), (1e9, MAX_INTERVAL_S), (7.5, 7.5)],
)
def test_a_tracker_cannot_hurry_or_lose_us(said: float | None, kept: float) -> None:
    machine = client()
    machine.handle_timer(0.0)
    machine.announce([], 0.0)
    machine.receive_text(reply(said), 0.0)
    assert machine.next_deadline() == kept


def test_an_answer_counts_once_and_only_for_an_open_offer() -> None:
    machine = client()
    machine.announce([offer(1), offer(2)], 0.0)
    answered = encode_response(AnswerRelayed(SWARM, PEER, offer_id(1), ANSWER))
    assert machine.receive_text(answered, 1.0) == [AnswerReceived(PEER, offer_id(1), ANSWER)]
    assert machine.receive_text(answered, 1.0) == [MessageRefused(Cause.EXPIRED)]
    unknown = encode_response(AnswerRelayed(SWARM, PEER, offer_id(9), ANSWER))
    assert machine.receive_text(unknown, 1.0) == [MessageRefused(Cause.EXPIRED)]
    assert machine.next_deadline() == OFFER_LIFETIME_S
    assert machine.handle_timer(OFFER_LIFETIME_S) == [OfferExpired(offer_id(2))]
    late = encode_response(AnswerRelayed(SWARM, PEER, offer_id(2), ANSWER))
    assert machine.receive_text(late, OFFER_LIFETIME_S) == [MessageRefused(Cause.EXPIRED)]


def test_offers_are_answered_in_time() -> None:
    machine = client()
    relayed = encode_response(OfferRelayed(SWARM, PEER, offer_id(1), OFFER))
    assert machine.receive_text(relayed, 0.0) == [OfferReceived(PEER, offer_id(1), OFFER)]
    assert machine.receive_text(relayed, 0.0) == [], "the same again"
    machine.answer(PEER, offer_id(1), ANSWER, 1.0)
    assert decode_request(machine.data_to_send()[0]) == SendAnswer(SWARM, ME, PEER, offer_id(1), ANSWER)
    with pytest.raises(SwarmbridgeError) as caught:
        machine.answer(PEER, offer_id(1), ANSWER, 1.0)
    assert caught.value.cause is Cause.EXPIRED
    machine.receive_text(relayed, 2.0)
    with pytest.raises(SwarmbridgeError):
        machine.answer(PEER, offer_id(1), ANSWER, 2.0 + OFFER_LIFETIME_S)


def test_unanswered_offers_of_peers_are_bounded() -> None:
    machine = client()
    for number in range(MAX_INCOMING_OFFERS):
        machine.receive_text(encode_response(OfferRelayed(SWARM, PEER, offer_id(number), OFFER)), 0.0)
    more = encode_response(OfferRelayed(SWARM, PEER, offer_id(999), OFFER))
    assert machine.receive_text(more, 1.0) == [MessageRefused(Cause.BUSY)]
    assert machine.receive_text(more, OFFER_LIFETIME_S) == [OfferReceived(PEER, offer_id(999), OFFER)]


def test_what_is_ours_or_of_another_swarm_is_left() -> None:
    machine = client()
    machine.announce([offer(1)], 0.0)
    for response in (
        OfferRelayed(SWARM, ME, offer_id(2), OFFER),
        OfferRelayed(b"x" * 20, PEER, offer_id(2), OFFER),
        AnswerRelayed(b"x" * 20, PEER, offer_id(1), ANSWER),
        AnnounceReply(b"x" * 20, 7, 0, 0),
        ScrapeReply({b"x" * 20: SwarmCounts(0, 0, 0)}),
    ):
        assert machine.receive_text(encode_response(response), 1.0) == []


def test_scrape_failure_and_garbage() -> None:
    machine = client()
    machine.scrape()
    assert decode_request(machine.data_to_send()[0]) == Scrape((SWARM,))
    counts = SwarmCounts(1, 2, 3)
    assert machine.receive_text(encode_response(ScrapeReply({SWARM: counts})), 0.0) == [Scraped(counts)]
    assert machine.receive_text(encode_response(Failure("no")), 0.0) == [TrackerRefused(warning=False)]
    assert machine.receive_text(encode_response(Failure("hm", warning=True)), 0.0) == [TrackerRefused(warning=True)]
    assert machine.receive_text("nonsense", 0.0) == [MessageRefused(Cause.INVALID)]


def test_stop_says_so_and_asks_for_nothing_more() -> None:
    machine = client()
    machine.announce([], 0.0)
    machine.data_to_send()
    machine.stop()
    assert decode_request(machine.data_to_send()[0]) == Announce(SWARM, ME, "stopped", numwant=0)
    assert machine.next_deadline() is None
    assert machine.handle_timer(1e6) == []


def test_our_own_mistakes_are_local() -> None:
    machine = client()
    machine.announce([offer(1)], 0.0)
    for offers in ([offer(1)], [offer(2), offer(2)], [offer(each) for each in range(2, 13)]):
        with pytest.raises(LocalProtocolError):
            machine.announce(offers, 0.0)
