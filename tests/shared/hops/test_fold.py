"""Counters from records: what is charged to whom, and when counting starts again."""

from __future__ import annotations

from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.hops.fold import HopCounters
from shared.transports import TransportName

WEBRTC, WEBTORRENT, BROADCAST = TransportName


def hop(
    transport: str,
    outcome: str,
    cause: Cause | None = None,
    fallback: tuple[str, Cause] | None = None,
    started_ms: int = 1_000,
    size: int = 0,
) -> HopRecord:
    left, why = fallback or ("", None)
    return HopRecord("d", 1, transport, "peer-1", outcome, cause, left, why, False, started_ms, 5.0, size, "", "", "m")


def test_a_fallback_is_charged_to_the_transport_that_was_left() -> None:
    counters = HopCounters()
    counters.apply(hop("webrtc", "failed", Cause.CLOSED), 1_010)
    counters.apply(hop("webtorrent", "confirmed", None, ("webrtc", Cause.CLOSED), 1_006, 500), 1_020)
    webrtc, webtorrent = counters.transport(WEBRTC), counters.transport(WEBTORRENT)
    assert (webrtc.fallback_count, webrtc.last_fallback_ms) == (1, 1_006)
    assert webrtc.fallback_causes == {"closed": 1}
    assert (webrtc.last_error, webrtc.last_error_ms) == ("closed", 1_005)
    assert webrtc.hops == {"failed": 1}
    assert (webtorrent.fallback_count, webtorrent.last_error) == (0, "")
    assert webtorrent.hops == {"confirmed": 1}
    assert webtorrent.confirmed_bytes == 500


def test_only_confirmed_bytes_count_and_only_failures_are_errors() -> None:
    counters = HopCounters()
    counters.apply(hop("webrtc", "cancelled", Cause.SILENT, size=100), 1_010)
    counters.apply(hop("webrtc", "skipped", Cause.DISABLED), 1_010)
    webrtc = counters.transport(WEBRTC)
    assert (webrtc.confirmed_bytes, webrtc.last_error) == (0, "")
    assert webrtc.hops == {"cancelled": 1, "skipped": 1}


def test_switching_off_starts_that_transports_counters_again() -> None:
    since = {WEBRTC: 0, WEBTORRENT: 0, BROADCAST: 0}
    counters = HopCounters(since.__getitem__)
    counters.apply(hop("webrtc", "failed", Cause.CLOSED), 1_010)
    counters.apply(hop("webtorrent", "confirmed", None, ("webrtc", Cause.CLOSED)), 1_010)
    since[WEBRTC] = 2_000
    assert counters.transport(WEBRTC).hops == {}
    assert (counters.transport(WEBRTC).fallback_count, counters.transport(WEBRTC).last_fallback_ms) == (0, 0)
    assert counters.transport(WEBTORRENT).hops == {"confirmed": 1}
    counters.apply(hop("webrtc", "failed", Cause.CLOSED), 1_999)
    counters.apply(hop("webrtc", "confirmed"), 2_001)
    assert counters.transport(WEBRTC).hops == {"confirmed": 1}


def test_a_late_reader_counts_the_same() -> None:
    since = {WEBRTC: 1_500, WEBTORRENT: 0, BROADCAST: 0}
    log = [(hop("webrtc", "failed", Cause.CLOSED, started_ms=at), at) for at in range(1_000, 2_000, 100)]
    early, late = HopCounters(), HopCounters(since.__getitem__)
    for entry in log:
        late.apply(*entry)
    assert late.transport(WEBRTC).hops == {"failed": 5}
    for entry in log:
        early.apply(*entry)
    assert early.transport(WEBRTC).hops == {"failed": 10}


def test_an_unknown_transport_is_ignored() -> None:
    counters = HopCounters()
    counters.apply(hop("pigeon", "confirmed", None, ("smoke", Cause.OTHER)), 1)
    assert sum(one.fallback_count for _, one in counters) == 0
    assert [name for name, _ in counters] == list(TransportName)


def test_a_last_error_goes_when_a_later_hop_gets_through() -> None:
    counters = HopCounters()
    counters.apply(hop("webrtc", "failed", Cause.CLOSED, started_ms=1_000), 1)
    counters.apply(hop("webrtc", "confirmed", started_ms=500), 2)  # ended before it, stored after it
    assert counters.transport(WEBRTC).last_error == "closed"
    counters.apply(hop("webrtc", "confirmed", started_ms=2_000), 3)
    found = counters.transport(WEBRTC)
    assert (found.last_error, found.last_error_ms, found.failure_causes["closed"]) == ("", 0, 1)
