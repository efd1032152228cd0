"""In which order, and how far apart, the transports are tried. Pure: facts in, an order out.

The order is fixed: what changes is which transport may be used now, which has a link, and how long one is given
before the next starts beside it. An open circuit puts a transport last and never refuses: a doubtful link is better
than none.
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
"""A dial's own time: ICE and signalling on a good day take 1-3 s, PeerJS's EXPIRE 5 s."""

HEDGE_MIN_S = 0.03
"""Shorter than this is within a busy machine's own jitter."""

HEDGE_MAX_S = 0.3
"""The longest that silence of a peer that acks is waited out, and what is used for a link that nothing is known of."""

STALL_MIN_S = 0.3
STALL_MAX_S = 2.0
"""Silence after an ack: the peer works or queues. A MiB behind five others on a 5 MB/s link waits 1.2 s, on a
14 MB/s one (stock aiortc, measured) 0.4 s; where a worker died its ping, at 250 ms, is sooner than this."""

LINK_QUIET_S = 0.25
"""A link with other requests of ours that gave anything for any of them within this is at work, not silent: workers
report progress every 50 ms, and on a machine with more processes than cores a few of those come late together."""

ANSWER_DEFAULT_S = 5.0
"""How long the answer of a peer that cannot ack may take before anything is learnt of it: a chunk of 1 MiB in one
message takes 4 s on a 2 Mbit/s uplink, and shows nothing of itself before it is complete."""

ANSWER_MIN_S = 1.0
"""Quick answers to small requests say little of a chunk: this is 1 MiB at 8 Mbit/s."""

ANSWER_MAX_S = 5.0
"""Half of what a delivery has: the other half is for the other transports."""

ANSWER_LIMIT_FACTOR = 2.0
"""An answer that is late by as much again will not come: its hop is given up, where something else is left to try."""

SILENT_LIMIT_S = 2.0
"""A hop without any sign of life from a peer that acks is given up after this, where something else is left to try."""

STALL_LIMIT_S = 4.0
"""The same for one that was acked: the links' own keep-alive closes a dead link after 4 s."""

RECHECK_S = 0.1
"""A hedge that was due but not allowed (budget, nothing left) is looked at again after this."""

MIN_RETRY_S = 0.05
"""What a BUSY without a retry_after is waited out; a worker's own is 0.1 s."""


BARRED = frozenset({Cause.BLOCKED, Cause.DISABLED})
"""Skips that also end what is in flight, and that nothing overrules; an open circuit keeps only new hops away, and
only where there is another link."""


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
    link, for whichever request; in_flight: our requests on it. acks: whether its peer says at once that it has a
    request; answer_delay_s: silence that starts a hedge where it cannot.
    """

    transport: TransportName
    link: Known = Known.UNKNOWN
    skip: Cause | None = None
    ack_delay_s: float = HEDGE_MAX_S
    stall_delay_s: float = STALL_MAX_S / 2
    heard_at: float = float("-inf")
    in_flight: int = 0
    acks: bool = True
    answer_delay_s: float = ANSWER_DEFAULT_S

    @property
    def barred(self) -> Cause | None:
        """Why it may not be used at all; an open circuit is no such reason."""
        return self.skip if self.skip in BARRED else None


@dataclass(frozen=True, slots=True)
class Routes:
    """All transports towards one peer, now. hedge_allowed: whether the budget of duplicates has room."""

    routes: Mapping[TransportName, Route]
    hedge_allowed: bool = True

    def __getitem__(self, transport: TransportName) -> Route:
        return self.routes[transport]


def rank(routes: Routes) -> list[TransportName]:
    """The order of a delivery to a peer with a link; empty where no usable transport has one (dial then).

    A transport that may not be used keeps its place, so that the skip is recorded when its turn comes, and so
    does one without a link: asking the bus costs a millisecond and is always right.
    """
    # Of those that may be used: a link on a transport that is off is no reason to put the dials off.
    linked = any(routes[transport].link is Known.LINKED and routes[transport].skip is None for transport in ORDER)
    return list(ORDER) if linked else []


def rank_dials(routes: Routes) -> list[tuple[TransportName, float]]:
    """The dials of a round as (transport, seconds after its start): DIAL_STAGGER_S apart, open circuits last.

    A transport whose circuit is open though it has a link needs none: the link is its delivery's last resort.
    """
    usable = [transport for transport in ORDER if routes[transport].skip is None]
    doubtful = [
        transport
        for transport in ORDER
        if routes[transport].skip is Cause.CIRCUIT_OPEN and routes[transport].link is not Known.LINKED
    ]
    return [(transport, DIAL_STAGGER_S * index) for index, transport in enumerate(usable + doubtful)]


def hedge_delay_s(smoothed_s: float, deviation_s: float) -> float:
    """RFC 6298's timeout (mean + 4 deviations) within HEDGE_MIN_S..HEDGE_MAX_S."""
    return min(HEDGE_MAX_S, max(HEDGE_MIN_S, smoothed_s + 4 * deviation_s))


def stall_delay_s(smoothed_s: float, deviation_s: float) -> float:
    """The same for gaps after the ack, within STALL_MIN_S..STALL_MAX_S."""
    return min(STALL_MAX_S, max(STALL_MIN_S, smoothed_s + 4 * deviation_s))


def answer_delay_s(smoothed_s: float, deviation_s: float) -> float:
    """The same for answers of peers that cannot ack, within ANSWER_MIN_S..ANSWER_MAX_S."""
    return min(ANSWER_MAX_S, max(ANSWER_MIN_S, smoothed_s + 4 * deviation_s))
