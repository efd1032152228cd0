"""The order of hops and dials."""

from __future__ import annotations

import pytest

from services.manager.routing.rank import (
    DIAL_STAGGER_S,
    HEDGE_MAX_S,
    HEDGE_MIN_S,
    STALL_MIN_S,
    Known,
    hedge_delay_s,
    rank,
    rank_dials,
    stall_delay_s,
)
from shared.errors import Cause
from shared.transports import ORDER
from tests.services.manager.rig import BROADCAST, WEBRTC, WEBTORRENT, none_linked, with_link, with_skip


def test_with_a_link_every_transport_has_its_turn_in_order() -> None:
    assert rank(with_link(none_linked(), BROADCAST, Known.LINKED)) == list(ORDER)


def test_without_a_usable_link_there_are_no_hops() -> None:
    assert rank(none_linked()) == []
    only_a_forbidden_link = with_skip(with_link(none_linked(), WEBRTC, Known.LINKED), WEBRTC, Cause.DISABLED)
    assert rank(only_a_forbidden_link) == []


def test_dials_start_apart_and_leave_out_what_may_not_be_used() -> None:
    assert rank_dials(none_linked()) == [(WEBRTC, 0.0), (WEBTORRENT, DIAL_STAGGER_S), (BROADCAST, 2 * DIAL_STAGGER_S)]
    without = rank_dials(with_skip(none_linked(), WEBRTC, Cause.DISABLED))
    assert without == [(WEBTORRENT, 0.0), (BROADCAST, DIAL_STAGGER_S)]


def test_an_open_circuit_puts_a_dial_last() -> None:
    dials = rank_dials(with_skip(none_linked(), WEBRTC, Cause.CIRCUIT_OPEN))
    assert dials == [(WEBTORRENT, 0.0), (BROADCAST, DIAL_STAGGER_S), (WEBRTC, 2 * DIAL_STAGGER_S)]


@pytest.mark.parametrize(
    ("smoothed_s", "deviation_s", "delay_s"),
    [(0.001, 0.0005, HEDGE_MIN_S), (0.05, 0.02, 0.13), (0.2, 0.1, HEDGE_MAX_S), (5.0, 1.0, HEDGE_MAX_S)],
)
def test_the_hedge_delay_follows_the_links_round_trips(smoothed_s: float, deviation_s: float, delay_s: float) -> None:
    assert hedge_delay_s(smoothed_s, deviation_s) == pytest.approx(delay_s)
    assert stall_delay_s(smoothed_s, deviation_s) >= STALL_MIN_S
