"""Breakers from records: when they open, how they come back, and that they do not flap."""

from __future__ import annotations

from itertools import pairwise

import pytest

from services.manager.routing.breaker import BACKOFF_CAP_MS, BACKOFF_FIRST_MS, PROOF_INTERVAL_MS, STABLE_MS, Breakers
from shared.bus.messages.records import HopRecord
from shared.errors import Cause

PEER, WEBRTC = "peer-1", "webrtc"


def hop(outcome: str, cause: Cause | None, started_ms: int, transport: str = WEBRTC) -> HopRecord:
    return HopRecord("d", 1, transport, PEER, outcome, cause, "", None, False, started_ms, 10.0, 0, "", "", "m")


class Stream:
    """Feeds hops that follow one another, 20 ms each."""

    def __init__(self) -> None:
        self.breakers = Breakers()
        self.now_ms = 1_000_000

    def fails(self, times: int = 1, cause: Cause = Cause.CLOSED, outcome: str = "failed") -> None:
        for _ in range(times):
            self.breakers.trial_started(PEER, WEBRTC, self.now_ms)
            self.breakers.apply(hop(outcome, cause, self.now_ms), self.now_ms + 10)
            self.now_ms += 20

    def works(self, times: int = 1) -> None:
        for _ in range(times):
            self.breakers.trial_started(PEER, WEBRTC, self.now_ms)
            self.breakers.apply(hop("confirmed", None, self.now_ms), self.now_ms + 10)
            self.now_ms += 20

    @property
    def allows(self) -> bool:
        return self.breakers.allows(PEER, WEBRTC, self.now_ms)

    @property
    def is_open(self) -> bool:
        return self.breakers.is_open(PEER, WEBRTC)


def test_five_failures_in_a_row_open_it_for_two_seconds() -> None:
    stream = Stream()
    stream.fails(4)
    assert stream.allows
    stream.fails()
    assert not stream.allows
    stream.now_ms += BACKOFF_FIRST_MS
    assert stream.allows


def test_one_success_between_starts_the_count_again() -> None:
    stream = Stream()
    stream.fails(4)
    stream.works()
    stream.fails(4)
    assert not stream.is_open


def test_other_transports_and_peers_are_not_touched() -> None:
    stream = Stream()
    stream.fails(5)
    assert stream.breakers.allows(PEER, "webtorrent", stream.now_ms)
    assert stream.breakers.allows("peer-2", WEBRTC, stream.now_ms)


@pytest.mark.parametrize(
    "cause",
    [Cause.NO_LINK, Cause.BUSY, Cause.DISABLED, Cause.SOURCE_LOST, Cause.DRAINING, Cause.EXPIRED, Cause.DIAL_TIMEOUT],
)
def test_some_causes_are_nobodys_fault(cause: Cause) -> None:
    stream = Stream()
    stream.fails(30, cause)
    assert not stream.is_open


def test_losing_hedges_in_silence_counts_and_losing_them_fairly_does_not() -> None:
    fair = Stream()
    for _ in range(30):
        fair.breakers.apply(hop("cancelled", None, fair.now_ms), fair.now_ms + 10)
        fair.now_ms += 20
    assert not fair.is_open
    silent = Stream()
    silent.fails(5, Cause.SILENT, "cancelled")
    assert silent.is_open


def test_one_incident_is_one_failure() -> None:
    """A link that closes with many requests on it has failed once."""
    stream = Stream()
    for _ in range(12):
        stream.breakers.apply(hop("failed", Cause.CLOSED, stream.now_ms), stream.now_ms + 10)
    assert not stream.is_open


def test_the_error_budget_demotes_what_fails_half_the_time() -> None:
    stream = Stream()
    for _ in range(10):
        stream.works()
        stream.fails()
    assert stream.is_open


def test_a_trial_is_one_delivery_at_a_time() -> None:
    stream = Stream()
    stream.fails(5)
    stream.now_ms += BACKOFF_FIRST_MS
    stream.breakers.trial_started(PEER, WEBRTC, stream.now_ms)
    assert not stream.allows
    stream.breakers.apply(hop("confirmed", None, stream.now_ms), stream.now_ms + 10)
    assert stream.allows
    assert not stream.is_open


def test_a_trial_whose_manager_died_is_not_waited_for_indefinitely() -> None:
    stream = Stream()
    stream.fails(5)
    stream.now_ms += BACKOFF_FIRST_MS
    stream.breakers.trial_started(PEER, WEBRTC, stream.now_ms)
    stream.now_ms += 5_000
    assert stream.allows


def test_a_failed_trial_doubles_the_back_off_up_to_five_minutes() -> None:
    stream = Stream()
    stream.fails(5)
    waits: list[int] = []
    for _ in range(10):
        opened_ms = stream.now_ms
        while not stream.allows:
            stream.now_ms += 100
        waits.append(stream.now_ms - opened_ms)
        stream.fails()
    for before, after in pairwise(waits):
        assert after == pytest.approx(min(BACKOFF_CAP_MS, 2 * before), rel=0.1)
    assert waits[-1] == pytest.approx(BACKOFF_CAP_MS, rel=0.01)


def test_a_probe_that_finds_a_link_grants_a_trial_whatever_the_back_off() -> None:
    stream = Stream()
    stream.fails(5)
    for _ in range(6):
        stream.now_ms += BACKOFF_CAP_MS
        stream.fails()
    assert not stream.allows
    stream.now_ms += PROOF_INTERVAL_MS
    stream.breakers.proved(PEER, WEBRTC, stream.now_ms)
    assert stream.allows
    stream.works()
    assert stream.is_open, "one good trial is not enough for one that opened seven times"
    assert stream.allows, "but the next trial may follow at once"
    stream.works(2)
    assert not stream.is_open


def test_it_does_not_flap() -> None:
    """A failure right after the return opens it at once and for longer; a stable while forgets the past."""
    stream = Stream()
    stream.fails(5)
    stream.now_ms += BACKOFF_FIRST_MS
    stream.works()
    assert not stream.is_open
    stream.fails()
    assert stream.is_open
    stream.now_ms += BACKOFF_FIRST_MS
    assert not stream.allows
    stream.now_ms += BACKOFF_FIRST_MS
    stream.works(2)
    assert not stream.is_open
    stream.now_ms += STABLE_MS
    stream.works()
    stream.fails(4)
    assert not stream.is_open


def test_what_began_before_it_opened_says_nothing_of_after() -> None:
    stream = Stream()
    started_ms = stream.now_ms - 500
    stream.fails(5)
    stream.breakers.apply(hop("confirmed", None, started_ms), stream.now_ms)
    assert stream.is_open


def test_two_managers_that_read_the_same_stream_agree() -> None:
    one = Stream()
    log: list[tuple[HopRecord, int]] = []
    for index in range(60):
        record = hop("failed" if index % 3 else "confirmed", Cause.CLOSED if index % 3 else None, one.now_ms)
        log.append((record, one.now_ms + 10))
        one.breakers.apply(*log[-1])
        one.now_ms += 20
    late = Breakers()
    for entry in log:
        late.apply(*entry)
    for at_ms in range(one.now_ms, one.now_ms + 10_000, 500):
        assert late.allows(PEER, WEBRTC, at_ms) == one.breakers.allows(PEER, WEBRTC, at_ms)
    assert late.is_open(PEER, WEBRTC)
