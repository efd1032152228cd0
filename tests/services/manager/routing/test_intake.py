"""What peers may ask: each its rate and its share of what is open, guests together one more rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.manager.routing import intake
from services.manager.routing.intake import Intake, Refusal
from shared.bus.messages.envelopes import ROLE_GUEST, ROLE_MEMBER
from shared.errors import Cause


def burst(taking: Intake, peer: str, role: str, now: float) -> int:
    """How many requests are let in at one moment, each answered at once."""
    count = 0
    while taking.refusal(peer, role, now) is None:
        taking.done(peer)
        count += 1
    return count


def test_a_guest_has_its_rate_and_is_told_when_to_come_back() -> None:
    taking = Intake()
    assert burst(taking, "g1", ROLE_GUEST, 0.0) == intake.GUEST_BURST
    refused = taking.refusal("g1", ROLE_GUEST, 0.0)
    assert refused is not None
    assert (refused.cause, round(refused.retry_after_s, 6)) == (Cause.RATE_LIMITED, 1 / intake.GUEST_REQUESTS_PER_S)
    assert taking.refusal("g1", ROLE_GUEST, refused.retry_after_s) is None
    assert burst(taking, "g2", ROLE_GUEST, 0.0) == intake.GUEST_BURST, "another guest has its own"


def test_all_guests_together_leave_members_their_own() -> None:
    taking = Intake()
    let_in = sum(burst(taking, f"g{number}", ROLE_GUEST, 0.0) for number in range(20))
    assert let_in == intake.ALL_GUESTS_BURST
    assert burst(taking, "k1", ROLE_MEMBER, 0.0) == intake.MEMBER_BURST


def test_a_guest_over_its_own_rate_takes_nothing_from_the_others() -> None:
    taking = Intake()
    burst(taking, "g0", ROLE_GUEST, 0.0)
    for _ in range(10_000):
        assert taking.refusal("g0", ROLE_GUEST, 0.0) is not None
    others = sum(burst(taking, f"g{number}", ROLE_GUEST, 0.0) for number in range(1, 20))
    assert others == intake.ALL_GUESTS_BURST - intake.GUEST_BURST


def test_so_many_are_open_for_one_peer_and_in_all() -> None:
    taking = Intake()
    busy = Refusal(Cause.BUSY, intake.BUSY_RETRY_S)
    for _ in range(intake.MAX_OPEN_A_PEER):
        assert taking.refusal("k1", ROLE_MEMBER, 0.0) is None
    assert taking.refusal("k1", ROLE_MEMBER, 0.0) == busy
    for number in range(intake.MAX_OPEN - intake.MAX_OPEN_A_PEER):
        assert taking.refusal(f"m{number}", ROLE_MEMBER, 0.0) is None
    assert taking.refusal("k2", ROLE_MEMBER, 0.0) == busy
    taking.done("k1")
    assert taking.refusal("k2", ROLE_MEMBER, 0.0) is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.floats(0, 0.05)), max_size=300))
def test_what_is_open_is_never_more_than_it_says(steps: list[tuple[str, bool, float]]) -> None:
    taking, now = Intake(), 0.0
    opened: list[str] = []
    for peer, answer, wait_s in steps:
        now += wait_s
        if answer and opened:
            taking.done(opened.pop())
        elif taking.refusal(peer, ROLE_GUEST if peer < "d" else ROLE_MEMBER, now) is None:
            opened.append(peer)
        assert all(opened.count(one) <= intake.MAX_OPEN_A_PEER for one in set(opened))
    for peer in opened:
        taking.done(peer)
    assert taking._open == {}
    assert taking._open_count == 0
