"""Heartbeats of the workers and the fold of the hops stream into the node's status (docs/swarm-space.md's
names). Pure.

A worker that has not been heard of for WORKER_EXPIRY_S is gone. A transport's state is the best of its
workers', except that one degraded worker makes the transport degraded, with that worker's reason: what half
works must not look whole. Without any worker it is `error` with `worker_lost`, or with `bus_unavailable` where
nobody can be heard; switched off, it is `idle` and everything that was counted is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shared.bus.messages.records import WorkerStatus
from shared.errors import Cause
from shared.gateway_api.structs import ManagersView, PlaceView, Stats, TransportStats, WorkerView
from shared.hops.fold import TransportCounters
from shared.transports import LABELS, ORDER, TransportName, TransportState

WORKER_EXPIRY_S = 3.0
"""Three missed heartbeats of a second each."""

# The best first. ERROR beside a working worker is handled as degraded.
_BEST_FIRST = (
    TransportState.ACTIVE,
    TransportState.READY,
    TransportState.INITIALIZING,
    TransportState.IDLE,
    TransportState.ERROR,
)


@dataclass(frozen=True, slots=True)
class _Heard:
    status: WorkerStatus
    at_s: float


@dataclass(slots=True)
class _Moved:
    """Bytes that a transport's workers moved, those that are gone too."""

    received: int = 0
    sent: int = 0


class StatusBoard:
    """The live workers. `now` is seconds of a monotonic clock: workers' own clocks are not compared with ours."""

    def __init__(self, started_s: float) -> None:
        self._listening_s = started_s
        self._connected = True
        self._workers: dict[str, _Heard] = {}
        self._moved: dict[str, _Moved] = {}

    def apply(self, status: WorkerStatus, now: float) -> bool:
        """Returns: whether it differs from the last heartbeat in more than time and byte counts."""
        old = self._workers.get(status.worker)
        self._workers[status.worker] = _Heard(status, now)
        self._count(old.status if old is not None else None, status)
        return old is None or _meaning(old.status) != _meaning(status)

    def hears(self, *, connected: bool, now: float) -> None:
        """Whether the bus is there. While it is not, nobody is missed; once it is back, each has time to be heard."""
        if connected and not self._connected:
            self._listening_s = now
        self._connected = connected

    def live(self, transport: TransportName, now: float) -> list[WorkerStatus]:
        self._forget_lost(now)
        return [heard.status for heard in self._workers.values() if heard.status.transport == transport]

    def pages_url(self, now: float) -> str:
        """Where browsers' pages join: at a worker that stays, if there is one; "" = nowhere."""
        taking = [worker for worker in self.live(TransportName.BROADCAST, now) if worker.pages_url]
        staying = [worker for worker in taking if not worker.draining] or taking
        return staying[0].pages_url if staying else ""

    def peers(self, now: float) -> dict[str, list[str]]:
        """Transports by peer name."""
        linked: dict[str, list[str]] = {}
        for transport in ORDER:
            for name in sorted({peer for worker in self.live(transport, now) for peer in worker.peers}):
                linked.setdefault(name, []).append(transport.value)
        return linked

    def transport(self, name: TransportName, enabled: bool, counters: TransportCounters, now: float) -> TransportStats:
        """One transport's row. Its last error is its workers', else that of the last hop, if that failed."""
        workers = self.live(name, now)
        draining = sum(worker.draining for worker in workers)
        if not enabled:
            counters, state, last_error, last_error_ms = TransportCounters(), TransportState.IDLE, None, 0
        else:
            state, last_error, last_error_ms = self._state(workers, now)
        moved = self._moved.get(name.value, _Moved()) if enabled else _Moved()
        activity_ms = max((worker.last_activity_ms for worker in workers), default=0)
        return TransportStats(
            id=name.value,
            label=LABELS[name],
            enabled=enabled,
            state=state.value,
            fallback_count=counters.fallback_count,
            last_fallback_at=counters.last_fallback_ms or None,
            last_error=last_error.value if last_error else counters.last_error or None,
            last_error_at=(last_error_ms if last_error else counters.last_error_ms) or None,
            connected_peers=len({peer for worker in workers for peer in worker.peers}) if enabled else 0,
            fallback_causes=dict(counters.fallback_causes),
            hops=dict(counters.hops),
            workers=len(workers),
            draining=draining,
            confirmed_bytes=counters.confirmed_bytes,
            received_bytes=moved.received,
            sent_bytes=moved.sent,
            refused=_summed(workers) if enabled else {},
            last_activity_at=(activity_ms or None) if enabled else None,
            places=[view for worker in workers for view in _places(worker)] if enabled else [],
            instances=[_instance(worker) for worker in sorted(workers, key=lambda worker: worker.worker)],
        )

    def _count(self, before: WorkerStatus | None, now: WorkerStatus) -> None:
        """A worker's counts begin when it is enabled; what is less than before has begun again."""
        if not now.enabled:
            self._moved.pop(now.transport, None)
            return
        moved = self._moved.setdefault(now.transport, _Moved())
        moved.received += growth(before.bytes_in if before else 0, now.bytes_in)
        moved.sent += growth(before.bytes_out if before else 0, now.bytes_out)

    def _state(self, workers: list[WorkerStatus], now: float) -> tuple[TransportState, Cause | None, int]:
        """The state, the error behind it, and when that was (ms of the wall clock, 0 unknown)."""
        if not workers:
            if not self._connected:
                return TransportState.ERROR, Cause.BUS_UNAVAILABLE, 0
            if now - self._listening_s < WORKER_EXPIRY_S:
                return TransportState.INITIALIZING, None, 0  # we have not listened long enough to miss anybody
            return TransportState.ERROR, Cause.WORKER_LOST, 0
        # A draining worker is on its way out: it speaks for the transport only when there is no other.
        speaking = [worker for worker in workers if not worker.draining] or workers
        states = {TransportState(worker.state) for worker in speaking}
        troubled = [worker for worker in speaking if worker.state in (TransportState.DEGRADED, TransportState.ERROR)]
        if TransportState.DEGRADED in states or (TransportState.ERROR in states and len(states) > 1):
            with_error = [worker for worker in troubled if worker.last_error is not None] or speaking
            return TransportState.DEGRADED, *_latest_error(with_error)
        return next(state for state in _BEST_FIRST if state in states), *_latest_error(speaking)

    def _forget_lost(self, now: float) -> None:
        lost = [name for name, heard in self._workers.items() if now - heard.at_s > WORKER_EXPIRY_S]
        for name in lost:
            del self._workers[name]


