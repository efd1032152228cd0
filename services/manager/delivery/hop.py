"""One hop of a delivery while it lasts: its state, its clocks, and the record it ends as."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.manager.delivery.steps import GiveAnswer, HopRecord
from services.manager.routing.rank import LINK_QUIET_S, STALL_MAX_S
from shared.bus.messages.envelopes import BodyRef
from shared.content.messages import PeerAnswer
from shared.errors import Cause
from shared.transports import TransportName


class HopState(StrEnum):
    """SENT: no sign of life yet. ALIVE: acked, or bytes came. WAITING: busy, sent again soon. ANSWERED: the
    asker has the answer, or will have it when it has judged another. A hop that ended is no longer kept."""

    SENT = "sent"
    ALIVE = "alive"
    WAITING = "waiting"
    ANSWERED = "answered"


PENDING = (HopState.SENT, HopState.ALIVE, HopState.WAITING)
"""Its request is with a worker, or will be again."""


_AT_DEADLINE = {HopState.SENT: Cause.SILENT, HopState.ALIVE: Cause.TIMEOUT, HopState.WAITING: Cause.BUSY}


@dataclass(slots=True)
class LiveHop:
    """heard_at: the last sign of life, or when the request was sent. link_heard_at: when its link gave anything
    at all; queued: it shares the link with others. A request behind others in a queue is slow, not silent.
    """

    number: int
    transport: TransportName
    started_at: float
    heard_at: float
    ack_delay_s: float
    stall_delay_s: float
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

    def overdue_at(self) -> float | None:
        """When its silence becomes a reason to hedge; None while it is answered or waits on purpose."""
        if self.state is HopState.SENT:
            delay_s = self.ack_delay_s
        elif self.state is HopState.ALIVE:
            delay_s = self.stall_delay_s
        else:
            return None
        quiet_at = self.link_heard_at + (max(delay_s, LINK_QUIET_S) if self.queued else delay_s)
        queued_until = min(quiet_at, self.heard_at + max(delay_s, STALL_MAX_S))
        return max(self.heard_at + delay_s, queued_until)

    def wait_until(self, at: float) -> None:
        """It was told BUSY: its request is sent again then."""
        self.state = HopState.WAITING
        self.busy_count += 1
        self.retry_at = at

    def send_again(self, now: float) -> None:
        self.state = HopState.SENT
        self.heard_at = now

    def given(self) -> GiveAnswer:
        """Its answer, for the asker to judge."""
        assert self.answer is not None
        return GiveAnswer(self.number, self.transport, self.answer, self.body)

    @property
    def cause_at_deadline(self) -> Cause:
        """What it ends with where it is still PENDING when the time is up."""
        return _AT_DEADLINE[self.state]

    def record(self, outcome: str, cause: Cause | None, now: float) -> HopRecord:
        """The hop as it ended now."""
        return HopRecord(
            number=self.number,
            transport=self.transport,
            outcome=outcome,
            cause=cause,
            fallback_from=self.fallback_from,
            fallback_cause=self.fallback_cause,
            hedged=self.hedged,
            started_at=self.started_at,
            ended_at=now,
            accepted_after_s=None if self.accepted_at is None else self.accepted_at - self.started_at,
            bytes=self.bytes,
        )

    def was_silent(self, now: float) -> bool:
        """Whether it gave no sign of life within its delay: what a loser is charged with."""
        overdue_at = self.overdue_at()
        return overdue_at is not None and now >= overdue_at
