from __future__ import annotations

import pytest

from services.manager.delivery.dial_round import DialRound
from shared.transports import ORDER

WEBRTC, WEBTORRENT, BROADCAST = ORDER


def a_round() -> DialRound:
    return DialRound([(WEBRTC, 0.0), (WEBTORRENT, 0.25), (BROADCAST, 0.5)])


def test_dials_start_at_their_times() -> None:
    dials = a_round()
    assert [dials.start_due(now) for now in (0.0, 0.1, 0.25, 0.5)] == [[WEBRTC], [], [WEBTORRENT], [BROADCAST]]


def test_a_failed_dial_pulls_all_that_follow_forward() -> None:
    dials = a_round()
    dials.start_due(0.0)
    assert dials.failed(WEBRTC, 0.01) == 0.0
    assert dials.start_due(0.01) == [WEBTORRENT]
    assert dials.next_start() == pytest.approx(0.26), "the one after it keeps its distance"


def test_a_dial_that_was_overdue_is_not_put_off() -> None:
    dials = a_round()
    dials.start_due(0.0)
    dials.failed(WEBRTC, 0.4)
    assert dials.start_due(0.4) == [WEBTORRENT]
    assert dials.next_start() == 0.5
