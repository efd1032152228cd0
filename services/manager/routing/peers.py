"""What this manager has learnt of its peers: links, round trips, who is wanted, when to probe. Pure.

Only hints: a hop asks the bus, and NATS's "no responders" decides. The hints spare a pointless hedge, start a
delivery with a dial where no link is known, and keep every enabled transport warm for peers that are wanted:
a primary is back within a probe of its recovery, and a second link is open when a hedge needs it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from services.manager.routing.rank import (
    ANSWER_DEFAULT_S,
    HEDGE_MAX_S,
    STALL_MAX_S,
    Known,
    answer_delay_s,
    hedge_delay_s,
    stall_delay_s,
)
from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.hops.fold import OUTCOME_CONFIRMED
from shared.ids import peer_name, token_key
from shared.transports import ORDER, TransportName

WANTED_S = 300.0
"""A peer is kept warm this long after its last delivery."""

PROBE_INTERVAL_S = 5.0
"""Between two dials of one peer on one transport, whatever the breakers say."""

DIAL_RETRY_S = 1.0
"""A dial that failed is not tried again sooner, even for a delivery: its cause is reported instead. But for a worker
that was not there: the bus says so in a millisecond, and a new one may have come up meanwhile."""

RECENT_CONFIRMED_MS = 60_000
"""A confirmed hop this young shows a new manager that the link is there."""

MAX_PEERS = 4_096
MAX_REMEMBERED_LINKS = 8_192
"""The least recently used is forgotten, and learnt again."""

SMOOTHED_GAIN = 1 / 8
DEVIATION_GAIN = 1 / 4
"""RFC 6298's alpha and beta."""

FIRST_ACK_DEVIATION_S = 0.025
FIRST_GAP_DEVIATION_S = 0.1
FIRST_ANSWER_DEVIATION_S = 0.5
"""After one sample nothing is known of its spread: a busy machine's scheduling, a queue on the link, the size
of an answer."""


@dataclass(slots=True)
class Estimate:
    """RFC 6298: a smoothed time and its mean deviation, in seconds. first_deviation_s: the least after one sample."""

    first_deviation_s: float
    smoothed_s: float = 0.0
    deviation_s: float = 0.0
    known: bool = False

    def learn(self, sample_s: float) -> None:
        if not self.known:
            self.smoothed_s, self.known = sample_s, True
            self.deviation_s = max(sample_s / 2, self.first_deviation_s)
            return
        off_s = abs(self.smoothed_s - sample_s)
        # RFC 6298, 2.3: the deviation first, by the mean as it was before this sample.
        self.deviation_s += DEVIATION_GAIN * (off_s - self.deviation_s)
        self.smoothed_s += SMOOTHED_GAIN * (sample_s - self.smoothed_s)


@dataclass(slots=True)
class LinkFacts:
    """One transport towards one peer. heard_at: when anything last came over it, for whichever request of ours;
    in_flight: our requests on it without an end. acks: whether its peer acks requests, as the worker last said.
    """

    known: Known = Known.UNKNOWN
    seen_at: float = float("-inf")
    heard_at: float = float("-inf")
    in_flight: int = 0
    probed_at: float = float("-inf")
    dial_failed_at: float = float("-inf")
    dial_cause: Cause | None = None
    ack: Estimate = field(default_factory=lambda: Estimate(FIRST_ACK_DEVIATION_S))
    gap: Estimate = field(default_factory=lambda: Estimate(FIRST_GAP_DEVIATION_S))
    acks: bool = True
    answer: Estimate = field(default_factory=lambda: Estimate(FIRST_ANSWER_DEVIATION_S))

    def ack_delay_s(self) -> float:
        """Silence after a request that starts a hedge."""
        return hedge_delay_s(self.ack.smoothed_s, self.ack.deviation_s) if self.ack.known else HEDGE_MAX_S

    def stall_delay_s(self) -> float:
        """The same after a sign of life; never shorter than for the ack."""
        # Before anything is learnt half of the longest: a first body is neither hedged at once nor waited for in vain.
        learnt_s = stall_delay_s(self.gap.smoothed_s, self.gap.deviation_s) if self.gap.known else STALL_MAX_S / 2
        return max(learnt_s, self.ack_delay_s())

    def answer_delay_s(self) -> float:
        """Silence that starts a hedge where the peer cannot ack."""
        return (
            answer_delay_s(self.answer.smoothed_s, self.answer.deviation_s) if self.answer.known else ANSWER_DEFAULT_S
        )


@dataclass(slots=True)
class _Peer:
    name: str
    dialable: bool
    wanted_at: float = float("-inf")
    links: dict[TransportName, LinkFacts] = field(default_factory=lambda: {name: LinkFacts() for name in ORDER})


