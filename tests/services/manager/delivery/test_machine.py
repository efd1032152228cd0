"""The machine of one delivery, under a fake clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.manager.delivery.machine import Delivery
from services.manager.delivery.steps import (
    AskedAgain,
    DeliveryCancelled,
    DialFailed,
    DialSucceeded,
    Event,
    GiveAnswer,
    HopAccepted,
    HopAnswered,
    HopFailed,
    HopProgress,
    HopUnaccepted,
    HopVerdict,
    RulesChanged,
    SendOnLink,
    SlowCaller,
    WorkerLost,
)
from services.manager.routing.rank import (
    ANSWER_DEFAULT_S,
    ANSWER_LIMIT_FACTOR,
    DIAL_STAGGER_S,
    HEDGE_MAX_S,
    LINK_QUIET_S,
    MIN_RETRY_S,
    SILENT_LIMIT_S,
    Known,
)
from shared.bus.messages.envelopes import BodyRef
from shared.errors import Cause
from shared.transports import ORDER
from tests.services.manager.rig import (
    ANSWER,
    BROADCAST,
    WEBRTC,
    WEBTORRENT,
    Rig,
    all_linked,
    none_linked,
    with_heard,
    with_link,
    with_skip,
    without_acks,
)

BODY = BodyRef("worker", b"token", 1000)


def confirm(rig: Rig, hop: int, bytes_: int = 1000) -> None:
    rig.happens(HopAnswered(hop, ANSWER, BODY))
    rig.happens(HopVerdict(hop, None, bytes_))


def test_a_plain_delivery_is_one_confirmed_hop() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "worker-1"))
    rig.passes(0.02)
    rig.happens(HopProgress(1, 0))
    rig.happens(HopAnswered(1, ANSWER, BODY))
    assert rig.last == [GiveAnswer(1, WEBRTC, ANSWER, BODY)]
    assert rig.finish is None, "nothing is delivered before the caller's word"
    rig.happens(HopVerdict(1, None, 1000))
    assert rig.finish == ("confirmed", None)
    assert rig.story == [("webrtc", "confirmed", "")]
    assert (rig.records[0].bytes, rig.records[0].fallback_from) == (1000, None)
    assert rig.records[0].accepted_at == rig.records[0].started_at


@pytest.mark.parametrize(
    "failure",
    [HopFailed(1, cause) for cause in (Cause.NO_LINK, Cause.CLOSED, Cause.TOO_LARGE, Cause.REFUSED, Cause.DRAINING)]
    + [HopUnaccepted(1), HopFailed(1, Cause.BUSY, retry_after_s=0.5)],
)
def test_an_explicit_failure_goes_on_at_once(failure: Event) -> None:
    rig = Rig(all_linked())
    rig.happens(failure)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    confirm(rig, 2)
    second = rig.records[1]
    cause = failure.cause if isinstance(failure, HopFailed) else Cause.WORKER_LOST
    assert (second.fallback_from, second.fallback_cause, second.hedged) == (WEBRTC, cause, False)
    assert rig.finish == ("confirmed", None)


def test_silence_starts_a_hedge_and_the_first_goes_on() -> None:
    rig = Rig(all_linked())
    rig.passes(0.099)
    assert rig.sent == [(1, WEBRTC)]
    rig.passes(0.002)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    assert rig.records == []
    confirm(rig, 1)
    assert rig.story == [("webrtc", "confirmed", ""), ("webtorrent", "cancelled", "")]
    assert rig.cancelled == [2]
    assert (rig.records[1].fallback_from, rig.records[1].fallback_cause) == (WEBRTC, Cause.SILENT)


def test_a_loser_that_never_gave_a_sign_is_called_silent() -> None:
    rig = Rig(all_linked())
    rig.passes(0.11)
    confirm(rig, 2)
    assert rig.story == [("webtorrent", "confirmed", ""), ("webrtc", "cancelled", "silent")]
    assert rig.records[0].hedged


def test_progress_holds_the_hedge_back() -> None:
    rig = Rig(all_linked())
    rig.happens(HopProgress(1, 0))
    for count in range(8):
        rig.passes(0.4)
        rig.happens(HopProgress(1, count * 1000))
    assert rig.sent == [(1, WEBRTC)]
    rig.passes(0.51)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]


def test_a_request_queued_on_a_busy_link_is_not_silent() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "w1"))
    for _ in range(19):
        rig.passes(0.09)
        rig.routes = with_heard(rig.routes, WEBRTC, rig.now)
    assert rig.sent == [(1, WEBRTC)], "other requests' bytes come over its link"
    for _ in range(5):
        rig.passes(0.09)
        rig.routes = with_heard(rig.routes, WEBRTC, rig.now)
    assert rig.sent[:2] == [(1, WEBRTC), (2, WEBTORRENT)], "but not indefinitely"


def test_a_request_alone_on_a_link_is_hedged_after_the_learnt_delay() -> None:
    rig = Rig(with_heard(all_linked(), WEBRTC, 99.99, in_flight=1))
    rig.happens(HopAccepted(1, "w1"))
    rig.passes(0.11)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)], "what came before it was sent says nothing of it"


def test_a_request_behind_others_waits_until_the_link_has_been_quiet() -> None:
    rig = Rig(with_heard(all_linked(), WEBRTC, 100.0))
    rig.happens(HopAccepted(1, "w1"))
    rig.passes(LINK_QUIET_S - 0.01)
    assert rig.sent == [(1, WEBRTC)]
    rig.passes(0.02)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]


def test_the_budget_forbids_a_hedge_and_silence_becomes_a_failure() -> None:
    rig = Rig(replace(all_linked(), hedge_allowed=False))
    rig.passes(SILENT_LIMIT_S - 0.01)
    assert rig.sent == [(1, WEBRTC)]
    rig.passes(0.02)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    assert rig.story == [("webrtc", "failed", "silent")]
    assert rig.cancelled == [1]


def test_a_hedge_leaves_transports_without_a_link_alone() -> None:
    rig = Rig(with_link(all_linked(), WEBTORRENT, Known.UNLINKED))
    rig.passes(0.11)
    assert rig.sent == [(1, WEBRTC), (2, BROADCAST)]


@pytest.mark.parametrize("retry_after_s", [0.0, 0.08])
def test_busy_for_a_moment_is_waited_out_on_the_same_hop(retry_after_s: float) -> None:
    rig = Rig(all_linked())
    assert rig.happens(HopFailed(1, Cause.BUSY, retry_after_s)) == [SlowCaller(retry_after_s)]
    assert rig.passes(max(retry_after_s, MIN_RETRY_S) - 0.001) == []
    assert rig.passes(0.002) == [SendOnLink(1, WEBRTC, retry=True)]
    confirm(rig, 1)
    assert rig.story == [("webrtc", "confirmed", "")]


def test_busy_again_and_again_is_left() -> None:
    rig = Rig(all_linked())
    for _ in range(3):
        rig.happens(HopFailed(1, Cause.BUSY, 0.06))
        rig.passes(0.07)
    rig.happens(HopFailed(1, Cause.BUSY, 0.06))
    assert rig.story == [("webrtc", "failed", "busy")]
    assert rig.sent[-1] == (2, WEBTORRENT)


def test_busy_is_waited_out_to_the_end_where_there_is_nothing_else() -> None:
    routes = all_linked()
    for transport in (WEBTORRENT, BROADCAST):
        routes = with_skip(routes, transport, Cause.DISABLED)
    rig = Rig(routes)
    for _ in range(8):
        rig.happens(HopFailed(1, Cause.BUSY, 0.5))
        rig.passes(0.51)
    confirm(rig, 1)
    assert rig.finish == ("confirmed", None)


def test_a_bad_answer_is_a_failed_hop() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "worker-1"))
    rig.happens(HopAnswered(1, ANSWER, BODY))
    rig.happens(HopVerdict(1, Cause.INTEGRITY_MISMATCH))
    assert rig.story == [("webrtc", "failed", "integrity_mismatch")]
    assert rig.cancelled == [1], "the worker must forget the answer that it would give again"
    assert rig.sent[-1] == (2, WEBTORRENT)


def test_two_answers_are_judged_one_after_the_other() -> None:
    rig = Rig(all_linked())
    rig.passes(0.11)
    rig.happens(HopAnswered(2, ANSWER, BODY))
    rig.happens(HopAnswered(1, ANSWER, BODY))
    assert rig.given == [2]
    rig.happens(HopVerdict(2, Cause.INTEGRITY_MISMATCH))
    assert rig.given == [2, 1]
    rig.happens(HopVerdict(1, None, 1000))
    assert rig.finish == ("confirmed", None)


def test_source_lost_asks_the_same_transport_once_and_charges_nobody() -> None:
    rig = Rig(all_linked())
    rig.happens(HopFailed(1, Cause.SOURCE_LOST))
    rig.happens(HopFailed(2, Cause.SOURCE_LOST))
    confirm(rig, 3)
    assert [transport for _, transport in rig.sent] == [WEBRTC, WEBRTC, WEBTORRENT]
    assert [record.fallback_from for record in rig.records] == [None, None, None]


def test_a_lost_worker_fails_its_hops_at_once() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "worker-1"))
    rig.happens(HopProgress(1, 0))
    assert rig.machine.workers() == {"worker-1": rig.now}
    rig.happens(WorkerLost("another"))
    assert rig.sent == [(1, WEBRTC)]
    rig.happens(WorkerLost("worker-1"))
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    assert rig.story == [("webrtc", "failed", "worker_lost")]


def test_a_lost_worker_does_not_take_an_answer_back() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "worker-1"))
    rig.happens(HopAnswered(1, ANSWER, BODY))
    rig.happens(WorkerLost("worker-1"))
    assert rig.records == []
    rig.happens(HopVerdict(1, None, 1000))
    assert rig.finish == ("confirmed", None)


@pytest.mark.parametrize("cause", [Cause.DISABLED, Cause.CIRCUIT_OPEN])
def test_what_may_not_be_used_is_skipped_and_recorded(cause: Cause) -> None:
    rig = Rig(with_skip(all_linked(), WEBRTC, cause))
    assert rig.sent == [(2, WEBTORRENT)]
    confirm(rig, 2)
    assert rig.story == [("webrtc", "skipped", cause.value), ("webtorrent", "confirmed", "")]
    assert rig.records[1].fallback_from is None, "a skip is no hop, so nothing fell back from it"


def test_a_flag_switched_off_moves_the_hop_on() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "worker-1"))
    rig.happens(HopProgress(1, 500))
    rig.routes = with_skip(all_linked(), WEBRTC, Cause.DISABLED)
    rig.happens(RulesChanged())
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    assert rig.cancelled == [1]
    confirm(rig, 2)
    assert (rig.records[1].fallback_from, rig.records[1].fallback_cause) == (WEBRTC, Cause.DISABLED)


def test_a_blocked_peer_is_left_at_once_on_every_transport() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "worker-1"))
    for transport in ORDER:
        rig.routes = with_skip(rig.routes, transport, Cause.BLOCKED)
    rig.happens(RulesChanged())
    assert rig.finish == ("failed", Cause.BLOCKED)
    assert rig.story == [
        ("webrtc", "failed", "blocked"),
        ("webtorrent", "skipped", "blocked"),
        ("broadcast", "skipped", "blocked"),
    ]
    assert rig.cancelled == [1]


def test_dials_to_a_peer_that_is_blocked_meanwhile_are_dropped() -> None:
    rig = Rig(none_linked())
    for transport in ORDER:
        rig.routes = with_skip(rig.routes, transport, Cause.BLOCKED)
    rig.happens(RulesChanged())
    assert rig.story[0] == ("webrtc", "failed", "blocked")
    assert rig.finish == ("failed", Cause.BLOCKED)


@pytest.mark.parametrize("cause", [Cause.INTEGRITY_MISMATCH, Cause.REFUSED, Cause.FORBIDDEN])
def test_a_peer_that_has_answered_so_over_every_link_is_not_asked_again(cause: Cause) -> None:
    rig = Rig(all_linked())
    for number in (1, 2, 3):
        rig.happens(HopFailed(number, cause))
    assert rig.finish == ("failed", cause)
    assert len(rig.sent) == 3
    assert rig.dialled == []


def test_a_transport_whose_link_was_lost_is_dialled_the_one_that_answered_is_not() -> None:
    rig = Rig(all_linked())
    for number, cause in ((1, Cause.CLOSED), (2, Cause.INTEGRITY_MISMATCH), (3, Cause.NO_LINK)):
        rig.happens(HopFailed(number, cause))
    rig.passes(1.0)
    assert rig.dialled == [WEBRTC, BROADCAST]


def test_a_dial_that_is_known_to_fail_is_passed_over() -> None:
    rig = Rig(none_linked())
    for transport in ORDER:
        rig.happens(DialFailed(transport, Cause.UNAUTHENTICATED, tried=False))
    assert rig.finish == ("failed", Cause.UNAUTHENTICATED)
    assert rig.story == [(transport.value, "skipped", "unauthenticated") for transport in ORDER]


def test_an_acked_hop_that_stalls_and_loses_was_silent() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "worker-1"))
    rig.happens(HopProgress(1, 0))
    rig.passes(0.51)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    confirm(rig, 2)
    assert rig.story == [("webtorrent", "confirmed", ""), ("webrtc", "cancelled", "silent")]


def test_one_that_is_taken_up_again_goes_on_counting_its_hops() -> None:
    machine = Delivery(0.0, 10.0, first_hop=4)
    (sent,) = machine.start(all_linked(), 0.0)
    assert sent == SendOnLink(4, WEBRTC)
    assert machine.next_hop == 5


def test_everything_off_fails_at_once() -> None:
    routes = all_linked()
    for transport in (WEBRTC, WEBTORRENT, BROADCAST):
        routes = with_skip(routes, transport, Cause.DISABLED)
    rig = Rig(routes)
    assert rig.finish == ("failed", Cause.DISABLED)
    assert [outcome for _, outcome, _ in rig.story] == ["skipped"] * 3
    assert rig.sent == []
    assert rig.dialled == []


def test_no_link_at_all_dials_with_staggered_starts() -> None:
    rig = Rig(none_linked())
    assert rig.dialled == [WEBRTC]
    rig.passes(DIAL_STAGGER_S)
    assert rig.dialled == [WEBRTC, WEBTORRENT]
    rig.passes(DIAL_STAGGER_S)
    assert rig.dialled == [WEBRTC, WEBTORRENT, BROADCAST]
    rig.happens(DialSucceeded(WEBTORRENT))
    assert rig.sent == [(1, WEBTORRENT)]
    rig.happens(DialSucceeded(WEBRTC))
    assert rig.sent == [(1, WEBTORRENT)], "the second link waits for its use"
    confirm(rig, 1)
    assert rig.records[0].fallback_from is None
    assert rig.records[0].ended_at - rig.records[0].started_at == pytest.approx(DIAL_STAGGER_S)


def test_a_failed_dial_starts_the_next_at_once_and_is_a_hop() -> None:
    rig = Rig(none_linked())
    rig.passes(0.05)
    rig.happens(DialFailed(WEBRTC, Cause.SIGNALLING_UNAVAILABLE))
    assert rig.dialled == [WEBRTC, WEBTORRENT]
    rig.happens(DialSucceeded(WEBTORRENT))
    confirm(rig, 2)
    assert rig.story == [("webrtc", "failed", "signalling_unavailable"), ("webtorrent", "confirmed", "")]
    assert (rig.records[1].fallback_from, rig.records[1].fallback_cause) == (WEBRTC, Cause.SIGNALLING_UNAVAILABLE)


def test_a_second_dialled_link_takes_over() -> None:
    rig = Rig(none_linked())
    rig.passes(DIAL_STAGGER_S)
    rig.happens(DialSucceeded(WEBRTC))
    rig.happens(DialSucceeded(WEBTORRENT))
    rig.happens(HopFailed(1, Cause.CLOSED))
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]


def test_all_hops_failed_gives_one_round_of_dials_and_then_the_end() -> None:
    rig = Rig(all_linked())
    for hop in (1, 2, 3):
        rig.happens(HopFailed(hop, Cause.NO_LINK))
    assert rig.dialled == [WEBRTC]
    rig.happens(DialSucceeded(WEBRTC))
    assert rig.sent[-1] == (4, WEBRTC)
    rig.happens(HopFailed(4, Cause.CLOSED))
    assert rig.finish is None, "the other dials may still bring a link"
    rig.passes(0.5)
    rig.happens(DialFailed(WEBTORRENT, Cause.DIAL_TIMEOUT))
    rig.happens(DialFailed(BROADCAST, Cause.NO_LISTENER))
    assert rig.finish == ("failed", Cause.NO_LISTENER)
    assert [record.fallback_from for record in rig.records[:4]] == [None, WEBRTC, WEBTORRENT, None]
    assert len({record.number for record in rig.records}) == len(rig.records)


def test_the_deadline_is_the_end() -> None:
    rig = Rig(all_linked(), timeout_s=1.0)
    rig.happens(HopProgress(1, 0))
    rig.passes(2.0)
    assert rig.finish == ("failed", Cause.TIMEOUT)
    assert ("webrtc", "failed", "timeout") in rig.story
    assert rig.happens(HopVerdict(1, None, 1)) == []
    assert rig.machine.next_deadline() is None


def test_a_dial_that_lasts_to_the_deadline_is_reported() -> None:
    rig = Rig(none_linked(), timeout_s=0.2)
    rig.passes(0.2)
    assert rig.story == [("webrtc", "failed", "dial_timeout")]
    assert rig.finish == ("failed", Cause.DIAL_TIMEOUT)


def test_an_answer_nobody_judged_is_accepted_not_confirmed() -> None:
    rig = Rig(all_linked(), timeout_s=1.0)
    rig.happens(HopAnswered(1, ANSWER, BODY))
    rig.passes(1.0)
    assert rig.story == [("webrtc", "accepted", "")]
    assert rig.finish == ("failed", Cause.TIMEOUT)


def test_a_manager_that_was_stopped_charges_nobody() -> None:
    rig = Rig(all_linked(), timeout_s=1.0)
    rig.now += 5.0
    rig.happens(HopProgress(1, 0))
    assert rig.story == [("webrtc", "cancelled", "expired")]
    assert rig.finish == ("failed", Cause.EXPIRED)


def test_the_caller_may_cancel() -> None:
    rig = Rig(all_linked())
    rig.passes(0.2)
    rig.happens(DeliveryCancelled())
    assert rig.finish == ("cancelled", None)
    assert [(outcome, cause) for _, outcome, cause in rig.story] == [("cancelled", "")] * len(rig.sent)
    assert len(rig.cancelled) == len(rig.sent)


def test_asked_again_the_answer_is_given_again() -> None:
    rig = Rig(all_linked())
    assert rig.happens(AskedAgain()) == []
    rig.happens(HopAnswered(1, ANSWER, BODY))
    rig.happens(AskedAgain())
    assert rig.given == [1, 1]


@pytest.mark.parametrize(
    "late",
    [HopProgress(1, 5), HopAnswered(1, ANSWER, BODY), HopVerdict(1, None, 5), HopFailed(1, Cause.CLOSED)],
)
def test_what_comes_late_for_a_hop_that_ended_is_ignored(late: Event) -> None:
    rig = Rig(all_linked())
    rig.happens(HopFailed(1, Cause.CLOSED))
    assert rig.happens(late) == []


def test_a_silent_last_resort_is_waited_for() -> None:
    """With nothing else to try, giving up early would only lose an answer that may still come."""
    rig = Rig(none_linked())
    rig.happens(DialSucceeded(WEBRTC))
    for transport in (WEBTORRENT, BROADCAST):
        rig.passes(DIAL_STAGGER_S)
        rig.happens(DialFailed(transport, Cause.DIAL_TIMEOUT))
    rig.passes(6.0)
    confirm(rig, 1)
    assert rig.finish == ("confirmed", None)


def test_a_slow_hop_is_not_given_up_for_transports_without_a_link() -> None:
    routes = with_link(with_link(all_linked(), WEBTORRENT, Known.UNLINKED), BROADCAST, Known.UNLINKED)
    rig = Rig(routes)
    rig.happens(HopProgress(1, 0))
    rig.passes(6.0)
    assert rig.sent == [(1, WEBRTC)]
    confirm(rig, 1)
    assert rig.finish == ("confirmed", None)


def test_a_long_busy_with_dials_to_come_does_not_wait_for_either() -> None:
    rig = Rig(none_linked())
    rig.happens(DialSucceeded(WEBRTC))
    rig.happens(HopFailed(1, Cause.BUSY, 3.0))
    assert rig.dialled == [WEBRTC, WEBTORRENT], "the stagger is for dials in flight, not for a failure"


@pytest.mark.parametrize(
    ("last", "cause"),
    [([], "silent"), ([HopProgress(1, 0)], "timeout")],
)
def test_at_the_deadline_a_hop_says_what_it_was_waiting_for(last: list[Event], cause: str) -> None:
    routes = all_linked()
    for transport in (WEBTORRENT, BROADCAST):
        routes = with_skip(routes, transport, Cause.DISABLED)
    rig = Rig(routes, timeout_s=0.9)
    for event in last:
        rig.happens(event)
    rig.passes(1.0)
    assert rig.story[-1] == ("webrtc", "failed", cause)
    assert rig.finish is not None
    assert rig.finish[0] == "failed"


@pytest.mark.parametrize("cause", [Cause.DISABLED, Cause.CIRCUIT_OPEN])
def test_a_busy_hop_is_not_sent_again_on_what_may_not_be_used(cause: Cause) -> None:
    rig = Rig(all_linked())
    rig.happens(HopFailed(1, Cause.BUSY, 0.06))
    rig.routes = with_skip(rig.routes, WEBRTC, cause)
    rig.passes(0.07)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    assert rig.story == [("webrtc", "failed", cause.value)]


def test_a_verdict_on_an_answer_that_was_not_given_is_ignored() -> None:
    rig = Rig(all_linked())
    rig.passes(0.11)
    rig.happens(HopAnswered(2, ANSWER, BODY))
    rig.happens(HopAnswered(1, ANSWER, BODY))
    assert rig.happens(HopVerdict(1, None, 1000)) == []
    rig.happens(HopVerdict(2, None, 1000))
    assert rig.finish == ("confirmed", None)


# ── peers that cannot ack, and peers that cannot answer ──


def accepted_without_acks(hop: int = 1) -> HopAccepted:
    return HopAccepted(hop, f"worker-{hop}", acks=False)


def test_a_peer_that_cannot_ack_is_not_hedged_against_before_its_answer_is_late() -> None:
    rig = Rig(all_linked(), timeout_s=30.0)
    rig.happens(accepted_without_acks())
    rig.passes(ANSWER_DEFAULT_S - 0.01)
    assert rig.sent == [(1, WEBRTC)], "nothing was learnt yet: the default is generous"
    confirm(rig, 1)
    assert rig.story == [("webrtc", "confirmed", "")]


def test_the_delay_of_a_peer_that_cannot_ack_is_learnt_from_its_answers() -> None:
    rig = Rig(without_acks(all_linked(), WEBRTC, 1.5), timeout_s=30.0)
    rig.happens(accepted_without_acks())
    rig.passes(1.49)
    assert rig.sent == [(1, WEBRTC)]
    rig.passes(0.02)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    confirm(rig, 2)
    assert rig.story == [("webtorrent", "confirmed", ""), ("webrtc", "cancelled", "silent")]


def test_a_peer_that_cannot_ack_is_not_given_up_as_silent_where_hedges_are_not_allowed() -> None:
    rig = Rig(replace(without_acks(all_linked(), WEBRTC, 1.5), hedge_allowed=False), timeout_s=30.0)
    rig.happens(accepted_without_acks())
    rig.passes(max(SILENT_LIMIT_S, 1.5 * ANSWER_LIMIT_FACTOR) - 0.01)
    assert rig.records == []
    rig.passes(0.02)
    assert rig.story == [("webrtc", "failed", "silent")]
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]


def test_a_worker_that_says_nothing_is_hedged_against_whatever_its_peer_can() -> None:
    rig = Rig(without_acks(all_linked(), WEBRTC))
    rig.passes(0.11)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]


def test_bytes_of_an_answer_are_a_sign_of_life_of_a_peer_that_cannot_ack_too() -> None:
    rig = Rig(all_linked(), timeout_s=30.0)
    rig.happens(accepted_without_acks())
    rig.passes(4.0)
    rig.happens(HopProgress(1, 1000))
    rig.passes(0.49)
    assert rig.sent == [(1, WEBRTC)]
    rig.passes(0.02)
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)], "that it fell quiet in the middle says something"


def test_at_the_deadline_a_peer_that_cannot_ack_was_not_silent() -> None:
    rig = Rig(all_linked(), timeout_s=3.0)
    rig.happens(accepted_without_acks())
    rig.passes(3.0)
    assert rig.story == [("webrtc", "failed", "timeout")]


def test_busy_is_not_waited_out_for_longer_because_a_peer_cannot_ack() -> None:
    rig = Rig(all_linked())
    rig.happens(accepted_without_acks())
    rig.happens(HopFailed(1, Cause.BUSY, HEDGE_MAX_S + 0.1))
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]


def test_a_peer_that_cannot_answer_ends_accepted() -> None:
    routes = with_link(with_link(all_linked(), WEBTORRENT, Known.UNLINKED), BROADCAST, Known.UNLINKED)
    rig = Rig(routes)
    rig.happens(HopAccepted(1, "worker-1", acks=False, confirms=False))
    for hop in (2, 3):
        rig.happens(HopFailed(hop, Cause.NO_LINK))
    assert rig.finish == ("accepted", None)
    assert rig.story == [
        ("webrtc", "accepted", ""),
        ("webtorrent", "failed", "no_link"),
        ("broadcast", "failed", "no_link"),
    ]
    assert rig.dialled == [], "what it was asked it has"
    assert [record.fallback_from for record in rig.records[:2]] == [None, None], "nothing had failed"


def test_where_another_link_can_bring_an_answer_it_is_asked() -> None:
    rig = Rig(all_linked())
    rig.happens(HopAccepted(1, "worker-1", acks=False, confirms=False))
    assert rig.sent == [(1, WEBRTC), (2, WEBTORRENT)]
    confirm(rig, 2)
    assert rig.finish == ("confirmed", None)
    assert rig.story == [("webrtc", "accepted", ""), ("webtorrent", "confirmed", "")]


def test_accepted_at_the_deadline_is_not_failed() -> None:
    rig = Rig(all_linked(), timeout_s=1.0)
    rig.happens(HopAccepted(1, "worker-1", acks=False, confirms=False))
    rig.happens(HopProgress(2, 0))
    rig.passes(1.0)
    assert rig.finish == ("accepted", None)


# ── open circuits ──


@pytest.mark.parametrize("others", [Cause.DISABLED, Cause.CIRCUIT_OPEN])
def test_an_open_circuit_on_the_last_usable_transport_does_not_refuse(others: Cause) -> None:
    routes = with_skip(all_linked(), WEBRTC, Cause.CIRCUIT_OPEN)
    for transport in (WEBTORRENT, BROADCAST):
        routes = with_skip(routes, transport, others)
    rig = Rig(routes)
    assert [transport for _, transport in rig.sent] == [WEBRTC]
    assert {(outcome, cause) for _, outcome, cause in rig.story} == {
        ("skipped", "circuit_open"),
        ("skipped", others.value),
    }
    confirm(rig, rig.sent[0][0])
    assert rig.finish == ("confirmed", None)


def test_an_open_circuit_does_not_refuse_where_no_other_transport_has_a_link() -> None:
    rig = Rig(with_skip(with_link(none_linked(), WEBRTC, Known.LINKED), WEBRTC, Cause.CIRCUIT_OPEN))
    assert rig.dialled == [WEBTORRENT], "a better link is looked for"
    assert [transport for _, transport in rig.sent] == [WEBRTC], "and meanwhile the doubtful one is asked"
    rig.passes(0.1)
    rig.happens(DialSucceeded(WEBTORRENT))
    rig.passes(0.21)
    assert [transport for _, transport in rig.sent] == [WEBRTC, WEBTORRENT]


def test_a_transport_whose_circuit_is_open_is_dialled_last() -> None:
    routes = with_skip(none_linked(), WEBRTC, Cause.CIRCUIT_OPEN)
    for transport in (WEBTORRENT, BROADCAST):
        routes = with_skip(routes, transport, Cause.DISABLED)
    rig = Rig(routes)
    assert rig.dialled == [WEBRTC]
    rig.happens(DialSucceeded(WEBRTC))
    assert [transport for _, transport in rig.sent] == [WEBRTC]


def test_with_another_link_an_open_circuit_keeps_traffic_away_and_is_asked_when_that_failed() -> None:
    rig = Rig(with_skip(with_link(all_linked(), BROADCAST, Known.UNLINKED), WEBRTC, Cause.CIRCUIT_OPEN))
    assert [transport for _, transport in rig.sent] == [WEBTORRENT]
    rig.happens(HopFailed(2, Cause.CLOSED))
    rig.happens(HopFailed(3, Cause.NO_LINK))
    assert [transport for _, transport in rig.sent] == [WEBTORRENT, BROADCAST, WEBRTC]


def test_busy_on_the_last_resort_is_waited_out() -> None:
    routes = with_skip(all_linked(), WEBRTC, Cause.CIRCUIT_OPEN)
    for transport in (WEBTORRENT, BROADCAST):
        routes = with_skip(routes, transport, Cause.DISABLED)
    rig = Rig(routes)
    number = rig.sent[0][0]
    rig.happens(HopFailed(number, Cause.BUSY, 0.5))
    assert rig.passes(0.51) == [SendOnLink(number, WEBRTC, retry=True)]
