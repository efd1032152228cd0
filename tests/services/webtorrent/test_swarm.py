from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.webtorrent.endpoints import Endpoint
from services.webtorrent.limits import DIALS_PER_S, MAX_ENDPOINTS_PER_ANSWER, RESERVED_HALF_OPEN
from services.webtorrent.swarm import (
    FORGET_AFTER_S,
    HURRY_SPACING_S,
    MAX_KNOWN,
    NEWS_SPACING_S,
    THEIR_TURN_S,
    USELESS_PAUSE_S,
    DialWanted,
    Source,
    Swarm,
    control_infohash,
)
from shared.errors import Cause

A, B, C = (Endpoint(f"10.0.0.{each}", 6881) for each in (1, 2, 3))
ROOM = 64


def doubling() -> Iterator[float]:
    return (2.0**step for step in itertools.count())


def swarm() -> Swarm:
    return Swarm(lambda host: not host.startswith("127."), 0.0, doubling)


def dialled(each: Swarm, now: float, room: int = ROOM) -> list[Endpoint]:
    return [wanted.endpoint for wanted in each.due(now, room)]


def test_the_control_infohash_is_that_of_the_room() -> None:
    assert control_infohash("public") == hashlib.sha1(b"swarm-space:public").digest()
    assert control_infohash("public") != control_infohash("other")


def test_a_new_endpoint_is_dialled_once_until_something_becomes_of_it() -> None:
    s = swarm()
    s.learn([A, A, B], Source.TRACKER, 0.0)
    assert set(dialled(s, 0.0)) == {A, B}
    assert dialled(s, 100.0) == []
    assert s.next_deadline(100.0) is None
    assert s.may_lead_somewhere


def test_failures_wait_longer_each_time() -> None:
    s = swarm()
    s.learn([A], Source.DHT, 0.0)
    now, waits = 0.0, []
    for _ in range(5):
        assert dialled(s, now) == [A]
        s.dial_failed(A, Cause.CLOSED, now)
        deadline = s.next_deadline(now)
        assert deadline is not None
        waits.append(deadline - now)
        assert dialled(s, deadline - 0.01) == []
        now = deadline
    assert waits == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("cause", [Cause.NO_EXTENSION, Cause.REFUSED, Cause.UNAUTHENTICATED])
def test_the_useless_are_left_alone_even_in_a_hurry(cause: Cause) -> None:
    s = swarm()
    s.learn([A], Source.TRACKER, 0.0)
    assert dialled(s, 0.0) == [A]
    s.dial_failed(A, cause, 0.0)
    s.hurry(5.0)
    s.learn([A], Source.TRACKER, 50.0)
    assert not s.may_lead_somewhere
    assert dialled(s, USELESS_PAUSE_S - 1) == []
    assert dialled(s, USELESS_PAUSE_S) == [A]


def test_a_hurry_shortens_waiting_but_keeps_a_spacing() -> None:
    s = swarm()
    s.learn([A], Source.DHT, 0.0)
    for now in (0.0, 1.0, 3.0, 7.0, 15.0):
        assert dialled(s, now) == [A]
        s.dial_failed(A, Cause.CLOSED, now)
    s.hurry(15.1)
    assert dialled(s, 15.1) == []
    assert s.next_deadline(15.1) == 15.0 + HURRY_SPACING_S
    assert dialled(s, 15.0 + HURRY_SPACING_S) == [A]


def test_a_fresh_offer_is_news_a_dht_answer_is_not() -> None:
    s = swarm()
    s.learn([A], Source.TRACKER, 0.0)
    now = 0.0
    for _ in range(7):
        assert dialled(s, now) == [A]
        s.dial_failed(A, Cause.CLOSED, now)
        now = s.next_deadline(now) or 0.0
    dialled(s, now)
    s.dial_failed(A, Cause.CLOSED, now)
    s.learn([A], Source.DHT, now + 1)
    assert (s.next_deadline(now + 1) or 0.0) - now == 128
    s.learn([A], Source.TRACKER, now + 1)
    assert (s.next_deadline(now + 1) or 0.0) - now == NEWS_SPACING_S


def test_linked_endpoints_are_not_dialled_whoever_dialled() -> None:
    s = swarm()
    s.linked(A, 0.0)
    s.learn([A], Source.TRACKER, 0.0)
    s.hint([A], b"k" * 32, 0.0)
    s.hurry(0.0)
    assert dialled(s, 10.0) == []
    assert not s.may_lead_somewhere
    s.linked(A, 11.0)
    s.unlinked(A, Cause.CLOSED, 12.0, we_dialled=True)
    assert dialled(s, 100.0) == []
    s.unlinked(A, Cause.CLOSED, 100.0, we_dialled=False)
    assert dialled(s, 100.9 + THEIR_TURN_S) == []
    assert dialled(s, 101.0 + THEIR_TURN_S) == [A]


def test_a_link_that_held_is_sought_again_at_once_after_long_failures() -> None:
    s = swarm()
    s.learn([A], Source.DHT, 0.0)
    for now in (0.0, 1.0, 3.0):
        dialled(s, now)
        s.dial_failed(A, Cause.CLOSED, now)
    dialled(s, 7.0)
    s.linked(A, 7.0)
    s.unlinked(A, Cause.CLOSED, 1000.0, we_dialled=True)
    assert s.next_deadline(1000.0) == 1001.0


def test_a_link_that_did_not_last_proves_nothing() -> None:
    s = swarm()
    s.learn([A], Source.DHT, 0.0)
    now, waits = 0.0, []
    for _ in range(4):
        dialled(s, now)
        s.linked(A, now)
        s.unlinked(A, Cause.BLOCKED, now + 0.1, we_dialled=True)
        waits.append((s.next_deadline(now + 0.1) or 0.0) - now - 0.1)
        now = s.next_deadline(now + 0.1) or 0.0
    assert waits == sorted(waits)
    assert waits[-1] > 2 * waits[0]


