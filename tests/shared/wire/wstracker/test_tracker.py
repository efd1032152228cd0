"""The tracker machine with hand-made sockets (numbers), a chooser that takes the first ones, and its own client."""

from __future__ import annotations

import random
from typing import assert_never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Cause
from shared.wire.wstracker.client import (
    Announced,
    AnnounceDue,
    AnswerReceived,
    OfferReceived,
    TrackerClient,
    TrackerEvent,
)
from shared.wire.wstracker.codec import decode_response, encode_request
from shared.wire.wstracker.messages import (
    MAX_INFO_HASHES,
    Announce,
    AnnounceReply,
    AnswerRelayed,
    Description,
    Event,
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
from shared.wire.wstracker.tracker import (
    ANNOUNCE_INTERVAL_S,
    ANSWER_WINDOW_S,
    FIRST_OFFERS_S,
    MAX_FIRST_OFFERS,
    MAX_MEMBERS_PER_SOCKET,
    MEMBER_TTL_INTERVALS,
    TOO_MANY,
    MemberJoined,
    MemberLeft,
    News,
    SwarmClosed,
    SwarmOpened,
    ToRemote,
    Tracker,
)

SWARM = b"s" * 20
OFFER = Description("offer", "v=0", {"swarm-space": {"wire": ["127.0.0.1:1"]}})
ANSWER = Description("answer", "v=0")
MEMBER_TTL_S = ANNOUNCE_INTERVAL_S * MEMBER_TTL_INTERVALS


def peer(number: int) -> bytes:
    return b"p" + number.to_bytes(19, "big")


def offer(number: int) -> TrackerOffer:
    return TrackerOffer(number.to_bytes(20, "big"), OFFER)


def new_tracker() -> Tracker:
    return Tracker(lambda members, count: list(members)[:count])


def ask(tracker: Tracker, socket: int, request: Request, now: float = 0.0) -> list[tuple[int, Response]]:
    tracker.receive_text(socket, encode_request(request), now)
    return [(each, decode_response(text)) for each, text in tracker.data_to_send()]


def join(tracker: Tracker, number: int, *offers: TrackerOffer, event: Event = "started", left: int | None = None,
         now: float = 0.0) -> list[tuple[int, Response]]:  # fmt: skip
    """Socket `number` announces as peer `number`."""
    return ask(tracker, number, Announce(SWARM, peer(number), event, offers, left=left), now)


def test_a_reply_counts_the_swarm() -> None:
    tracker = new_tracker()
    assert join(tracker, 1, left=0) == [(1, AnnounceReply(SWARM, 120, 1, 0))]
    assert join(tracker, 2, left=5) == [(2, AnnounceReply(SWARM, 120, 1, 1))]
    assert join(tracker, 2, event="completed") == [(2, AnnounceReply(SWARM, 120, 2, 0))]
    assert join(tracker, 2, event="completed") == [(2, AnnounceReply(SWARM, 120, 2, 0))]
    assert join(tracker, 1, event="stopped") == [(1, AnnounceReply(SWARM, 120, 1, 0))]
    counts = {SWARM: SwarmCounts(1, 0, 1), b"x" * 20: SwarmCounts(0, 0, 0)}
    assert ask(tracker, 9, Scrape((SWARM, b"x" * 20))) == [(9, ScrapeReply(counts))]


def test_each_offer_goes_to_one_other_peer() -> None:
    tracker = new_tracker()
    for number in (1, 2, 3):
        join(tracker, number)
    reply, *relayed = join(tracker, 2, offer(1), offer(2), offer(3))
    assert reply[0] == 2
    assert relayed == [
        (1, OfferRelayed(SWARM, peer(2), offer(1).offer_id, OFFER)),
        (3, OfferRelayed(SWARM, peer(2), offer(2).offer_id, OFFER)),
    ]


def test_an_answer_goes_to_the_offerer_once() -> None:
    tracker = new_tracker()
    join(tracker, 1)
    join(tracker, 2, offer(1))
    answer = SendAnswer(SWARM, peer(1), peer(2), offer(1).offer_id, ANSWER)
    assert ask(tracker, 1, answer) == [(2, AnswerRelayed(SWARM, peer(1), offer(1).offer_id, ANSWER))]
    assert ask(tracker, 1, answer) == []
    assert tracker.refused == {Cause.EXPIRED: 1}


def test_only_who_got_an_offer_may_answer_it() -> None:
    tracker = new_tracker()
    for number in (1, 3):
        join(tracker, number)
    join(tracker, 2, offer(1))
    forged = SendAnswer(SWARM, peer(3), peer(2), offer(1).offer_id, ANSWER)
    assert ask(tracker, 3, forged) == []
    stolen = SendAnswer(SWARM, peer(1), peer(2), offer(1).offer_id, ANSWER)
    assert ask(tracker, 3, stolen) == []


def test_a_late_answer_and_one_to_a_gone_peer_are_refused() -> None:
    tracker = new_tracker()
    join(tracker, 1)
    join(tracker, 2, offer(1), offer(2))
    late = SendAnswer(SWARM, peer(1), peer(2), offer(1).offer_id, ANSWER)
    assert ask(tracker, 1, late, ANSWER_WINDOW_S) == []
    join(tracker, 2, offer(3), now=ANSWER_WINDOW_S)
    tracker.close_socket(2)
    gone = SendAnswer(SWARM, peer(1), peer(2), offer(3).offer_id, ANSWER)
    assert ask(tracker, 1, gone, ANSWER_WINDOW_S) == []
    assert tracker.refused == {Cause.EXPIRED: 1, Cause.CLOSED: 1}


def test_the_same_peer_id_on_another_socket_takes_nothing_over() -> None:
    tracker = new_tracker()
    join(tracker, 1)
    join(tracker, 2, offer(1))
    ask(tracker, 7, Announce(SWARM, peer(2)))
    answer = SendAnswer(SWARM, peer(1), peer(2), offer(1).offer_id, ANSWER)
    assert ask(tracker, 1, answer)[0][0] == 2
    tracker.close_socket(7)
    assert ask(tracker, 9, Scrape((SWARM,))) == [(9, ScrapeReply({SWARM: SwarmCounts(0, 2, 0)}))]


def test_members_that_stop_announcing_are_forgotten() -> None:
    tracker = new_tracker()
    join(tracker, 1)
    join(tracker, 2, now=10.0)
    assert tracker.next_deadline() == MEMBER_TTL_S
    tracker.handle_timer(MEMBER_TTL_S)
    assert (tracker.member_count, tracker.swarm_count) == (1, 1)
    tracker.handle_timer(MEMBER_TTL_S + 10.0)
    assert (tracker.member_count, tracker.swarm_count, tracker.next_deadline()) == (0, 0, None)
    assert join(tracker, 1, now=MEMBER_TTL_S + 20.0) == [(1, AnnounceReply(SWARM, 120, 0, 1))]


def test_info_hashes_and_members_of_a_socket_are_bounded() -> None:
    tracker = new_tracker()
    for number in range(MAX_INFO_HASHES):
        ask(tracker, 1, Announce(number.to_bytes(20, "big"), peer(1)))
    assert ask(tracker, 1, Announce(SWARM, peer(1))) == [(1, Failure(TOO_MANY, "announce", SWARM))]
    for number in range(2, MAX_MEMBERS_PER_SOCKET):
        ask(tracker, 1, Announce(bytes(20), peer(number)))
    assert tracker.member_count == MAX_MEMBERS_PER_SOCKET
    assert set(tracker.refused) == {Cause.RATE_LIMITED}
    tracker.close_socket(1)
    tracker.close_socket(1)
    assert (tracker.member_count, tracker.swarm_count) == (0, 0)


def test_one_peer_id_on_two_sockets_is_one_peer() -> None:
    tracker = new_tracker()
    join(tracker, 1)
    again = ask(tracker, 2, Announce(SWARM, peer(1), left=0))
    assert again == [(2, AnnounceReply(SWARM, 120, 1, 0))]
    tracker.close_socket(2)
    assert ask(tracker, 3, Scrape((SWARM,))) == [(3, ScrapeReply({SWARM: SwarmCounts(0, 1, 0)}))]


def test_a_page_with_many_torrents_loses_none() -> None:
    tracker = new_tracker()
    for number in range(20):
        [(_, reply)] = ask(tracker, 1, Announce(number.to_bytes(20, "big"), peer(1)))
        assert isinstance(reply, AnnounceReply)
    scrape = Scrape(tuple(number.to_bytes(20, "big") for number in range(20)))
    [(_, counts)] = ask(tracker, 1, scrape)
    assert isinstance(counts, ScrapeReply)
    assert len(counts.files) == 20


class Instances:
    """Linked trackers; what one says of itself reaches the others in order, as the bus brings it."""

    def __init__(self, count: int) -> None:
        self.trackers = [Tracker(random.Random(1).sample, linked=True) for _ in range(count)]

    def settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for number, tracker in enumerate(self.trackers):
                for news in tracker.news():
                    moved = True
                    self._bring(number, news)

    def _bring(self, sender: int, news: News) -> None:
        for number, tracker in enumerate(self.trackers):
            instance = -1 - sender
            if number == sender:
                continue
            match news:
                case SwarmOpened(info_hash):
                    for joined in tracker.own_members(info_hash):
                        self.trackers[sender].remote_joined(-1 - number, info_hash, joined.peer_id, joined.seed, 0.0)
                case MemberJoined(info_hash, peer_id, seed):
                    tracker.remote_joined(instance, info_hash, peer_id, seed, 0.0)
                case MemberLeft(info_hash, peer_id):
                    tracker.remote_left(instance, info_hash, peer_id)
                case ToRemote(target, peer_id, response):
                    if target != -1 - number:
                        continue
                    if isinstance(response, OfferRelayed):
                        tracker.remote_offer(instance, peer_id, response, 0.0)
                    else:
                        tracker.remote_answer(instance, peer_id, response, 0.0)
                case SwarmClosed():
                    pass  # nobody listens to a subject here that could be left
                case _:
                    assert_never(news)


def test_two_instances_introduce_peers_to_each_other() -> None:
    both = Instances(2)
    one, two = both.trackers
    join(one, 1)
    both.settle()
    ask(two, 1, Announce(SWARM, peer(2), offers=(offer(7),)))
    both.settle()
    # Who was there first is known now only, and gets the offer of who opened the swarm at the other instance.
    [(socket, text)] = one.data_to_send()
    assert (socket, decode_response(text)) == (1, OfferRelayed(SWARM, peer(2), offer(7).offer_id, OFFER))
    ask(one, 1, SendAnswer(SWARM, peer(1), peer(2), offer(7).offer_id, ANSWER))
    both.settle()
    [(socket, text)] = two.data_to_send()
    assert (socket, decode_response(text)) == (1, AnswerRelayed(SWARM, peer(1), offer(7).offer_id, ANSWER))
    [(_, counts)] = ask(two, 1, Announce(SWARM, peer(2), offers=(offer(8),)))
    assert counts == AnnounceReply(SWARM, 120, 0, 2)
    both.settle()
    [(socket, text)] = one.data_to_send()
    assert (socket, decode_response(text)) == (1, OfferRelayed(SWARM, peer(2), offer(8).offer_id, OFFER))
    assert one.member_count == two.member_count == 1, "each counts its own"


def test_first_offers_are_kept_for_a_moment_and_bounded() -> None:
    tracker = Tracker(random.Random(1).sample, linked=True)
    for number in range(60):
        swarm = b"%020d" % number
        ask(tracker, number, Announce(swarm, peer(number), offers=tuple(offer(each) for each in range(5))))
    assert sum(len(offers) for _, offers in tracker._first_offers.values()) <= MAX_FIRST_OFFERS
    tracker.remote_joined(-1, b"%020d" % 0, peer(99), False, 1.0)
    assert not [news for news in tracker.news() if isinstance(news, ToRemote)], "the oldest made room"
    tracker.remote_joined(-1, b"%020d" % 59, peer(99), False, 1.0)
    tracker.remote_joined(-1, b"%020d" % 59, peer(99), False, 1.0)
    assert len([news for news in tracker.news() if isinstance(news, ToRemote)]) == 1, "one offer a newcomer"
    tracker.remote_joined(-1, b"%020d" % 58, peer(99), False, FIRST_OFFERS_S)
    assert not [news for news in tracker.news() if isinstance(news, ToRemote)], "too late"
    tracker.handle_timer(FIRST_OFFERS_S)
    assert not tracker._first_offers


def test_a_lost_instance_takes_its_members_along() -> None:
    both = Instances(2)
    one, two = both.trackers
    join(one, 1)
    join(two, 1)
    ask(two, 2, Announce(SWARM, peer(3)))
    both.settle()
    assert ask(one, 1, Scrape((SWARM,))) == [(1, ScrapeReply({SWARM: SwarmCounts(0, 2, 0)}))]
    one.close_socket(-2)
    assert ask(one, 1, Scrape((SWARM,))) == [(1, ScrapeReply({SWARM: SwarmCounts(0, 1, 0)}))]
    two.close_socket(1)
    two.close_socket(2)
    assert (two.swarm_count, two.next_deadline()) == (0, None), "others' members do not keep a swarm"
    both.settle()


@pytest.mark.parametrize("text", ["nonsense", b"\xff", '{"action":"announce"}', " " * 70_000])
def test_broken_requests_are_answered_and_counted(text: str | bytes) -> None:
    tracker = new_tracker()
    tracker.receive_text(1, text, 0.0)
    [(socket, reply)] = tracker.data_to_send()
    assert socket == 1
    assert isinstance(decode_response(reply), Failure)
    assert tracker.refused.total() == 1


steps = st.one_of(
    st.tuples(st.sampled_from(["started", "completed", "stopped", ""]), st.integers(0, 4), st.integers(0, 3)),
    st.tuples(st.just("close"), st.integers(0, 4), st.just(0)),
    st.tuples(st.just("time"), st.integers(1, 400), st.just(0)),
)


@settings(max_examples=100)
@given(st.lists(steps, max_size=30), st.integers(0, 2**32))
def test_counts_always_agree_with_who_is_there(script: list[tuple[str, int, int]], seed: int) -> None:
    tracker = Tracker(random.Random(seed).sample)
    now, used = 0.0, 0
    here: dict[int, float] = {}
    for what, number, offers in script:
        if what == "time":
            now += number
            tracker.handle_timer(now)
            here = {each: deadline for each, deadline in here.items() if deadline > now}
            continue
        if what == "close":
            tracker.close_socket(number)
            here.pop(number, None)
            continue
        made = [offer(used + each) for each in range(offers)]
        used += offers
        sent = join(tracker, number, *made, event=what, now=now)  # type: ignore[arg-type]
        here.pop(number, None)
        if what != "stopped":
            here[number] = now + MEMBER_TTL_S
        reply = sent[0][1]
        assert isinstance(reply, AnnounceReply)
        assert (reply.complete or 0) + (reply.incomplete or 0) == len(here) == tracker.member_count
        targets = [socket for socket, response in sent[1:] if isinstance(response, OfferRelayed)]
        assert len(set(targets)) == len(targets) == len(sent) - 1
        assert set(targets) <= set(here) - {number}
        expected = 0 if what == "stopped" else min(offers, len(here) - 1)
        assert len(targets) == expected


def test_two_clients_meet_through_the_tracker() -> None:
    tracker = new_tracker()
    clients = {number: TrackerClient(SWARM, peer(number), 0.0) for number in (1, 2)}
    seen: list[tuple[int, TrackerEvent]] = []

    def pump() -> None:
        for number, machine in clients.items():
            for text in machine.data_to_send():
                tracker.receive_text(number, text, 0.0)
        for number, text in tracker.data_to_send():
            seen.extend((number, event) for event in clients[number].receive_text(text, 0.0))

    for number, machine in clients.items():
        assert machine.handle_timer(0.0) == [AnnounceDue()]
        machine.announce([offer(number)], 0.0)
        pump()
    assert (1, OfferReceived(peer(2), offer(2).offer_id, OFFER)) in seen
    clients[1].answer(peer(2), offer(2).offer_id, ANSWER, 0.0)
    pump()
    assert seen[-1] == (2, AnswerReceived(peer(1), offer(2).offer_id, ANSWER))
    assert (2, Announced(0, 2)) in seen