def stats_of(transports: list[TransportStats], managers: ManagersView, chunk_transfers: dict[str, int]) -> Stats:
    """The whole: sums and the latest of the rows, so that they always agree with them."""
    return Stats(
        transport_fallbacks=sum(row.fallback_count for row in transports),
        last_transport_fallback_at=max((row.last_fallback_at or 0 for row in transports), default=0) or None,
        transports=transports,
        managers=managers,
        chunk_transfers=chunk_transfers,
    )


def _meaning(status: WorkerStatus) -> tuple[object, ...]:
    return status.state, status.last_error, tuple(sorted(status.peers)), status.enabled, status.draining


def _latest_error(workers: list[WorkerStatus]) -> tuple[Cause | None, int]:
    failed = [worker for worker in workers if worker.last_error is not None]
    if not failed:
        return None, 0
    latest = max(failed, key=lambda worker: (worker.last_error_ms, worker.at_ms))
    return latest.last_error, latest.last_error_ms


def growth(before: int, now: int) -> int:
    """By how much a worker's count has grown; one that is less than before has begun again."""
    return now - before if now >= before else now


def _places(worker: WorkerStatus) -> Iterator[PlaceView]:
    for place in worker.places:
        yield PlaceView(
            worker=worker.worker,
            list=place.list,
            index=place.index,
            state=place.state,
            cause=place.cause.value if place.cause is not None else None,
            since=place.since_ms or None,
            retry_at=place.retry_ms or None,
        )


def _instance(worker: WorkerStatus) -> WorkerView:
    return WorkerView(
        id=worker.worker,
        state=worker.state,
        peers=len(worker.peers),
        draining=worker.draining,
        received_bytes=worker.bytes_in,
        sent_bytes=worker.bytes_out,
        last_error=worker.last_error.value if worker.last_error is not None else None,
        last_error_at=worker.last_error_ms or None,
        measures=worker.measures,
    )


def _summed(workers: list[WorkerStatus]) -> dict[str, int]:
    total: dict[str, int] = {}
    for worker in workers:
        for cause, count in worker.refused.items():
            total[cause] = total.get(cause, 0) + count
    return total
