"""Why a transport did not carry something: its hops' causes, and the change in the node that explains them. Pure.

A cause says what a hop saw; the change says what was done. `no_link` is what most hops see, whatever happened:
so the most specific cause near the moment is taken, and a change that fits it and came before is named with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from services.gateway.model.history import DIRECTION_WORDS, ChangeKind
from services.gateway.words.causes import because
from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.gateway_api.why import Change
from shared.hops.fold import OUTCOME_SKIPPED
from shared.settings.blocklist import Direction

LOOK_BACK_MS = 60_000
"""A change that does not last explains what happened within so long after it: a link is dialled again in seconds."""

NOTICED_WITHIN_MS = 5_000
"""A change may be noticed this long after its effect: a worker is missed after 3 s, signalling after a grace of 3 s."""

LINKED_AGAIN_MS = 10_000
"""A worker that came in another's stead has its links within so long, or something else keeps it from them."""

SWITCH_MS = 1_500
"""Hops that fail so soon after one another failed of the same thing: pings find a dead worker within 0.5 s."""

_VAGUEST_FIRST = (
    Cause.OTHER,
    Cause.NO_LINK,
    Cause.CIRCUIT_OPEN,
    Cause.SILENT,
    Cause.TIMEOUT,
    Cause.DIAL_TIMEOUT,
    Cause.CLOSED,
)
"""Effects of something else, the vaguest first; every other cause says more."""

_LOST = frozenset({Cause.NO_LINK, Cause.CLOSED, Cause.SILENT, Cause.TIMEOUT, Cause.DIAL_TIMEOUT, Cause.CIRCUIT_OPEN})

_EXPLAINS: tuple[tuple[ChangeKind, frozenset[Cause]], ...] = (
    (ChangeKind.FLAG_OFF, frozenset({Cause.DISABLED, Cause.NO_LINK, Cause.CLOSED})),
    (ChangeKind.CHAOS_SET, frozenset({Cause.SILENT, Cause.TIMEOUT, Cause.REFUSED, Cause.CIRCUIT_OPEN})),
    (ChangeKind.DRAINING, _LOST | {Cause.DRAINING, Cause.WORKER_LOST}),
    (ChangeKind.WORKER_LOST, _LOST | {Cause.WORKER_LOST}),
    (
        ChangeKind.TRANSPORT_TROUBLED,
        _LOST | {Cause.IMPORT_FAILED, Cause.ID_TAKEN, Cause.WORKER_LOST, Cause.MISCONFIGURED},
    ),
    (ChangeKind.SIGNALLING_LOST, _LOST - {Cause.CLOSED} | {Cause.SIGNALLING_UNAVAILABLE, Cause.PEER_UNKNOWN}),
    (ChangeKind.PEER_BLOCKED, frozenset({Cause.BLOCKED, Cause.CLOSED, Cause.NO_LINK, Cause.CIRCUIT_OPEN})),
    (ChangeKind.LINK_CLOSED, _LOST),
)
"""Which causes a change can have brought about; the change that says most comes first."""

_BLOCKED_SO = {
    Direction.INBOUND.value: frozenset({Cause.CLOSED, Cause.NO_LINK}),
    Direction.OUTBOUND.value: frozenset({Cause.BLOCKED, Cause.NO_LINK, Cause.CIRCUIT_OPEN}),
    Direction.ALL.value: frozenset({Cause.BLOCKED, Cause.CLOSED, Cause.NO_LINK, Cause.CIRCUIT_OPEN}),
}
"""What a block of ours does to our hops; what comes in only refuses none of them."""

_LASTING: dict[str, ChangeKind] = {
    ChangeKind.FLAG_OFF: ChangeKind.FLAG_ON,
    ChangeKind.CHAOS_SET: ChangeKind.CHAOS_CLEARED,
    ChangeKind.PEER_BLOCKED: ChangeKind.PEER_UNBLOCKED,
    ChangeKind.SIGNALLING_LOST: ChangeKind.SIGNALLING_BACK,
    ChangeKind.TRANSPORT_TROUBLED: ChangeKind.TRANSPORT_BACK,
}
"""Changes that last until they are undone: they explain what happens however long after. Any other one is over
after LOOK_BACK_MS, or when a link to the peer has opened since (on another worker, where one was lost)."""

