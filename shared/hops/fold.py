"""Hops folded into the counters that people see: the one way from the stream to a number.

Whoever shows a count (stats, page, metrics) follows the hops stream through this fold, so that two
processes, or one process before and after a restart, show the same. Pure; records come in stream order.

A fallback is charged to the transport that was left: a record whose `fallback_from` names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from shared.bus.messages.records import HopRecord
from shared.transports import ORDER, TransportName

OUTCOME_CONFIRMED = "confirmed"
OUTCOME_ACCEPTED = "accepted"
OUTCOME_FAILED = "failed"
OUTCOME_CANCELLED = "cancelled"
OUTCOME_SKIPPED = "skipped"

OTHER_CAUSE = "other"


@dataclass(slots=True)
class TransportCounters:
    """Counts of one transport since it was last switched off. Keys are causes and outcomes as words.

    last_fallback_ms, last_error_ms: wall clock, 0 = never. confirmed_bytes: of verified answers only. last_error: of
    the latest hop that failed, "" once a later one got through.
    """

    fallback_count: int = 0
    last_fallback_ms: int = 0
    fallback_causes: Counter[str] = field(default_factory=Counter)
    hops: Counter[str] = field(default_factory=Counter)
    failure_causes: Counter[str] = field(default_factory=Counter)
    confirmed_bytes: int = 0
    last_error: str = ""
    last_error_ms: int = 0


def _never(transport: TransportName) -> int:
    return 0


class HopCounters:
    """Folds records into counters, a transport and in all.

    since_ms: when a transport was last switched off (Flags.counters_since_ms); what was stored before that
    is not counted, and a change of it starts that transport's counters again.
    """

    def __init__(self, since_ms: Callable[[TransportName], int] = _never) -> None:
        self._since_ms = since_ms
        self._counted_since = {transport: since_ms(transport) for transport in ORDER}
        self._counters = {transport: TransportCounters() for transport in ORDER}

    def apply(self, record: HopRecord, stored_ms: int) -> None:
        """Count one record. stored_ms: when the stream took it. Unknown transports are ignored."""
        self._restart_changed()
        for transport, counters in self._counters.items():
            if stored_ms < self._counted_since[transport]:
                continue
            if record.transport == transport.value:
                _count_hop(counters, record)
            if record.fallback_from == transport.value:
                _count_fallback(counters, record)

    def transport(self, transport: TransportName) -> TransportCounters:
        """The counters of one transport, as they are now; not to be changed by the caller."""
        self._restart_changed()
        return self._counters[transport]

    def __iter__(self) -> Iterator[tuple[TransportName, TransportCounters]]:
        self._restart_changed()
        return iter(self._counters.items())

    def _restart_changed(self) -> None:
        for transport in ORDER:
            since_ms = self._since_ms(transport)
            if since_ms > self._counted_since[transport]:
                self._counted_since[transport] = since_ms
                self._counters[transport] = TransportCounters()


def _count_hop(counters: TransportCounters, record: HopRecord) -> None:
    counters.hops[record.outcome] += 1
    if record.outcome == OUTCOME_CONFIRMED:
        counters.confirmed_bytes += record.bytes
    ended_ms = record.started_ms + round(record.elapsed_ms)
    if record.outcome in (OUTCOME_CONFIRMED, OUTCOME_ACCEPTED) and ended_ms >= counters.last_error_ms:
        counters.last_error, counters.last_error_ms = "", 0
    if record.outcome == OUTCOME_FAILED:
        cause = record.cause.value if record.cause is not None else OTHER_CAUSE
        counters.failure_causes[cause] += 1
        counters.last_error = cause
        counters.last_error_ms = ended_ms


def _count_fallback(counters: TransportCounters, record: HopRecord) -> None:
    counters.fallback_count += 1
    counters.last_fallback_ms = max(counters.last_fallback_ms, record.started_ms)
    counters.fallback_causes[record.fallback_cause.value if record.fallback_cause is not None else OTHER_CAUSE] += 1
