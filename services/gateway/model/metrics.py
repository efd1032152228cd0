"""GET /metrics: the models as metric families, which prometheus-client writes.

Counters never go back while the process lives: they are folded from every hop in the stream, not from the
status counters that switching a transport off resets. After a restart they start from what the capped stream
still holds, which Prometheus takes for the counter reset that it is. A counter of hops has the trace of its latest hop
as its exemplar, in the OpenMetrics format, which is the one that has any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest as plain_text
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.registry import Collector

from services.gateway.model.status import growth
from shared.bus.messages.records import HopRecord, WorkerStatus
from shared.gateway_api.structs import ManagersView, TransportStats
from shared.hops.fold import OTHER_CAUSE, HopCounters, TransportCounters
from shared.telemetry import names
from shared.transports import TransportState

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_REMEMBERED_WORKERS = 1024
MS_PER_S = 1000

_Key = tuple[str, str, str]
"""Family and its two labels' values."""
_Samples = Iterable[tuple[tuple[str, ...], float]]
"""Labels' values, and the number."""


class MetricTotals:
    """What only ever grows. hops: the fold without its resets."""

    def __init__(self) -> None:
        self.hops = HopCounters()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.chaos: Counter[tuple[str, str]] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()
        self._exemplars: dict[_Key, Exemplar] = {}
        self._last: dict[str, WorkerStatus] = {}

    def apply_hop(self, record: HopRecord, stored_ms: int) -> None:
        self.hops.apply(record, stored_ms)
        if not record.trace_id:
            return
        # Keys are transports, outcomes and causes: closed sets, so that this is bounded.
        exemplar = Exemplar({"trace_id": record.trace_id}, 1.0, stored_ms / MS_PER_S)
        self._exemplars[names.METRIC_HOPS, record.transport, record.outcome] = exemplar
        if record.fallback_from:
            cause = record.fallback_cause.value if record.fallback_cause is not None else OTHER_CAUSE
            self._exemplars[names.METRIC_FALLBACKS, record.fallback_from, cause] = exemplar

    def apply_status(self, status: WorkerStatus) -> None:
        """A worker's counts begin when it is enabled; what is less than before has begun again."""
        before = self._last.pop(status.worker, None)
        _grow(self.refused, status.transport, before.refused if before else {}, status.refused)
        _grow(self.chaos, status.transport, before.chaos if before else {}, status.chaos)
        self.received_bytes[status.transport] += growth(before.bytes_in if before else 0, status.bytes_in)
        self.sent_bytes[status.transport] += growth(before.bytes_out if before else 0, status.bytes_out)
        self._last[status.worker] = status
        if len(self._last) > MAX_REMEMBERED_WORKERS:
            del self._last[next(iter(self._last))]

    def exemplar(self, family: str, first: str, second: str) -> Exemplar | None:
        return self._exemplars.get((family, first, second))


