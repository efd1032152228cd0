"""One hop of a delivery: its state and clocks while it lasts, and how it ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.manager.routing.rank import (
    ANSWER_LIMIT_FACTOR,
    HEDGE_MAX_S,
    LINK_QUIET_S,
    SILENT_LIMIT_S,
    STALL_LIMIT_S,
    STALL_MAX_S,
    Route,
)
from shared.bus.messages.envelopes import BodyRef
from shared.content.messages import PeerAnswer
from shared.errors import Cause
from shared.transports import TransportName


class HopState(StrEnum):
    """SENT: no sign of life yet. ALIVE: acked, or bytes came. WAITING: busy, sent again soon. ANSWERED: the
    caller has the answer, or will have it when it has judged another. An ended hop keeps its last state."""

    SENT = "sent"
    ALIVE = "alive"
    WAITING = "waiting"
    ANSWERED = "answered"


PENDING = (HopState.SENT, HopState.ALIVE, HopState.WAITING)
"""Its request is with a worker, or will be again."""

_AT_DEADLINE = {HopState.SENT: Cause.SILENT, HopState.ALIVE: Cause.TIMEOUT, HopState.WAITING: Cause.BUSY}


@dataclass(slots=True)
class Hop:
    """heard_at: the last sign of life, or when the request was sent. link_heard_at: when its link gave anything
    at all; queued: it shares the link with others. A request behind others in a queue is slow, not silent.

    acks: the peer says at once that it has a request; where it cannot, its first sign of life is its answer.
    reply_delay_s, stall_delay_s: silence after the request, and after a sign of life, that starts a hedge.
    outcome, cause, ended_at: how it ended; "" and None while it lasts. Cause of a cancelled hop: SILENT where it
    had been silent for longer than its delay when another won. accepted_at None = no worker took it.
    """

    number: int
    transport: TransportName
    started_at: float
    heard_at: float
    reply_delay_s: float = HEDGE_MAX_S
    stall_delay_s: float = STALL_MAX_S
    acks: bool = True
    link_heard_at: float = float("-inf")
    queued: bool = False
    fallback_from: TransportName | None = None
    fallback_cause: Cause | None = None
    hedged: bool = False
    state: HopState = HopState.SENT
    worker: str | None = None
    accepted_at: float | None = None
    bytes: int = 0
    busy_count: int = 0
    retry_at: float = 0.0
    answer: PeerAnswer | None = None
    body: BodyRef | None = None
    outcome: str = ""
    cause: Cause | None = None
    ended_at: float = 0.0

    def accepted(self, worker: str, acks: bool, route: Route, now: float) -> None:
        """A worker has put the request into its link's buffer. route: with what it has just reported of the link."""
        self.worker, self.acks = worker, acks
        # A request sent again after BUSY is accepted again; the receipt tells of the first time.
        if self.accepted_at is None:
            self.accepted_at = now
        # The worker has just reported the link's round trip: a first hop is not held to the longest delay. Where the
        # peer cannot ack, silence means nothing before its answer is late.
        self.reply_delay_s = route.ack_delay_s if acks else route.answer_delay_s

    def overdue_at(self) -> float | None:
        """When its silence becomes a reason to hedge; None while it is answered or waits on purpose."""
        if self.state is HopState.SENT:
            delay_s = self.reply_delay_s
        elif self.state is HopState.ALIVE:
            delay_s = self.stall_delay_s
        else:
            return None
        # Bytes for another request show that the link works and this one waits its turn, which is believed for
        # STALL_MAX_S.
        quiet_at = self.link_heard_at + (max(delay_s, LINK_QUIET_S) if self.queued else delay_s)
        queued_until = min(quiet_at, self.heard_at + max(delay_s, STALL_MAX_S))
        return max(self.heard_at + delay_s, queued_until)

    def limit_at(self) -> float | None:
        """When its silence is given up, where something else is left to try; None as above."""
        if self.state is HopState.SENT:
            limit_s = SILENT_LIMIT_S if self.acks else max(SILENT_LIMIT_S, ANSWER_LIMIT_FACTOR * self.reply_delay_s)
        elif self.state is HopState.ALIVE:
            limit_s = STALL_LIMIT_S
        else:
            return None
        return self.heard_at + limit_s

    def wait_until(self, at: float) -> None:
        """It was answered BUSY: its request is sent again then."""
        self.state = HopState.WAITING
        self.busy_count += 1
        self.retry_at = at

    def send_again(self, now: float) -> None:
        self.state = HopState.SENT
        self.heard_at = now

    def end(self, outcome: str, cause: Cause | None, now: float) -> None:
        """Nothing about it changes after this."""
        self.outcome, self.cause, self.ended_at = outcome, cause, now

    @property
    def cause_at_deadline(self) -> Cause:
        """What it ends with where it is still PENDING when the time is up."""
        if self.state is HopState.SENT and self.accepted_at is not None and not self.acks:
            return Cause.TIMEOUT  # a peer that cannot ack was not silent: it did not answer in time
        return _AT_DEADLINE[self.state]

    def was_silent(self, now: float) -> bool:
        """Whether it gave no sign of life within its delay: what a loser is charged with."""
        overdue_at = self.overdue_at()
        return overdue_at is not None and now >= overdue_at
