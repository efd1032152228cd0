"""Heartbeats of the workers and the fold of the attempts stream into the node's status (docs/swarm-space.md's
names). Pure.

A worker that has not been heard of for WORKER_EXPIRY_S is gone. A transport's state is the best of its
workers', except that one degraded worker makes the transport degraded, with that worker's reason: what half
works must not look whole. Without any worker it is `error` with `worker_lost`; switched off, it is `idle` and
everything that was counted is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from services.gateway.http.answers import ApiStruct
from services.gateway.model.managers import ManagersView
from shared.attempts.fold import TransportCounters
from shared.bus.messages.records import WorkerStatus
from shared.errors import Cause
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


class TransportStats(ApiStruct, frozen=True):
    """One transport. last_fallback_at: wall clock, ms. attempts: by outcome. workers: live ones."""

    id: str
    label: str
    enabled: bool
    state: str
    fallback_count: int
    last_fallback_at: int | None
    last_error: str | None
    connected_peers: int
    fallback_causes: dict[str, int]
    attempts: dict[str, int]
    workers: int
    draining: int = 0
    confirmed_bytes: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    last_activity_at: int | None = None


class Stats(ApiStruct, frozen=True):
    """Everything the dashboard's upper half shows."""

    transport_fallbacks: int
    last_transport_fallback_at: int | None
    transports: list[TransportStats]
    managers: ManagersView


class PeerView(ApiStruct, frozen=True):
    """A peer with a live link. transports: the names of those it is linked over, in trying order."""

    peer: str
    transports: list[str]
    role: str | None = None


@dataclass(frozen=True, slots=True)
class _Heard:
    status: WorkerStatus
    at_s: float


class StatusBoard:
    """The live workers. `now` is seconds of a monotonic clock: workers' own clocks are not compared with ours."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._workers: dict[str, _Heard] = {}

    def apply(self, status: WorkerStatus, now: float) -> bool:
        """Returns: whether it differs from the last heartbeat in more than time and byte counts."""
        old = self._workers.get(status.worker)
        self._workers[status.worker] = _Heard(status, now)
        return old is None or _meaning(old.status) != _meaning(status)

    def live(self, transport: TransportName, now: float) -> list[WorkerStatus]:
        self._forget_lost(now)
        return [heard.status for heard in self._workers.values() if heard.status.transport == transport]

    def peers(self, now: float) -> dict[str, list[str]]:
        """Transports by peer name."""
        linked: dict[str, list[str]] = {}
        for transport in ORDER:
            for name in sorted({peer for worker in self.live(transport, now) for peer in worker.peers}):
                linked.setdefault(name, []).append(transport.value)
        return linked

    def transport(self, name: TransportName, enabled: bool, counters: TransportCounters, now: float) -> TransportStats:
        """One transport's row. Its last error is its workers', else that of the last hop which failed."""
        workers = self.live(name, now)
        draining = sum(worker.draining for worker in workers)
        if not enabled:
            return TransportStats(
                name.value,
                LABELS[name],
                False,
                TransportState.IDLE.value,
                0,
                None,
                None,
                0,
                {},
                {},
                len(workers),
                draining,
            )
        state, last_error = self._state(workers, now)
        activity_ms = max((worker.last_activity_ms for worker in workers), default=0)
        return TransportStats(
            id=name.value,
            label=LABELS[name],
            enabled=True,
            state=state.value,
            fallback_count=counters.fallback_count,
            last_fallback_at=counters.last_fallback_ms or None,
            last_error=last_error.value if last_error else counters.last_error or None,
            connected_peers=len({peer for worker in workers for peer in worker.peers}),
            fallback_causes=dict(counters.fallback_causes),
            attempts=dict(counters.attempts),
            workers=len(workers),
            draining=draining,
            confirmed_bytes=counters.confirmed_bytes,
            refused=_summed(workers),
            last_activity_at=activity_ms or None,
        )

    def _state(self, workers: list[WorkerStatus], now: float) -> tuple[TransportState, Cause | None]:
        if not workers:
            if now - self._started_s < WORKER_EXPIRY_S:
                return TransportState.INITIALIZING, None  # we have not listened long enough to miss anybody
            return TransportState.ERROR, Cause.WORKER_LOST
        # A draining worker is on its way out: it speaks for the transport only when there is no other.
        speaking = [worker for worker in workers if not worker.draining] or workers
        states = {TransportState(worker.state) for worker in speaking}
        troubled = [worker for worker in speaking if worker.state in (TransportState.DEGRADED, TransportState.ERROR)]
        if TransportState.DEGRADED in states or (TransportState.ERROR in states and len(states) > 1):
            return TransportState.DEGRADED, _latest_error(troubled) or _latest_error(speaking)
        return next(state for state in _BEST_FIRST if state in states), _latest_error(speaking)

    def _forget_lost(self, now: float) -> None:
        lost = [name for name, heard in self._workers.items() if now - heard.at_s > WORKER_EXPIRY_S]
        for name in lost:
            del self._workers[name]


def stats_of(transports: list[TransportStats], managers: ManagersView) -> Stats:
    """The whole: sums and the latest of the rows, so that they always agree with them."""
    return Stats(
        transport_fallbacks=sum(row.fallback_count for row in transports),
        last_transport_fallback_at=max((row.last_fallback_at or 0 for row in transports), default=0) or None,
        transports=transports,
        managers=managers,
    )


def _meaning(status: WorkerStatus) -> tuple[object, ...]:
    return status.state, status.last_error, tuple(sorted(status.peers)), status.enabled, status.draining


def _latest_error(workers: list[WorkerStatus]) -> Cause | None:
    failed = [worker for worker in workers if worker.last_error is not None]
    return max(failed, key=lambda worker: worker.at_ms).last_error if failed else None


def _summed(workers: list[WorkerStatus]) -> dict[str, int]:
    total: dict[str, int] = {}
    for worker in workers:
        for cause, count in worker.refused.items():
            total[cause] = total.get(cause, 0) + count
    return total
