"""The hops of one delivery: those under way, and the records of those that ended. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Iterator

from services.manager.delivery.course import Turn
from services.manager.delivery.hop import PENDING, HopState, LiveHop
from services.manager.delivery.steps import HopRecord
from services.manager.routing.rank import SILENT_LIMIT_S, STALL_LIMIT_S, Routes
from shared.attempts.fold import OUTCOME_FAILED
from shared.errors import Cause
from shared.transports import ORDER, TransportName

LIMITS_S = {HopState.SENT: SILENT_LIMIT_S, HopState.ALIVE: STALL_LIMIT_S}
"""Silence after which a hop is given up, where something else is left to try."""


class Hops:
    """records: the ended ones, in that order. Iterating gives those under way, safe to end while it goes on.

    next_number: of the next hop.
    """

    def __init__(self, first_number: int = 1) -> None:
        self.records: list[HopRecord] = []
        self.last_failure: HopRecord | None = None
        self._live: dict[int, LiveHop] = {}
        self.next_number = first_number

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveHop]:
        return iter(list(self._live.values()))

    def get(self, number: int) -> LiveHop | None:
        return self._live.get(number)

    def workers(self) -> set[str]:
        """Workers that hold a request of ours."""
        return {hop.worker for hop in self if hop.worker is not None and hop.state in PENDING}

    def hedge_at(self) -> float | None:
        """When every hop under way has been silent for its delay; None while one is answered or waits."""
        overdue = [hop.overdue_at() for hop in self]
        known = [time for time in overdue if time is not None]
        return max(known) if known and len(known) == len(overdue) else None

    def note_links(self, routes: Routes) -> None:
        """Take over when each hop's link was last heard, and whether others wait on it."""
        for hop in self:
            route = routes[hop.transport]
            hop.link_heard_at, hop.queued = route.heard_at, route.in_flight > 1

    def timers(self) -> list[float]:
        """When a waiting hop is to be sent again, and when a silent one reaches its limit."""
        times = [hop.retry_at for hop in self if hop.state is HopState.WAITING]
        return times + [hop.heard_at + LIMITS_S[hop.state] for hop in self if hop.state in LIMITS_S]

    def start(self, turn: Turn, routes: Routes, now: float, silent: LiveHop | None) -> LiveHop:
        """A new hop. silent: the one beside which it is started as a hedge, None after a failure or at first."""
        route = routes[turn.transport]
        hop = LiveHop(
            number=self._take_number(),
            transport=turn.transport,
            started_at=now if turn.dialled_at is None else turn.dialled_at,
            heard_at=now,
            ack_delay_s=route.ack_delay_s,
            stall_delay_s=route.stall_delay_s,
            link_heard_at=route.heard_at,
            hedged=silent is not None,
        )
        left = (silent.transport, Cause.SILENT) if silent is not None else self._left_transport()
        if left is not None and ORDER.index(left[0]) < ORDER.index(turn.transport):
            # Down the order only: going back up is a return, not a fallback.
            hop.fallback_from, hop.fallback_cause = left
        self._live[hop.number] = hop
        return hop

    def end(self, hop: LiveHop, outcome: str, cause: Cause | None, now: float) -> HopRecord:
        del self._live[hop.number]
        return self._write(hop.record(outcome, cause, now))

    def unsent(self, transport: TransportName, outcome: str, cause: Cause, started_at: float, now: float) -> HopRecord:
        """A hop that never came to send: skipped, or failed in its dial."""
        hop = LiveHop(self._take_number(), transport, started_at, started_at, 0.0, 0.0)
        return self._write(hop.record(outcome, cause, now))

    def _left_transport(self) -> tuple[TransportName, Cause] | None:
        last = self.last_failure
        if last is None or last.cause is None or last.cause is Cause.SOURCE_LOST:
            return None
        return last.transport, last.cause

    def _write(self, record: HopRecord) -> HopRecord:
        if record.outcome == OUTCOME_FAILED:
            self.last_failure = record
        self.records.append(record)
        return record

    def _take_number(self) -> int:
        number = self.next_number
        self.next_number += 1
        return number
