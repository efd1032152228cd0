"""Two guests are one page when each has named the other, and for as long as the one here has a link."""

from __future__ import annotations

from shared.ids import PeerToken, guest_token
from shared.worker.ties import HEARD_TTL_S, MAX_HEARD, MAX_NAMES, Ties

HERE, THERE, STRANGER = guest_token("page-1"), guest_token("peerjs-1"), guest_token("stranger")


def test_both_have_to_say_it() -> None:
    ties = Ties()
    assert ties.say(HERE, THERE, 0.0)
    assert ties.peer_of(THERE) is None
    ties.hear(THERE, HERE, 1.0)
    assert ties.peer_of(THERE) == HERE
    assert list(ties.guests()) == [THERE]


def test_in_either_order() -> None:
    ties = Ties()
    ties.hear(THERE, HERE, 0.0)
    assert ties.say(HERE, THERE, 1.0)
    assert ties.peer_of(THERE) == HERE


def test_whoever_names_somebody_else_gets_nothing() -> None:
    ties = Ties()
    ties.hear(THERE, HERE, 0.0)
    ties.say(STRANGER, THERE, 0.0)
    ties.hear(STRANGER, HERE, 0.0)
    assert ties.peer_of(THERE) is None
    assert ties.peer_of(STRANGER) is None


def test_what_was_heard_long_ago_ties_nobody() -> None:
    ties = Ties()
    ties.hear(THERE, HERE, 0.0)
    ties.say(HERE, THERE, HEARD_TTL_S)
    assert ties.peer_of(THERE) is None


def test_a_tie_outlives_the_other_and_ends_with_the_link_here() -> None:
    ties = Ties()
    ties.say(HERE, THERE, 0.0)
    ties.hear(THERE, HERE, 0.0)
    ties.hear(STRANGER, STRANGER, 100 * HEARD_TTL_S)
    assert ties.peer_of(THERE) == HERE
    ties.forget(HERE)
    assert ties.peer_of(THERE) is None
    assert ties.pairs() == []


def test_a_page_that_was_loaded_again_is_the_one_now() -> None:
    ties = Ties()
    after = guest_token("page-2")
    for page in (HERE, after):
        ties.say(page, THERE, 0.0)
        ties.hear(THERE, page, 0.0)
    assert ties.peer_of(THERE) == after
    ties.forget(HERE)
    assert ties.peer_of(THERE) == after


def test_bounds() -> None:
    ties = Ties()
    names = [guest_token(f"g{number}") for number in range(MAX_NAMES + 1)]
    for name in names:
        assert ties.say(HERE, name, 0.0)
        assert not ties.say(HERE, name, 0.0)
    assert ties.pairs() == [(HERE, name) for name in names[1:]]
    for number in range(MAX_HEARD + 1):
        ties.hear(PeerToken(guest_token(f"h{number}")), HERE, 0.0)
    assert len(ties._heard) == MAX_HEARD