def test_a_hint_is_dialled_now_for_its_key_and_for_anyone_later() -> None:
    s = swarm()
    key = b"k" * 32
    s.learn([A], Source.DHT, 0.0)
    s.hint([A], key, 0.0)
    assert s.due(0.0, ROOM) == [DialWanted(A, key)]
    s.linked(A, 0.0)
    # Somebody else lives there: not useless, but not the one.
    s.unlinked(A, Cause.UNAUTHENTICATED, 1.0, we_dialled=True)
    assert s.due(2.0, ROOM) == [DialWanted(A, None)]
    s.dial_failed(A, Cause.NO_EXTENSION, 2.0)
    s.hint([A], key, 10.0)
    assert s.due(10.0, ROOM) == [DialWanted(A, key)]


def test_of_two_that_the_dht_shows_to_each_other_the_lesser_waits() -> None:
    s = swarm()
    s.mark_own(B, 0.0)
    s.learn([A, C], Source.DHT, 0.0)
    s.hurry(0.0)
    assert dialled(s, 0.0) == [A]
    assert dialled(s, THEIR_TURN_S) == [C]
    assert dialled(s, 1000.0) == []


def test_addresses_and_counts_are_limited() -> None:
    s = swarm()
    many = [Endpoint(f"10.1.{each // 250}.{each % 250 + 1}", 1000 + each) for each in range(600)]
    assert s.learn([Endpoint("127.0.0.1", 1), A], Source.DHT, 0.0) == 1
    assert s.hint([Endpoint("127.0.0.1", 1)], b"k" * 32, 0.0) == 1
    assert s.learn(many, Source.DHT, 0.0) == 600 - MAX_ENDPOINTS_PER_ANSWER
    for start in range(0, 600, 50):
        s.learn(many[start : start + 50], Source.DHT, float(start))
    assert sum(s.size_by_source().values()) == MAX_KNOWN
    assert len(dialled(s, 600.0, room=RESERVED_HALF_OPEN + 3)) == 3
    assert len(dialled(s, 600.0, room=1000)) == DIALS_PER_S - 3
    assert s.next_deadline(600.0) == pytest.approx(600.0 + 1 / DIALS_PER_S)


def test_who_is_wanted_goes_before_all_that_strangers_named_and_has_room_of_its_own() -> None:
    s = swarm()
    for start in range(0, 500, 50):
        s.learn([Endpoint(f"10.2.{start}.1", 1000 + each) for each in range(start, start + 50)], Source.DHT, 0.0)
    s.learn([Endpoint("10.2.0.1", 1000 + each) for each in range(50)], Source.TRACKER, 0.0)
    s.hint([A], b"k" * 32, 60.0)
    assert dialled(s, 60.0)[0] == A
    # Half of all that may be half open is not for what was only learnt, and no timer spins meanwhile.
    assert dialled(s, 70.0, room=RESERVED_HALF_OPEN) == []
    assert s.next_deadline(70.0, RESERVED_HALF_OPEN) is None
    s.hint([B], b"k" * 32, 70.0)
    assert s.next_deadline(70.0, RESERVED_HALF_OPEN) == 70.0
    assert dialled(s, 70.0, room=1) == [B]
    s.hint([C], b"k" * 32, 71.0)
    assert dialled(s, 71.0, room=0) == []
    assert s.next_deadline(71.0, 0) is None


def test_what_nobody_speaks_of_is_forgotten() -> None:
    s = swarm()
    s.learn([A, B], Source.DHT, 0.0)
    s.linked(B, 0.0)
    dialled(s, FORGET_AFTER_S + 1)
    assert s.size_by_source() == {"dht": 1}


events = st.lists(
    st.tuples(
        st.sampled_from(["learn", "hint", "hurry", "due", "failed", "linked", "unlinked", "own"]),
        st.sampled_from([A, B, C, Endpoint("127.0.0.1", 9)]),
        st.floats(0, 30),
    ),
    max_size=60,
)


@given(events)
@settings(max_examples=100, deadline=None)
def test_never_dials_what_is_linked_dialling_own_or_forbidden(steps: list[tuple[str, Endpoint, float]]) -> None:
    s, now = swarm(), 0.0
    links: dict[Endpoint, int] = {}
    dialling: set[Endpoint] = set()
    own: set[Endpoint] = set()
    for what, endpoint, after_s in steps:
        now += after_s
        match what:
            case "learn":
                s.learn([endpoint], Source.TRACKER, now)
            case "hint":
                s.hint([endpoint], b"k" * 32, now)
            case "hurry":
                s.hurry(now)
            case "failed" if endpoint in dialling:
                dialling.discard(endpoint)
                s.dial_failed(endpoint, Cause.CLOSED, now)
            case "linked":
                dialling.discard(endpoint)
                links[endpoint] = links.get(endpoint, 0) + 1
                s.linked(endpoint, now)
            case "unlinked" if links.get(endpoint):
                links[endpoint] -= 1
                s.unlinked(endpoint, Cause.CLOSED, now, we_dialled=False)
            case "own" if not links.get(endpoint):
                dialling.discard(endpoint)
                own.add(endpoint)
                s.mark_own(endpoint, now)
            case "due":
                for each in dialled(s, now):
                    assert not links.get(each)
                    assert each not in dialling | own
                    assert each.host != "127.0.0.1"
                    dialling.add(each)
            case _:
                pass  # nothing is in that state to begin with
