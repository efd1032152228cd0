"""What goes into the machine of one delivery (events) and what comes out of it (commands).

Times are seconds of a monotonic clock; hop numbers start at 1 and are unique within a delivery.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.manager.delivery.hop import Hop
from shared.bus.messages.envelopes import BodyRef
from shared.content.messages import PeerAnswer
from shared.errors import Cause
from shared.transports import TransportName

# ── events ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class HopAccepted:
    """A worker has put the request into its link's buffer: no sign of life from the peer yet.

    acks, confirms: what the link's peer can (shared.bus.messages.envelopes.Accepted).
    """

    hop: int
    worker: str
    acks: bool = True
    confirms: bool = True


@dataclass(frozen=True, slots=True)
class HopUnaccepted:
    """Nobody said within its time whether the request was taken: the worker is stopped or gone."""

    hop: int


@dataclass(frozen=True, slots=True)
class HopProgress:
    """The peer acked (bytes 0), or this many bytes of its answer have arrived in all."""

    hop: int
    bytes: int


@dataclass(frozen=True, slots=True)
class HopAnswered:
    hop: int
    answer: PeerAnswer
    body: BodyRef | None


@dataclass(frozen=True, slots=True)
class HopVerdict:
    """The caller's word: None = verified and kept. bytes: of the verified body."""

    hop: int
    cause: Cause | None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class HopFailed:
    """An explicit failure. retry_after_s: with BUSY and RATE_LIMITED, else 0."""

    hop: int
    cause: Cause
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DialSucceeded:
    transport: TransportName


@dataclass(frozen=True, slots=True)
class DialFailed:
    """tried: False where it was not dialled at all: it failed a moment ago, and this is why."""

    transport: TransportName
    cause: Cause
    tried: bool = True


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """A transport was switched, or a peer blocked or unblocked; what may be used is in the routes given with it."""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    worker: str


@dataclass(frozen=True, slots=True)
class DeliveryCancelled:
    """The caller does not want it any more."""


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """The caller asked with the same id (it lost sight of us): what it may have missed is sent again."""


@dataclass(frozen=True, slots=True)
class TimerFired:
    """next_deadline() has come."""


HopEvent = HopAccepted | HopUnaccepted | HopProgress | HopAnswered | HopVerdict | HopFailed
Event = HopEvent | DialSucceeded | DialFailed | RulesChanged | WorkerLost | DeliveryCancelled | AskedAgain | TimerFired

# ── commands ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SendOnLink:
    """Ask the link subject. retry: the hop's request is sent again after BUSY."""

    hop: int
    transport: TransportName
    retry: bool = False


@dataclass(frozen=True, slots=True)
class DialTransport:
    transport: TransportName


@dataclass(frozen=True, slots=True)
class CancelHop:
    """Make the worker (None: not known yet) forget the request, and its native peer."""

    hop: int
    worker: str | None


@dataclass(frozen=True, slots=True)
class SlowCaller:
    """A link or its remote peer has no room: the caller is to ask this peer for less at a time."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class GiveAnswer:
    hop: int
    transport: TransportName
    answer: PeerAnswer
    body: BodyRef | None


@dataclass(frozen=True, slots=True)
class RecordHop:
    """The hop has ended: write it down in span, stream and diagnostics."""

    hop: Hop


@dataclass(frozen=True, slots=True)
class Finish:
    """The one outcome: confirmed, accepted (no peer could answer), failed, or cancelled (by the caller). Nothing
    comes after it."""

    outcome: str
    cause: Cause | None


Command = SendOnLink | DialTransport | CancelHop | SlowCaller | GiveAnswer | RecordHop | Finish