_PEERS_SIDE = _LOST | {Cause.PEER_UNKNOWN, Cause.BUSY, Cause.RATE_LIMITED, Cause.BLOCKED}
"""What the remote peer or the network can bring about; a block that is not ours is the remote peer's."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why `transport` did not carry it. hops: those it is read from. change: what explains it, None = nothing known."""

    transport: str
    cause: Cause
    hops: tuple[HopRecord, ...]
    change: Change | None

    @property
    def words(self) -> str:
        """The clause after "because", with the cause's own word behind it."""
        return f"{self.clause} ({self.code})"

    @property
    def code(self) -> str:
        """The cause's own word; before it what closed the link."""
        code = self.cause.value
        if self.change is not None and self.change.kind is ChangeKind.LINK_CLOSED and self.change.cause != code:
            return f"{self.change.cause or Cause.CLOSED.value}, then {code}"
        return code

    @property
    def of_peer(self) -> bool:
        """Whether it holds for the peer, whatever the transport."""
        return self.blocked_here or self.cause is Cause.BLOCKED

    @property
    def blocked_here(self) -> bool:
        """Whether a block of this node explains it."""
        return self.change is not None and self.change.kind is ChangeKind.PEER_BLOCKED

    @property
    def blocked_there(self) -> bool:
        """Whether it is the remote peer that blocks: no block here explains it, or the link was closed so."""
        if self.change is None:
            return self.cause is Cause.BLOCKED
        return self.change.kind is ChangeKind.LINK_CLOSED and self.change.cause == Cause.BLOCKED.value

    @property
    def points_away(self) -> bool:
        """Whether nothing here explains it, and the cause is one that the remote peer or the network brings about."""
        here = self.change is not None and self.change.kind is not ChangeKind.LINK_CLOSED
        return not here and self.cause in _PEERS_SIDE

    @property
    def clause(self) -> str:
        said = self._change_clause(self.change) if self.change is not None else ""
        return said or because(self.cause, self.transport)

    def _change_clause(self, change: Change) -> str:
        """What the change says of it; "" where its cause alone says more."""
        kind = ChangeKind(change.kind)
        match kind:
            case ChangeKind.FLAG_OFF:
                return f"{self.transport} was switched off"
            case ChangeKind.CHAOS_SET:
                return change.text
            case ChangeKind.TRANSPORT_TROUBLED:
                return change.text if change.cause != self.cause.value else ""
            case ChangeKind.PEER_BLOCKED:
                return f"this node has blocked the peer {DIRECTION_WORDS[change.direction or Direction.ALL]}"
            case ChangeKind.DRAINING:
                return f"the {self.transport} worker was stopped"
            case ChangeKind.WORKER_LOST:
                return f"the {self.transport} worker was lost"
            case ChangeKind.LINK_CLOSED:
                return f"the {self.transport} link was closed"
            case ChangeKind.SIGNALLING_LOST:
                return because(Cause.SIGNALLING_UNAVAILABLE, self.transport)
            case (
                ChangeKind.BUS_LOST
                | ChangeKind.WORKER_LEFT
                | ChangeKind.FLAG_ON
                | ChangeKind.CHAOS_CLEARED
                | ChangeKind.PEER_UNBLOCKED
                | ChangeKind.WORKER_CAME
                | ChangeKind.SIGNALLING_BACK
                | ChangeKind.TRANSPORT_BACK
                | ChangeKind.LINK_OPENED
                | ChangeKind.BUS_BACK
            ):
                return ""  # the hops' own cause says it, or something came back
            case _:
                assert_never(kind)


def reason_of(transport: str, hops: Sequence[HopRecord], at_ms: int, changes: Iterable[Change]) -> Reason | None:
    """The reason in a transport's unused hops around a moment; None where there are none.

    hops: with a cause, in the order of their starts. at_ms: when the transport stopped carrying it.
    """
    # Later ones tell of trying again, and not of why it was left; with none near, the first must do.
    near = [hop for hop in hops if hop.started_ms <= at_ms + SWITCH_MS] or list(hops[:1])
    causes = Counter(hop.cause for hop in near if hop.cause is not None)
    if not causes:
        return None
    # The most specific, and the most frequent among equals: one `disabled` says more than a hundred `no_link`.
    cause = max(causes, key=lambda one: (_specificity(one), causes[one]))
    peers = {hop.peer for hop in near if hop.cause is cause}
    return Reason(transport, cause, tuple(hops), explaining(transport, cause, at_ms, changes, peers))