class Metrics(Collector):
    """One look at everything. Labels are transports, causes, outcomes and states: closed, small sets.

    blocked_count: peers on the blocklist. refused_connections: of the HTTP server, while all its places were taken.
    """

    def __init__(
        self,
        totals: MetricTotals,
        transports: Iterable[TransportStats],
        managers: ManagersView,
        blocked_count: int,
        refused_connections: int = 0,
    ) -> None:
        self._totals = totals
        self._transports = list(transports)
        self._managers = managers
        self._blocked_count = blocked_count
        self._refused_connections = refused_connections

    def collect(self) -> Iterator[Metric]:
        yield from self._of_hops()
        yield from self._of_workers()
        yield from self._of_transports()
        yield from self._of_managers()
        yield _gauge(
            names.METRIC_BLOCKED_PEERS,
            "Peers on the blocklist, whatever the direction.",
            (),
            [((), self._blocked_count)],
        )
        text = "Connections to the HTTP API that came while all places were taken: it, or a stranger's, was closed."
        yield _counter(names.METRIC_HTTP_REFUSED, text, (), [((), self._refused_connections)])

    def _of_hops(self) -> Iterator[Metric]:
        yield self._by_transport(
            names.METRIC_FALLBACKS,
            "Hops left for another transport.",
            ("from", "cause"),
            lambda counters: counters.fallback_causes,
        )
        yield self._by_transport(
            names.METRIC_HOPS,
            "Hops by how they ended.",
            ("transport", "outcome"),
            lambda counters: counters.hops,
        )
        confirmed = {(name.value,): counters.confirmed_bytes for name, counters in self._totals.hops}
        yield _counter(names.METRIC_CONFIRMED_BYTES, "Bytes of verified answers.", ("transport",), confirmed.items())

    def _of_workers(self) -> Iterator[Metric]:
        totals = self._totals
        text = "What workers refused, by limit or cause."
        yield _counter(names.METRIC_REFUSED, text, ("transport", "cause"), totals.refused.items())
        text = "Requests harmed on purpose by chaos flags, and chaos flags ignored."
        yield _counter(names.METRIC_CHAOS, text, ("transport", "fault"), totals.chaos.items())
        for name, text, counts in (
            (names.METRIC_RECEIVED_BYTES, "Bytes that peers sent us, whoever asked.", totals.received_bytes),
            (names.METRIC_SENT_BYTES, "Bytes that we sent to peers, whoever asked.", totals.sent_bytes),
        ):
            yield _counter(name, text, ("transport",), [((transport,), count) for transport, count in counts.items()])

    def _of_transports(self) -> Iterator[Metric]:
        rows = self._transports
        states = {(row.id, state.value): int(row.state == state.value) for row in rows for state in TransportState}
        yield _gauge(names.METRIC_STATE, "1 for the state a transport is in.", ("transport", "state"), states.items())
        peers = {(row.id,): row.connected_peers for row in rows}
        yield _gauge(names.METRIC_PEERS, "Peers with a live link.", ("transport",), peers.items())
        text = "A transport's own numbers: seconds of the slowest worker, counts of all."
        measures = [((row.id, name), number) for row in rows for name, number in _measures(row).items()]
        yield _gauge(names.METRIC_MEASURE, text, ("transport", "measure"), measures)

    def _of_managers(self) -> Iterator[Metric]:
        managers = self._managers
        yield _gauge(names.METRIC_MANAGERS, "Live managers.", (), [((), managers.count)])
        yield _gauge(names.METRIC_DELIVERIES, "Deliveries in flight.", (), [((), managers.deliveries)])
        refused = {(cause,): count for cause, count in managers.refused.items()}
        text = "Deliveries that managers did not take; their callers asked again."
        yield _counter(names.METRIC_DELIVERIES_REFUSED, text, ("cause",), refused.items())

    def _by_transport(
        self, name: str, text: str, labels: tuple[str, str], counts: Callable[[TransportCounters], Mapping[str, int]]
    ) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=labels)
        for transport, counters in self._totals.hops:
            for key, count in sorted(counts(counters).items()):
                exemplar = self._totals.exemplar(name, transport.value, key)
                family.add_metric((transport.value, key), count, exemplar=exemplar)
        return family


def render(metrics: Metrics, accept: str) -> tuple[bytes, str]:
    """The page of metrics in the format that the `Accept` header asks for, and its content type."""
    if "application/openmetrics-text" in accept:
        written: bytes = open_metrics(metrics)  # type: ignore[no-untyped-call]
        return written, OPEN_METRICS
    return plain_text(metrics), PLAIN


def _counter(name: str, text: str, labels: tuple[str, ...], samples: _Samples) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(samples):
        family.add_metric(values, count)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: _Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _measures(row: TransportStats) -> dict[str, float]:
    """Of all workers together."""
    together: dict[str, float] = {}
    for worker in row.instances:
        for name, number in worker.measures.items():
            before = together.get(name, 0.0)
            together[name] = max(before, number) if name.endswith("_s") else before + number
    return together


def _grow(totals: Counter[tuple[str, str]], transport: str, before: Mapping[str, int], now: Mapping[str, int]) -> None:
    for word, count in now.items():
        totals[transport, word] += growth(before.get(word, 0), count)
