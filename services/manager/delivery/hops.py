"""The hops of one delivery that are in flight, and what the last failure was. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Iterator

from services.manager.delivery.course import Turn
from services.manager.delivery.hop import PENDING, Hop, HopState
from services.manager.routing.rank import Routes
from shared.errors import Cause
from shared.hops.fold import OUTCOME_FAILED
from shared.transports import ORDER, TransportName


class Hops:
    """Iterating gives those in flight, safe to end while it goes on. next_number: of the next hop."""

    def __init__(self, first_number: int = 1) -> None:
        self.last_failure: Hop | None = None
        self.next_number = first_number
        self._live: dict[int, Hop] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Hop]:
        return iter(list(self._live.values()))

    def get(self, number: int) -> Hop | None:
        return self._live.get(number)

    def workers(self) -> dict[str, float]:
        """Workers that hold a request of ours, and when each last gave a sign of life for one of these."""
        heard: dict[str, float] = {}
        for hop in self:
            if hop.worker is not None and hop.state in PENDING:
                sign_at = max(hop.heard_at, hop.accepted_at or hop.heard_at)
                heard[hop.worker] = max(sign_at, heard.get(hop.worker, sign_at))
        return heard

    def hedge_at(self) -> float | None:
        """When every hop in flight has been silent for its delay; None while one is answered or waits."""
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
        return times + [limit_at for hop in self if (limit_at := hop.limit_at()) is not None]

    def start(self, turn: Turn, routes: Routes, now: float, silent: Hop | None) -> Hop:
        """A new hop. silent: the one beside which it is started as a hedge, None after a failure or at first."""
        route = routes[turn.transport]
        hop = Hop(
            number=self._take_number(),
            transport=turn.transport,
            started_at=now if turn.dialled_at is None else turn.dialled_at,
            heard_at=now,
            reply_delay_s=route.ack_delay_s,
            stall_delay_s=route.stall_delay_s,
            acks=route.acks,
            link_heard_at=route.heard_at,
            hedged=silent is not None,
        )
        left = (silent.transport, Cause.SILENT) if silent is not None else self._left_transport()
        if left is not None and ORDER.index(left[0]) < ORDER.index(turn.transport):
            # Down the order only: going back up is a return, not a fallback.
            hop.fallback_from, hop.fallback_cause = left
        self._live[hop.number] = hop
        return hop

    def end(self, hop: Hop, outcome: str, cause: Cause | None, now: float) -> Hop:
        del self._live[hop.number]
        return self._ended(hop, outcome, cause, now)

    def unsent(self, transport: TransportName, outcome: str, cause: Cause, started_at: float, now: float) -> Hop:
        """A hop that never came to send: skipped, or failed in its dial."""
        return self._ended(Hop(self._take_number(), transport, started_at, started_at), outcome, cause, now)

    def _left_transport(self) -> tuple[TransportName, Cause] | None:
        last = self.last_failure
        # A body holder of ours that died is no failure of the transport, so that going on is no fallback.
        if last is None or last.cause is None or last.cause is Cause.SOURCE_LOST:
            return None
        return last.transport, last.cause

    def _ended(self, hop: Hop, outcome: str, cause: Cause | None, now: float) -> Hop:
        hop.end(outcome, cause, now)
        if outcome == OUTCOME_FAILED:
            self.last_failure = hop
        return hop

    def _take_number(self) -> int:
        number = self.next_number
        self.next_number += 1
        return number
