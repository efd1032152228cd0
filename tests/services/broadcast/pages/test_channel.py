"""One channel: each post once, to those who do not hear it otherwise; presence by reports alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.broadcast.pages.channel import Channel, PageSeat, Posted
from services.broadcast.pages.limits import LOG_BYTES, LOG_S, MAX_SENDERS, MAX_WORKERS, PRESENCE_EXPIRY_S

ONE, SAME, OTHER = PageSeat(b"one", b"chromium"), PageSeat(b"same", b"chromium"), PageSeat(b"other", b"firefox")


def post(number: int, seat: PageSeat = ONE, value: bytes = b"v") -> Posted:
    return Posted(seat.page, seat.browser, number, value)


def channel(*seats: PageSeat) -> Channel:
    made = Channel()
    for socket, seat in enumerate(seats):
        made.join(socket, seat)
    return made


def test_neither_the_sender_nor_a_tab_of_its_browser_hears_it_from_us() -> None:
    assert channel(ONE, SAME, OTHER).hearers(post(1)) == [2]


def test_listeners_are_all_but_the_sender_also_those_that_hear_it_natively() -> None:
    there = channel(ONE, SAME, OTHER)
    assert there.listeners(ONE.page) == 2
    there.hear("worker-2", [b"%d" % number for number in range(5)], 1, 0.0)
    assert there.listeners(ONE.page) == 7
    assert channel(ONE).listeners(ONE.page) == 0
    assert channel().listeners(ONE.page) == 0


@given(st.lists(st.integers(1, 12), max_size=30))
def test_each_number_is_taken_once_and_in_order(numbers: list[int]) -> None:
    there = channel(OTHER)
    taken = [number for number in numbers if there.take(post(number), 0.0)]
    assert taken == sorted(set(taken))


@given(st.integers(0, 9), st.integers(0, 9))
def test_what_is_sent_again_from_the_first_unacknowledged_one_leaves_no_hole(known: int, acked: int) -> None:
    """However much of it a worker had already: it has all of it afterwards, once."""
    there = channel(OTHER)
    for number in range(1, known + 1):
        there.take(post(number), 0.0)
    for number in range(min(acked, known) + 1, 11):
        there.take(post(number), 0.0)
    assert [each.number for each in there.missed(OTHER, LOG_S, 0.0)] == list(range(1, 11))


def test_a_page_that_was_away_gets_what_it_missed_and_no_more() -> None:
    there = channel()
    for at in range(10):
        there.take(post(at + 1), float(at))
    assert [each.number for each in there.missed(OTHER, 2.5, 9.0)] == [8, 9, 10]
    assert there.missed(SAME, 100.0, 9.0) == []
    assert [each.number for each in there.own_posts(ONE.page, 1.5, 9.0)] == [9, 10]


def test_what_is_kept_is_bounded() -> None:
    there = channel()
    for number in range(1, 12):
        there.take(post(number, value=bytes(LOG_BYTES // 4)), 0.0)
    assert len(there.missed(OTHER, LOG_S, 0.0)) <= 4
    there.trim(LOG_S + 1.0)
    assert len(there.missed(OTHER, 2 * LOG_S, LOG_S + 1.0)) == 1, "the newest stays"
    for number in range(MAX_SENDERS + 1):
        there.take(Posted(number.to_bytes(4, "big"), b"b", 1, b""), 0.0)
    assert there.take(Posted(bytes(4), b"b", 1, b""), 0.0), "forgotten"


def test_presence_is_what_workers_report() -> None:
    there = channel(ONE)
    assert there.hear("w", [b"x", b"y"], 5, 0.0)
    assert not there.hear("w", [], 4, 0.0), "an older report that came late"
    assert not there.hear("w", [b"y", b"x"], 6, 2.0), "nothing new"
    assert there.pages() == {ONE.page, b"x", b"y"}
    assert there.silent_workers(2.0 + PRESENCE_EXPIRY_S / 2) == []
    assert there.silent_workers(2.0 + PRESENCE_EXPIRY_S) == ["w"]
    assert there.forget("w")
    assert not there.forget("w")
    assert there.pages() == {ONE.page}


def test_a_page_that_has_moved_is_there_once() -> None:
    """The worker that it left may be dead, and not be missed for a while."""
    there = channel(ONE, OTHER)
    there.hear("dead", [OTHER.page], 1, 0.0)
    assert there.pages() == {ONE.page, OTHER.page}
    assert there.listeners(ONE.page) == 1


def test_no_stranger_makes_us_know_workers_without_end() -> None:
    there = channel()
    for number in range(MAX_WORKERS + 5):
        there.hear(f"w{number}", [], 1, 0.0)
    assert len(there.workers()) == MAX_WORKERS
