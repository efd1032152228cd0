"""In which order, and how far apart, the transports are tried. Pure: facts in, hops out.

The order is fixed (DESIGN 3): what changes is which transport may be used now, which has a link, and how long
one is given before the next starts beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.errors import Cause
from shared.transports import ORDER, TransportName

DIAL_STAGGER_S = 0.25
"""Between the starts of two dials: RFC 8305's Connection Attempt Delay, and libp2p's for the next transport."""

DIAL_LIMIT_S = 5.0
"""A dial's own time: ICE and signalling on a good day take 1-3 s, PeerJS's EXPIRE 5 s (FACTS 1)."""

HEDGE_MIN_S = 0.03
"""Shorter than this is within a busy machine's own jitter (DESIGN 3)."""

HEDGE_MAX_S = 0.3
"""The longest that silence is waited out, and what is used for a link that nothing is known of (DESIGN 3)."""

STALL_MIN_S = 0.3
STALL_MAX_S = 2.0
"""Silence after an ack: the peer works or queues. A MiB behind five others on a 5 MB/s link waits 1.2 s, on a
14 MB/s one (stock aiortc, FACTS 1) 0.4 s; where a worker died its ping, at 250 ms, is sooner than this."""

LINK_QUIET_S = 0.25
"""A link with other requests of ours that gave anything for any of them within this is at work, not silent: workers
tell of progress each 50 ms, and on a machine with more processes than cores a few of those come late together."""

SILENT_LIMIT_S = 2.0
"""A hop without any sign of life is given up after this, where something else is left to try."""

STALL_LIMIT_S = 4.0
"""The same for one that was acked: the links' own keep-alive closes a dead link after 4 s."""

RECHECK_S = 0.1
"""A hedge that was due but not allowed (budget, nothing left) is looked at again after this."""

MIN_RETRY_S = 0.05
"""What a BUSY without a retry_after is waited out; a worker's own is 0.1 s."""


BARRED = frozenset({Cause.BLOCKED, Cause.DISABLED})
"""Skips that also end what is under way; an open circuit keeps only new hops away."""


class Known(StrEnum):
    """What this manager last learnt of a link; the bus, asked, is always right."""

    LINKED = "linked"
    UNLINKED = "unlinked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Route:
    """One transport towards one peer, now.

    skip: why it may not be used (BLOCKED, DISABLED, CIRCUIT_OPEN), None = it may. ack_delay_s: silence after a request
    that starts a hedge; stall_delay_s: the same after a sign of life. heard_at: when anything last came over the
    link, for whichever request; in_flight: our requests on it.
    """

    transport: TransportName
    link: Known = Known.UNKNOWN
    skip: Cause | None = None
    ack_delay_s: float = HEDGE_MAX_S
    stall_delay_s: float = STALL_MAX_S / 2
    heard_at: float = float("-inf")
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Routes:
    """All transports towards one peer, now. hedge_allowed: whether the budget of duplicates has room."""

    routes: Mapping[TransportName, Route]
    hedge_allowed: bool = True

    def __getitem__(self, transport: TransportName) -> Route:
        return self.routes[transport]


@dataclass(frozen=True, slots=True)
class Hop:
    """One planned attempt.

    start_after_s: how long the hop before must have been silent (its link's learnt delay); an explicit
    failure starts it at once. For a dial: after the round's start. deadline_s: silence, counted from its own
    start, after which it is given up.
    """

    transport: TransportName
    start_after_s: float
    deadline_s: float


def rank(routes: Routes, remaining_s: float) -> list[Hop]:
    """The hops of a delivery to a peer with a link, in order; empty where no usable transport has one (dial then).

    A transport that may not be used keeps its place, so that the skip is recorded when its turn comes, and so
    does one without a link: asking the bus costs a millisecond and is always right.
    """
    if not any(routes[transport].link is Known.LINKED and routes[transport].skip is None for transport in ORDER):
        return []
    hops: list[Hop] = []
    start_after_s = 0.0
    for transport in ORDER:
        hops.append(Hop(transport, start_after_s, min(SILENT_LIMIT_S, remaining_s)))
        start_after_s = routes[transport].ack_delay_s
    return hops


def rank_dials(routes: Routes, remaining_s: float) -> list[Hop]:
    """The dials of a round: usable transports in order, DIAL_STAGGER_S apart."""
    usable = [transport for transport in ORDER if routes[transport].skip is None]
    return [Hop(transport, DIAL_STAGGER_S * index, remaining_s) for index, transport in enumerate(usable)]


def hedge_delay_s(smoothed_s: float, deviation_s: float) -> float:
    """RFC 6298's timeout (mean + 4 deviations) within HEDGE_MIN_S..HEDGE_MAX_S."""
    return min(HEDGE_MAX_S, max(HEDGE_MIN_S, smoothed_s + 4 * deviation_s))


def stall_delay_s(smoothed_s: float, deviation_s: float) -> float:
    """The same for gaps after the ack, within STALL_MIN_S..STALL_MAX_S."""
    return min(STALL_MAX_S, max(STALL_MIN_S, smoothed_s + 4 * deviation_s))
