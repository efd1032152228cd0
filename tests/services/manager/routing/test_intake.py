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
        taking.done(peer, role)
        count += 1
    return count


def test_a_guest_has_its_rate_and_hears_when_to_come_back() -> None:
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
    taking.done("k1", ROLE_MEMBER)
    assert taking.refusal("k2", ROLE_MEMBER, 0.0) is None


def test_strangers_whose_requests_stay_open_leave_places_to_everybody_else() -> None:
    """Four of them, each with as many as it may have; identities cost nothing, so then forty."""
    taking = Intake()
    for strangers in (4, 40):
        for number in range(strangers):
            while taking.refusal(f"g{number}", ROLE_GUEST, float(strangers)) is None:
                pass
        assert taking._guest_count == min(strangers * intake.MAX_OPEN_A_GUEST, intake.MAX_OPEN_GUESTS)
        if strangers == 4:
            assert taking.refusal("another", ROLE_GUEST, float(strangers)) is None
            taking.done("another", ROLE_GUEST)
    assert taking._open_count == intake.MAX_OPEN_GUESTS < intake.MAX_OPEN
    for number in range(intake.MAX_OPEN - intake.MAX_OPEN_GUESTS):
        assert taking.refusal(f"m{number}", ROLE_MEMBER, 0.0) is None, "the members' places are not theirs"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.floats(0, 0.05)), max_size=300))
def test_what_is_open_is_never_more_than_it_says(steps: list[tuple[str, bool, float]]) -> None:
    taking, now = Intake(), 0.0
    opened: list[str] = []
    for peer, answer, wait_s in steps:
        now += wait_s
        if answer and opened:
            taking.done(last := opened.pop(), role_of(last))
        elif taking.refusal(peer, role_of(peer), now) is None:
            opened.append(peer)
        assert all(opened.count(one) <= intake.MAX_OPEN_A_PEER for one in set(opened))
        assert all(opened.count(one) <= intake.MAX_OPEN_A_GUEST for one in "abc")
    for peer in opened:
        taking.done(peer, role_of(peer))
    assert taking._open == {}
    assert (taking._open_count, taking._guest_count) == (0, 0)


def role_of(peer: str) -> str:
    return ROLE_GUEST if peer < "d" else ROLE_MEMBER