def explaining(
    transport: str, cause: Cause, at_ms: int, changes: Iterable[Change], peers: Collection[str] = ()
) -> Change | None:
    """The latest change of the most specific kind that can have brought the cause about. peers: whose hops it ended."""
    # Of this transport, and blocks, which hold for a peer whatever the transport.
    about = (one for one in changes if one.transport == transport or (_is_block(one) and one.peer in peers))
    before = [change for change in about if change.at <= at_ms + NOTICED_WITHIN_MS]
    # In the order of _EXPLAINS and not of time: of what fits, the kind that says most.
    for kind, causes in _EXPLAINS:
        found = [change for change in before if change.kind is kind and _blocks_so(change, cause)]
        if cause not in causes or not found:
            continue
        last = found[-1]
        undone = any(
            last.at <= one.at <= at_ms and one is not last and (_undoes(one, last) or _replaced(one, last, at_ms))
            for one in before
        )
        if not undone and (kind in _LASTING or last.at >= at_ms - LOOK_BACK_MS):
            return last
    return None


def blocks_at(at_ms: int, changes: Iterable[Change]) -> list[Change]:
    """The blocks that were in force at a moment, one a peer. changes: oldest first."""
    found: dict[str, Change] = {}
    for change in changes:
        if change.at <= at_ms and _is_block(change) and change.peer is not None:
            # A peer has one block at a time: the later one counts, at its own place in the order.
            found.pop(change.peer, None)
            if change.kind is ChangeKind.PEER_BLOCKED:
                found[change.peer] = change
    return list(found.values())


def tried_again(reason: Reason, since_ms: int) -> str:
    """How often the transport was tried, or passed over, after the moment; "" for never."""
    later = [hop for hop in reason.hops if hop.started_ms > since_ms]
    words = []
    for verb, hops in (
        ("tried again", [hop for hop in later if hop.outcome != OUTCOME_SKIPPED]),
        ("passed over", [hop for hop in later if hop.outcome == OUTCOME_SKIPPED]),
    ):
        if hops:
            causes = Counter(hop.cause.value for hop in hops if hop.cause is not None)
            words.append(f"{verb} {times(len(hops))}: {', '.join(cause for cause, _ in causes.most_common(3))}")
    return f"{reason.transport} was {' and '.join(words)}" if words else ""


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _undoes(change: Change, earlier: Change) -> bool:
    if _is_block(earlier):
        # A block takes the place of one that the peer had before, whatever the direction.
        return _is_block(change) and change.peer == earlier.peer
    if earlier.kind in _LASTING:
        return change.kind is _LASTING[earlier.kind]
    # A lost worker is dated by its last heartbeat: it may well have opened a link after that.
    of_lost = earlier.kind is not ChangeKind.LINK_CLOSED and change.worker == earlier.worker
    return change.kind is ChangeKind.LINK_OPENED and not of_lost


def _replaced(change: Change, earlier: Change, at_ms: int) -> bool:
    """Whether another worker had come in the stead of the one that left, in time to have a link by the moment."""
    left = earlier.kind in (ChangeKind.WORKER_LOST, ChangeKind.DRAINING)
    return left and change.kind is ChangeKind.WORKER_CAME and change.at <= at_ms - LINKED_AGAIN_MS


def _is_block(change: Change) -> bool:
    return change.kind in (ChangeKind.PEER_BLOCKED, ChangeKind.PEER_UNBLOCKED)


def _blocks_so(change: Change, cause: Cause) -> bool:
    """Whether its direction can have brought the cause about; so can every change that is no block."""
    return change.kind is not ChangeKind.PEER_BLOCKED or cause in _BLOCKED_SO[change.direction or Direction.ALL]


def _specificity(cause: Cause) -> int:
    return _VAGUEST_FIRST.index(cause) if cause in _VAGUEST_FIRST else len(_VAGUEST_FIRST)
