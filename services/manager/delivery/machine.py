"""The machine of one delivery: events in, commands out, one outcome. Pure; time is an argument.

Driven by: `start`, then `handle(event, routes, now)` for whatever happens, and TimerFired when `next_deadline`
has come. `routes` is what is known of each transport at that moment (flags, circuits, links, learnt delays).

    hop state    event                     what happens
    SENT         HopAccepted(no confirms)  accepted: no answer can come; the next link, or the end
    SENT         HopProgress               ALIVE
    SENT ALIVE   HopAnswered               ANSWERED; the caller judges one answer at a time
    ANSWERED     HopVerdict(None)          confirmed: the others are cancelled, the delivery is done
    ANSWERED     HopVerdict(cause)         failed; next hop
    SENT ALIVE   HopFailed(busy)           the caller is slowed; WAITING where that is shorter than a hedge, else failed
    SENT ALIVE   HopFailed(cause)          failed; next hop at once
    SENT         HopUnaccepted             failed (worker_lost); next hop
    not ANSWERED WorkerLost, off, blocked  failed; next hop at once
    SENT ALIVE   silence for its delay     the next hop starts beside it (hedge), within the budget
    SENT ALIVE   silence for its limit     failed (silent), where something else is left to try
    WAITING      retry_at                  SENT again, the same hop

Silence is judged by what a peer can: one that acks is silent without an ack, one that cannot ack is late when its
answers are known to come sooner.

Invariants: exactly one Finish, by the deadline; every SendOnLink has exactly one RecordHop; nothing after
Finish; no SendOnLink or DialTransport on a transport that is switched off or to a blocked peer, and on one whose
circuit is open only where no hop is in flight and no other link is left. What does not fit a hop's state (late,
doubled, of a hop that ended) is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from services.manager.delivery.course import Course, Turn
from services.manager.delivery.hop import PENDING, Hop, HopState
from services.manager.delivery.hops import Hops
from services.manager.delivery.steps import (
    AskedAgain,
    CancelHop,
    Command,
    DeliveryCancelled,
    DialFailed,
    DialSucceeded,
    DialTransport,
    Event,
    Finish,
    GiveAnswer,
    HopAccepted,
    HopAnswered,
    HopEvent,
    HopFailed,
    HopProgress,
    HopUnaccepted,
    HopVerdict,
    RecordHop,
    RulesChanged,
    SendOnLink,
    SlowCaller,
    TimerFired,
    WorkerLost,
)
from services.manager.routing.rank import HEDGE_MAX_S, MIN_RETRY_S, RECHECK_S, Routes
from shared.errors import Cause
from shared.hops.fold import (
    OUTCOME_ACCEPTED,
    OUTCOME_CANCELLED,
    OUTCOME_CONFIRMED,
    OUTCOME_FAILED,
    OUTCOME_SKIPPED,
)
from shared.transports import TransportName

MAX_BUSY_RETRIES = 3
"""A link that says BUSY more often than this is left, where there is another."""

STOPPED_S = 1.0
"""A deadline noticed this late means that we were stopped, not that a transport was slow: nobody is charged."""

BUSY_CAUSES = frozenset({Cause.BUSY, Cause.RATE_LIMITED})


class Delivery:
    """See the module. finished: the Finish command, once given. first_hop: the first one's number."""

    def __init__(self, now: float, deadline: float, first_hop: int = 1) -> None:
        self.finished: Finish | None = None
        self._deadline = deadline
        self._course = Course()
        self._verifying: Hop | None = None
        self._hops = Hops(first_hop)
        self._unconfirmable = False
        """A peer has the request that cannot answer it: no failure, and no answer either."""
        self._recheck_at = now
        self._now = now
        self._out: list[Command] = []

    # ── the outside ──

    def start(self, routes: Routes, now: float) -> list[Command]:
        """Begin: hops in rank order, or a round of dials where no usable transport has a link."""
        self._now = now
        self._course.plan(routes)
        return self._settle(routes, now)

    def handle(self, event: Event, routes: Routes, now: float) -> list[Command]:
        """Take one event; after Finish everything is ignored."""
        if self.finished is not None:
            return []
        self._now = now
        # Before the event is looked at: the caller has no time left to judge even a good answer.
        if now >= self._deadline:
            self._time_is_up(now)
            return self._take_out()
        match event:
            case HopAccepted() | HopUnaccepted() | HopProgress() | HopAnswered() | HopVerdict() | HopFailed():
                self._hop_event(event, routes, now)
            case DialSucceeded():
                self._course.dial_succeeded(event.transport)
            case DialFailed():
                self._dial_failed(event, now)
            case RulesChanged():
                self._rules_changed(routes, now)
            case WorkerLost():
                self._worker_lost(event.worker, now)
            case DeliveryCancelled():
                self._cancelled(now)
            case AskedAgain():
                if self._verifying is not None:
                    self._give(self._verifying)
            case TimerFired():
                pass
            case _:
                assert_never(event)
        return self._settle(routes, now)

    def next_deadline(self) -> float | None:
        """When TimerFired is wanted; None after the end."""
        if self.finished is not None:
            return None
        times = self._hops.timers()
        hedge_at = self._hops.hedge_at()
        if hedge_at is not None:
            times.append(max(hedge_at, self._recheck_at))
        dial_at = self._course.next_dial_at()
        if dial_at is not None:
            times.append(dial_at)
        # What was due by the last event has been dealt with, or there was nothing to do about it.
        return min([time for time in times if time > self._now] + [self._deadline])

    @property
    def next_hop(self) -> int:
        return self._hops.next_number

    def hop(self, number: int) -> Hop | None:
        """A hop that has not ended, for what the glue learns from its clocks."""
        return self._hops.get(number)

    def workers(self) -> dict[str, float]:
        """Workers that hold a request of ours, and when each last gave a sign of life."""
        return self._hops.workers()

    # ── events of a hop ──

    def _hop_event(self, event: HopEvent, routes: Routes, now: float) -> None:
        hop = self._hops.get(event.hop)
        action = _TABLE.get((hop.state, type(event))) if hop is not None else None
        if hop is not None and action is not None:
            action(self, hop, event, routes, now)

    def _accepted(self, hop: Hop, event: HopAccepted, routes: Routes, now: float) -> None:
        hop.accepted(event.worker, event.acks, routes[hop.transport], now)
        if not event.confirms and hop.state is HopState.SENT:
            self._unconfirmable = True
            self._end(hop, OUTCOME_ACCEPTED, None, now)

    def _progressed(self, hop: Hop, event: HopProgress, routes: Routes, now: float) -> None:
        hop.state = HopState.ALIVE
        hop.heard_at = now
        hop.bytes = max(hop.bytes, event.bytes)

    def _answered(self, hop: Hop, event: HopAnswered, routes: Routes, now: float) -> None:
        hop.state = HopState.ANSWERED
        hop.heard_at = now
        hop.answer, hop.body = event.answer, event.body
        if event.body is not None:
            hop.bytes = event.body.length

    def _unaccepted(self, hop: Hop, event: HopUnaccepted, routes: Routes, now: float) -> None:
        # On its first try no worker is known yet; one that accepts it late is cancelled then, by the run.
        self._cancel(hop)
        self._fail(hop, Cause.WORKER_LOST, now)

    def _failed(self, hop: Hop, event: HopFailed, routes: Routes, now: float) -> None:
        busy = event.cause in BUSY_CAUSES
        # Whatever becomes of the hop: the caller's pace is for the peer, not for one link.
        if busy:
            self._out.append(SlowCaller(event.retry_after_s))
        if busy and self._worth_waiting(hop, event.retry_after_s, routes, now):
            hop.wait_until(now + max(MIN_RETRY_S, event.retry_after_s))
        else:
            self._fail(hop, event.cause, now)

    def _verdict(self, hop: Hop, event: HopVerdict, routes: Routes, now: float) -> None:
        if self._verifying is not hop:
            return
        self._verifying = None
        if event.cause is None:
            hop.bytes = event.bytes or hop.bytes
            self._end(hop, OUTCOME_CONFIRMED, None, now)
            for loser in self._hops:
                self._cancel(loser)
                self._end(loser, OUTCOME_CANCELLED, Cause.SILENT if loser.was_silent(now) else None, now)
            self._finish(OUTCOME_CONFIRMED, None)
            return
        # Asked again, the worker would tell the same answer again: it is made to forget it.
        self._cancel(hop)
        self._fail(hop, event.cause, now)

    # ── other events ──

    def _dial_failed(self, event: DialFailed, now: float) -> None:
        started_at = self._course.dial_failed(event, now)
        if started_at is not None:
            outcome = OUTCOME_FAILED if event.tried else OUTCOME_SKIPPED
            self._write_unsent(event.transport, outcome, event.cause, started_at, now)

    def _rules_changed(self, routes: Routes, now: float) -> None:
        for hop in self._hops:
            cause = routes[hop.transport].barred
            # An answer that is here came while the transport was allowed: it is still judged.
            if cause is not None and hop.state in PENDING:
                self._cancel(hop)
                self._fail(hop, cause, now)
        for transport, cause, started_at in self._course.drop_barred_dials(routes):
            self._write_unsent(transport, OUTCOME_FAILED, cause, started_at, now)

    def _worker_lost(self, worker: str, now: float) -> None:
        for hop in self._hops:
            if hop.worker == worker and hop.state in PENDING:
                # Not cancelled: nobody is left to hear it.
                self._fail(hop, Cause.WORKER_LOST, now)

    def _cancelled(self, now: float) -> None:
        for hop in self._hops:
            self._cancel(hop)
            self._end(hop, OUTCOME_CANCELLED, None, now)
        self._finish(OUTCOME_CANCELLED, None)

    def _time_is_up(self, now: float) -> None:
        stopped = now > self._deadline + STOPPED_S
        dial_cause = Cause.EXPIRED if stopped else Cause.DIAL_TIMEOUT
        cause = Cause.TIMEOUT if self._hops and not stopped else dial_cause
        for hop in self._hops:
            self._cancel(hop)
            if stopped:
                self._end(hop, OUTCOME_CANCELLED, Cause.EXPIRED, now)
            elif hop.state is HopState.ANSWERED:
                # It came, and nobody said whether it was good: neither confirmed nor the transport's fault.
                self._end(hop, OUTCOME_ACCEPTED, None, now)
            else:
                self._fail(hop, hop.cause_at_deadline, now)
        for transport, started_at in self._course.drop_dials():
            self._write_unsent(transport, OUTCOME_FAILED, dial_cause, started_at, now)
        self._give_up(cause, stopped=stopped)

    # ── what to do next ──

    def _settle(self, routes: Routes, now: float) -> list[Command]:
        """Until nothing more is to be done now: retries, answers, dials, next hops, hedges."""
        if self.finished is None:
            # In this order: silence is judged by what the links last gave, a WAITING hop that is sent again is silent
            # from now, and what is given up here is followed by the next hop below.
            self._hops.note_links(routes)
            self._retry_waiting(routes, now)
            self._give_up_silent(routes, now)
            self._give_next_answer()
            self._start_dials(routes, now)
        while self.finished is None and not self._hops:
            turn = self._course.next(routes)
            self._write_skips(now)
            # Where a peer has it that cannot answer, another link is worth a hop; a dial is not.
            if turn is None and not self._course.dialled and not self._unconfirmable:
                self._course.begin_dials(routes, now)
                self._start_dials(routes, now)
            elif turn is not None or (turn := self._course.last_resort(routes)) is not None:
                self._send(turn, routes, now)
            elif self._course.dials_pending:
                # The stagger spares dials while another may still win; with nothing in flight it only costs time.
                self._course.hurry_dials(now)
                self._start_dials(routes, now)
                break
            else:
                last = self._hops.last_failure
                self._give_up(last.cause if last is not None else self._course.last_skip)
        if self.finished is None and self._hops:
            self._hedge_if_due(routes, now)
        return self._take_out()

    def _retry_waiting(self, routes: Routes, now: float) -> None:
        for hop in self._hops:
            if hop.state is not HopState.WAITING or now < hop.retry_at:
                continue
            route = routes[hop.transport]
            # An open circuit sends it elsewhere only where there is an elsewhere.
            skip = route.skip if self._course.has_next(routes) else route.barred
            if skip is not None:
                self._fail(hop, skip, now)
                continue
            hop.send_again(now)
            self._out.append(SendOnLink(hop.number, hop.transport, retry=True))

    def _give_up_silent(self, routes: Routes, now: float) -> None:
        """A hop that stays silent is not waited for to the end, if there is anything else."""
        for hop in self._hops:
            limit_at = hop.limit_at()
            if limit_at is None or now < limit_at:
                continue
            options = len(self._hops) > 1 or self._course.has_next_linked(routes)
            # Not even an ack: worth leaving for a dial or a circuit's trial. One that was acked is left for a link
            # only.
            if hop.state is HopState.SENT:
                options = options or self._course.has_next(routes) or not self._course.dialled
            if options:
                self._cancel(hop)
                self._fail(hop, Cause.SILENT, now)

    def _give_next_answer(self) -> None:
        if self._verifying is not None:
            return
        for hop in self._hops:
            if hop.state is HopState.ANSWERED:
                self._verifying = hop
                self._give(hop)
                return

    def _hedge_if_due(self, routes: Routes, now: float) -> None:
        """Start one more hop where every one in flight has been silent for its link's delay."""
        hedge_at = self._hops.hedge_at()
        if hedge_at is None or now < max(hedge_at, self._recheck_at):
            return
        self._recheck_at = now + RECHECK_S
        if not routes.hedge_allowed:
            return
        # The fallback counts as one from the transport that has been silent longest.
        silent = min(self._hops, key=lambda hop: hop.heard_at)
        turn = self._course.next_hedge(routes)
        self._write_skips(now)
        if turn is not None:
            self._send(turn, routes, now, silent=silent)

    def _send(self, turn: Turn, routes: Routes, now: float, *, silent: Hop | None = None) -> None:
        hop = self._hops.start(turn, routes, now, silent)
        self._out.append(SendOnLink(hop.number, turn.transport))

    def _start_dials(self, routes: Routes, now: float) -> None:
        for transport in self._course.start_dials(routes, now):
            self._out.append(DialTransport(transport))
        self._write_skips(now)

    # ── small steps ──

    def _write_skips(self, now: float) -> None:
        skips, self._course.skips = self._course.skips, []
        for transport, cause in skips:
            self._write_unsent(transport, OUTCOME_SKIPPED, cause, now, now)

    def _write_unsent(
        self, transport: TransportName, outcome: str, cause: Cause, started_at: float, now: float
    ) -> None:
        self._out.append(RecordHop(self._hops.unsent(transport, outcome, cause, started_at, now)))

    def _worth_waiting(self, hop: Hop, retry_after_s: float, routes: Routes, now: float) -> bool:
        if now + max(MIN_RETRY_S, retry_after_s) >= self._deadline:
            return False
        # Nothing else is left to try: however long the peer asks for.
        if len(self._hops) == 1 and not self._course.has_next(routes) and not self._course.dials_pending:
            return True
        return retry_after_s <= min(HEDGE_MAX_S, hop.reply_delay_s) and hop.busy_count < MAX_BUSY_RETRIES

    def _fail(self, hop: Hop, cause: Cause, now: float) -> None:
        self._course.hop_failed(hop.transport, cause)
        self._end(hop, OUTCOME_FAILED, cause, now)

    def _end(self, hop: Hop, outcome: str, cause: Cause | None, now: float) -> None:
        if self._verifying is hop:
            self._verifying = None
        self._out.append(RecordHop(self._hops.end(hop, outcome, cause, now)))

    def _cancel(self, hop: Hop) -> None:
        self._out.append(CancelHop(hop.number, hop.worker))

    def _give(self, hop: Hop) -> None:
        """Its answer, for the caller to judge."""
        assert hop.answer is not None
        self._out.append(GiveAnswer(hop.number, hop.transport, hop.answer, hop.body))

    def _give_up(self, cause: Cause | None, *, stopped: bool = False) -> None:
        """Nothing is left to try, or no time. What a peer accepted that cannot answer has not failed."""
        if self._unconfirmable and not stopped:
            self._finish(OUTCOME_ACCEPTED, None)
        else:
            self._finish(OUTCOME_FAILED, cause or Cause.NO_LINK)

    def _finish(self, outcome: str, cause: Cause | None) -> None:
        self.finished = Finish(outcome, cause)
        self._out.append(self.finished)

    def _take_out(self) -> list[Command]:
        out, self._out = self._out, []
        return out


_TABLE: dict[tuple[HopState, type], Callable[..., None]] = {
    (HopState.SENT, HopAccepted): Delivery._accepted,
    (HopState.ALIVE, HopAccepted): Delivery._accepted,
    # The acceptance comes as a reply and the answer on the manager's subject: either may be first.
    (HopState.ANSWERED, HopAccepted): Delivery._accepted,
    (HopState.SENT, HopUnaccepted): Delivery._unaccepted,
    (HopState.SENT, HopProgress): Delivery._progressed,
    (HopState.ALIVE, HopProgress): Delivery._progressed,
    (HopState.SENT, HopAnswered): Delivery._answered,
    (HopState.ALIVE, HopAnswered): Delivery._answered,
    (HopState.SENT, HopFailed): Delivery._failed,
    (HopState.ALIVE, HopFailed): Delivery._failed,
    (HopState.ANSWERED, HopVerdict): Delivery._verdict,
}
"""Every pair that means something; any other is late or doubled, and ignored."""
