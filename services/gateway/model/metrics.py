"""GET /metrics: the Prometheus text format (version 0.0.4), by hand: a dozen families need no client library.

Counters never go back while the process lives: they are folded from every attempt in the stream, not from the
status counters that switching a transport off resets. After a restart they start from what the capped stream
still holds, which Prometheus takes for the counter reset that it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from shared.attempts.fold import AttemptCounters, TransportCounters
from shared.bus.messages.records import WorkerStatus
from shared.gateway_api.structs import ManagersView, TransportStats
from shared.telemetry import names
from shared.transports import TransportState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_REMEMBERED_WORKERS = 1024

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, int]


class MetricTotals:
    """What only ever grows. attempts: the fold without its resets."""

    def __init__(self) -> None:
        self.attempts = AttemptCounters()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.chaos: Counter[tuple[str, str]] = Counter()
        self._last: dict[str, WorkerStatus] = {}

    def apply_status(self, status: WorkerStatus) -> None:
        """A worker's counts begin when it is enabled; what is less than before has begun anew."""
        before = self._last.pop(status.worker, None)
        _grow(self.refused, status.transport, before.refused if before else {}, status.refused)
        _grow(self.chaos, status.transport, before.chaos if before else {}, status.chaos)
        self._last[status.worker] = status
        if len(self._last) > MAX_REMEMBERED_WORKERS:
            del self._last[next(iter(self._last))]


def render(
    totals: MetricTotals, transports: Iterable[TransportStats], managers: ManagersView, blocked_count: int
) -> str:
    """The whole page of metrics. Labels are transports, causes, outcomes and states: closed, small sets.

    blocked_count: peers on the blocklist.
    """
    rows = list(transports)
    states = [
        ((("transport", row.id), ("state", state.value)), int(row.state == state.value))
        for row in rows
        for state in TransportState
    ]
    families = [
        _family(
            names.METRIC_FALLBACKS,
            "counter",
            "Hops left for another transport.",
            _by_transport(totals.attempts, "from", "cause", lambda counters: counters.fallback_causes),
        ),
        _family(
            names.METRIC_ATTEMPTS,
            "counter",
            "Hops by how they ended.",
            _by_transport(totals.attempts, "transport", "outcome", lambda counters: counters.attempts),
        ),
        _family(
            names.METRIC_CONFIRMED_BYTES,
            "counter",
            "Bytes of verified answers.",
            [((("transport", name.value),), counters.confirmed_bytes) for name, counters in totals.attempts],
        ),
        _family(
            names.METRIC_REFUSED,
            "counter",
            "What workers refused, by limit or cause.",
            [((("transport", key[0]), ("cause", key[1])), count) for key, count in sorted(totals.refused.items())],
        ),
        _family(
            names.METRIC_CHAOS,
            "counter",
            "Requests harmed on purpose by chaos flags, and chaos flags ignored.",
            [((("transport", key[0]), ("fault", key[1])), count) for key, count in sorted(totals.chaos.items())],
        ),
        _family(names.METRIC_STATE, "gauge", "1 for the state a transport is in.", states),
        _family(
            names.METRIC_PEERS,
            "gauge",
            "Peers with a live link.",
            [((("transport", row.id),), row.connected_peers) for row in rows],
        ),
        _family(names.METRIC_MANAGERS, "gauge", "Live managers.", [((), managers.count)]),
        _family(names.METRIC_DELIVERIES, "gauge", "Deliveries in flight.", [((), managers.deliveries)]),
        _family(
            names.METRIC_DELIVERIES_REFUSED,
            "counter",
            "Deliveries that managers did not take; their callers asked again.",
            [((("cause", cause),), count) for cause, count in managers.refused.items()],
        ),
        _family(
            names.METRIC_BLOCKED_PEERS,
            "gauge",
            "Peers on the blocklist, whatever the direction.",
            [((), blocked_count)],
        ),
    ]
    return "".join(families)


def _grow(totals: Counter[tuple[str, str]], transport: str, before: Mapping[str, int], now: Mapping[str, int]) -> None:
    for word, count in now.items():
        known = before.get(word, 0)
        totals[transport, word] += count - known if count >= known else count


def _by_transport(
    attempts: AttemptCounters, first: str, second: str, counts: Callable[[TransportCounters], Mapping[str, int]]
) -> list[Sample]:
    return [
        (((first, name.value), (second, key)), count)
        for name, counters in attempts
        for key, count in sorted(counts(counters).items())
    ]


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    inner = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