class PeerBook:
    """Times are seconds of the manager's monotonic clock; records carry wall-clock milliseconds."""

    def __init__(self) -> None:
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._confirmed_ms: OrderedDict[tuple[str, str], int] = OrderedDict()

    # ── what happened ──

    def want(self, peer: str, now: float, now_ms: int) -> None:
        """A delivery for the peer has come. Raises: SwarmbridgeError(INVALID) where it is no peer token."""
        known = peer in self._peers
        entry = self._peer(peer)
        entry.wanted_at = now
        # Only then: what this manager has seen itself is newer than the records.
        if not known:
            for transport, link in entry.links.items():
                confirmed_ms = self._confirmed_ms.get((entry.name, transport.value), 0)
                if now_ms - confirmed_ms < RECENT_CONFIRMED_MS:
                    link.known = Known.LINKED

    def linked(self, peer: str, transport: TransportName, now: float) -> None:
        """A worker said that it has a link."""
        link = self._peer(peer).links[transport]
        link.known, link.seen_at, link.dial_cause = Known.LINKED, now, None

    def unlinked(self, peer: str, transport: TransportName) -> None:
        self._peer(peer).links[transport].known = Known.UNLINKED

    def transport_gone(self, transport: TransportName) -> None:
        """Its flag went off: no links are left, and none of its dials is to be waited for."""
        for entry in self._peers.values():
            entry.links[transport].known = Known.UNLINKED

    def accepted(self, peer: str, transport: TransportName, rtt_s: float, acks: bool, now: float) -> None:
        """A worker has a request of ours in its link's buffer. rtt_s: the link's round trip, 0 = not known.

        It is good enough until acks have been timed; of a peer that cannot ack it says nothing.
        """
        self.linked(peer, transport, now)
        link = self._peer(peer).links[transport]
        link.acks = acks
        if acks and rtt_s > 0 and not link.ack.known:
            link.ack.learn(rtt_s)

    def heard(self, peer: str, transport: TransportName, now: float) -> None:
        """An ack, bytes or an answer came over the link, whichever request they were for."""
        self.linked(peer, transport, now)
        self._peer(peer).links[transport].heard_at = now

    def hop_started(self, peer: str, transport: TransportName) -> None:
        self._peer(peer).links[transport].in_flight += 1

    def hop_ended(self, peer: str, transport: TransportName) -> None:
        link = self._peer(peer).links[transport]
        link.in_flight = max(0, link.in_flight - 1)  # the peer may have been forgotten and learnt again meanwhile

    def acked(self, peer: str, transport: TransportName, after_s: float) -> None:
        self._peer(peer).links[transport].ack.learn(after_s)

    def answered(self, peer: str, transport: TransportName, after_s: float) -> None:
        """The first sign of life that a peer that cannot ack gives: its answer, or the beginning of it."""
        self._peer(peer).links[transport].answer.learn(after_s)

    def unanswered(self, peer: str, transport: TransportName, waited_s: float) -> None:
        """No answer came in this time. Where that is longer than they take, they have become slower than was thought:
        without this, each would be hedged and cancelled indefinitely, and nothing learnt."""
        answer = self._peer(peer).links[transport].answer
        if answer.known and waited_s > answer.smoothed_s:
            answer.learn(waited_s)

    def gap(self, peer: str, transport: TransportName, gap_s: float) -> None:
        """Between two signs of life of one request, after its ack."""
        self._peer(peer).links[transport].gap.learn(gap_s)

    def dialled(self, peer: str, transport: TransportName, now: float) -> None:
        self._peer(peer).links[transport].probed_at = now

    def dial_failed(self, peer: str, transport: TransportName, cause: Cause, now: float) -> None:
        link = self._peer(peer).links[transport]
        # A worker answers a dial with a link that is there already: one that failed says that there is none.
        link.known, link.dial_failed_at, link.dial_cause = Known.UNLINKED, now, cause

    def apply(self, record: HopRecord, stored_ms: int) -> None:
        """Remember which links worked lately, also for peers that this manager has not met."""
        key = (record.peer, record.transport)
        if record.outcome == OUTCOME_CONFIRMED:
            self._confirmed_ms[key] = stored_ms
            self._confirmed_ms.move_to_end(key)
            while len(self._confirmed_ms) > MAX_REMEMBERED_LINKS:
                self._confirmed_ms.popitem(last=False)
        # What was confirmed is over: a new manager would take the link for granted and ask in vain.
        elif record.cause is Cause.NO_LINK:
            self._confirmed_ms.pop(key, None)

    # ── what follows from it ──

    def name(self, peer: str) -> str:
        """The peer's name (kept: deriving it hashes)."""
        return self._peer(peer).name

    def links(self, peer: str) -> Mapping[TransportName, LinkFacts]:
        """Every transport's, in order; to be read at once, and not to be changed."""
        return self._peer(peer).links

    def recent_dial_failure(self, peer: str, transport: TransportName, now: float) -> Cause | None:
        """The cause of a dial that failed less than DIAL_RETRY_S ago; None where asking again costs nothing."""
        link = self._peer(peer).links[transport]
        # A worker that was not there may be by now, and to ask costs a millisecond.
        remembered = link.dial_cause is not Cause.WORKER_LOST and now - link.dial_failed_at < DIAL_RETRY_S
        return link.dial_cause if remembered else None

    def due_probes(
        self, enabled: list[TransportName], now: float, doubted: Callable[[str, TransportName], bool]
    ) -> list[tuple[str, TransportName]]:
        """Which (peer, transport) to dial now: wanted, and not dialled nor seen for PROBE_INTERVAL_S.

        doubted: whether the circuit of a peer's name and a transport is open. Being seen is no probe then: the peer's
        own requests would keep its link out of use for as long as they come.
        """

        def last_at(entry: _Peer, transport: TransportName) -> float:
            link = entry.links[transport]
            return link.probed_at if doubted(entry.name, transport) else max(link.seen_at, link.probed_at)

        return [
            (peer, transport)
            for peer, entry in self._peers.items()
            # Who is not wanted any more is let cool down: links close by themselves when nobody uses them.
            if entry.dialable and now - entry.wanted_at < WANTED_S
            for transport in enabled
            if now - last_at(entry, transport) >= PROBE_INTERVAL_S
        ]

    def _peer(self, peer: str) -> _Peer:
        entry = self._peers.get(peer)
        if entry is None:
            # A guest cannot be dialled: only its own side knows where it is.
            entry = self._peers[peer] = _Peer(peer_name(peer), dialable=token_key(peer) is not None)
            while len(self._peers) > MAX_PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(peer)
        return entry
