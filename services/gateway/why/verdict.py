"""The verdict on a peer or a transfer: over which transport it goes, since when, and why not over a better one. Pure.

Everything is derived from what really happened: hops (the one source of every number), the changes that the
gateway remembers, and how the transports are now. What is not known is said to be unknown.

    verdict     means
    direct      the first transport in order carries it
    fallback    a later one does; the headline says what keeps it from the earlier ones
    returned    the first carries it again after a fallback
    mixed       it keeps changing
    stuck       the last deliveries got through over nothing
    failed      the transfer has ended so
    idle        no peer was asked for it (yet)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from services.gateway.model.history import ChangeKind
from services.gateway.transfers.board import DONE, FAILED, RUNNING
from services.gateway.why.phases import DeliveryHops, Phase, deliveries_of, phases_of, timeline
from services.gateway.why.reasons import LOOK_BACK_MS, SWITCH_MS, Reason, blocks_at, explaining, reason_of
from services.gateway.why.words import BLOCKED_THERE, PEER, Headlines
from services.gateway.words.causes import CAUSE_WORDS
from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.gateway_api.structs import Transfer
from shared.gateway_api.why import CauseView, Change, ReasonView, Why
from shared.transports import ORDER

MAX_CHANGES_SHOWN = 30
MIXED_OF_LAST = 16
MIXED_PHASES = 6
"""So many phases within so many deliveries: it goes back and forth, and no one switch explains it."""

TELLING_TROUBLES = (Cause.IMPORT_FAILED, Cause.ID_TAKEN, Cause.MISCONFIGURED)
"""What keeps a transport of this node from linking at all, however its hops and its dials call that."""
TROUBLE_NOTICED_MS = 1_000
"""A transport's state is looked at twice a second."""

_UNLINKED = frozenset({Cause.NO_LINK, Cause.DIAL_TIMEOUT, Cause.SIGNALLING_UNAVAILABLE})


class Outcome(StrEnum):
    DIRECT = "direct"
    FALLBACK = "fallback"
    RETURNED = "returned"
    MIXED = "mixed"
    STUCK = "stuck"
    FAILED = "failed"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one subject. who: its peer name, or how its transfer is called.

    hops: its own, in any order. links: transports with a live link to the peer (for a transfer: to any of its
    peers). troubles: transports that cannot serve now, and why. changes: oldest first. known_since_ms: from when
    on changes were remembered. has_trace: whether a trace is still kept. clock_text: ms of the wall clock as people
    read it.
    """

    kind: str
    id: str
    who: str
    transfer: Transfer | None
    hops: Sequence[HopRecord]
    links: Sequence[str]
    troubles: Mapping[str, Cause]
    changes: Sequence[Change]
    known_since_ms: int
    now_ms: int
    has_trace: Callable[[str], bool]
    clock_text: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class _Finding:
    """What the deliveries say. moment_ms: around which changes and the trace are looked for."""

    outcome: Outcome
    phase: Phase | None
    reasons: tuple[Reason, ...]
    moment_ms: int
    showing: Sequence[DeliveryHops]
    headline: str


def why(facts: Facts) -> Why:
    """The verdict on a subject."""
    deliveries = deliveries_of(facts.hops)
    words = Headlines(facts.kind, facts.who, facts.transfer, facts.clock_text)
    found = _find(facts, words, deliveries)
    blocks = _blocks_beside(facts, found)
    # Said once, behind the headline: whoever reads on must not look for the block on this node.
    there = [BLOCKED_THERE] if _ended_there(facts, found, blocks) else []
    rows, omitted = timeline(deliveries)
    trace_id = _trace(found.showing, facts.has_trace)
    changes = _explaining(facts.changes, found, blocks)
    return Why(
        kind=facts.kind,
        id=facts.id,
        verdict=found.outcome,
        headline="; ".join([found.headline, *there, *(words.blocked(block) for block in blocks)]),
        transport=found.phase.transport if found.phase is not None else None,
        since=found.moment_ms if found.showing else None,
        reasons=[_reason_view(reason) for reason in found.reasons],
        causes=_causes(facts, deliveries, found.reasons),
        timeline=rows,
        omitted=omitted,
        changes=changes,
        changes_known_since=facts.known_since_ms,
        peers=sorted({record.peer for record in facts.hops}),
        links=list(facts.links),
        trace_id=trace_id or None,
        trace_kept=bool(trace_id) and facts.has_trace(trace_id),
    )


def _find(facts: Facts, words: Headlines, deliveries: Sequence[DeliveryHops]) -> _Finding:
    phases = phases_of(deliveries)
    unmet = _unmet(facts, deliveries)
    # Ahead of what the hops say: a transfer that has failed is no fallback, whatever carried its chunks.
    if facts.transfer is not None and facts.transfer.state == FAILED:
        return _failed(facts, words, deliveries, phases, unmet)
    if not deliveries or (not phases and not unmet):
        return _Finding(Outcome.IDLE, None, (), facts.now_ms, (), words.idle(facts.links))
    # Ahead of the phases: what got through before does not matter to who waits now.
    if unmet:
        reasons = _reasons_of(facts, unmet, unmet[0].hops[0].started_ms, None)
        since_ms = unmet[0].hops[0].started_ms
        headline = words.stuck(reasons, since_ms, phases[-1] if phases else None, facts.links)
        return _Finding(Outcome.STUCK, None, reasons, since_ms, unmet, headline)
    last = [delivery for delivery in deliveries if delivery.winner is not None][-MIXED_OF_LAST:]
    # Of the last deliveries only: a transfer that has settled is not mixed for what it went through.
    if len(_within(phases, last[0].at_ms)) >= MIXED_PHASES:
        reasons = _reasons_of(facts, last, last[0].at_ms, phases[-1].transport, every=True)
        headline = words.mixed(Counter(one.winner.transport for one in last if one.winner is not None), reasons)
        return _Finding(Outcome.MIXED, phases[-1], reasons, last[0].at_ms, _fell_back(last), headline)
    return _carried(facts, words, phases)


def _carried(facts: Facts, words: Headlines, phases: Sequence[Phase]) -> _Finding:
    """It gets through: over the first transport all the time, over another, or over the first one again."""
    now = phases[-1]
    if now.transport != ORDER[0].value:
        reasons = _reasons_of(facts, now.deliveries, now.since_ms, now.transport)
        headline = words.fallback(now, reasons, facts.links, looks_away=_points_away(facts, reasons, now.since_ms))
        return _Finding(Outcome.FALLBACK, now, reasons, now.since_ms, now.deliveries, headline)
    if len(phases) > 1:
        left = phases[-2]
        reasons = _reasons_of(facts, left.deliveries, left.since_ms, left.transport)
        headline = words.returned(now, left, reasons)
        return _Finding(Outcome.RETURNED, now, reasons, left.since_ms, left.deliveries, headline)
    return _Finding(Outcome.DIRECT, now, (), now.since_ms, _fell_back(now.deliveries), words.direct(now))


def _failed(
    facts: Facts,
    words: Headlines,
    deliveries: Sequence[DeliveryHops],
    phases: Sequence[Phase],
    unmet: Sequence[DeliveryHops],
) -> _Finding:
    """The transfer has failed. Where its last deliveries got through, what was said over them is the reason."""
    ended_ms = max((delivery.ended_ms for delivery in deliveries), default=None)
    since_ms = unmet[0].hops[0].started_ms if unmet else ended_ms or facts.now_ms
    reasons = _reasons_of(facts, unmet, since_ms, None) if unmet else ()
    reached = phases[-1] if phases and not unmet else None
    headline = words.failed(_cause(facts.transfer), ended_ms, reached, reasons)
    return _Finding(Outcome.FAILED, reached, reasons, since_ms, unmet or deliveries[-1:], headline)


def _unmet(facts: Facts, deliveries: Sequence[DeliveryHops]) -> list[DeliveryHops]:
    """The settled deliveries since the last winner that failed; none for a transfer that is done."""
    if facts.transfer is not None and facts.transfer.state == DONE:
        return []
    over = facts.transfer is not None and facts.transfer.state != RUNNING
    found: list[DeliveryHops] = []
    for delivery in reversed(deliveries):
        if delivery.winner is not None:
            break
        failed = not delivery.given_up and any(delivery.unused(hop.transport) for hop in delivery.hops)
        if failed and (over or delivery.is_settled(facts.now_ms)):
            found.append(delivery)
    return found[::-1]


def _reasons_of(
    facts: Facts, deliveries: Sequence[DeliveryHops], at_ms: int, carrying: str | None, *, every: bool = False
) -> tuple[Reason, ...]:
    """A reason for each transport before `carrying` in order; for all of them where nothing carries, or `every`."""
    found = []
    for name in ORDER:
        transport = name.value
        # In order: what carries it now explains why the later ones were not needed.
        if transport == carrying and not every:
            break
        hops = [hop for delivery in deliveries for hop in delivery.unused(transport)]
        moment_ms = _first_tried_ms(hops, at_ms)
        reason = reason_of(transport, hops, moment_ms, facts.changes)
        # Nothing was tried on it in this stretch: what keeps it from serving now is the best that is known.
        if reason is None and not every:
            reason = _reason_now(facts, transport, at_ms)
        if reason is not None:
            found.append(_in_trouble(reason, moment_ms, facts.changes))
    return tuple(found)


def _first_tried_ms(hops: Sequence[HopRecord], at_ms: int) -> int:
    """The moment; where the transport was only spared then, for what others had met, when it was next tried."""
    spared = [hop.cause is Cause.CIRCUIT_OPEN for hop in hops if hop.started_ms <= at_ms + SWITCH_MS]
    if not spared or not all(spared):
        return at_ms
    return next((hop.started_ms for hop in hops if hop.cause is not Cause.CIRCUIT_OPEN), at_ms)


def _in_trouble(reason: Reason, at_ms: int, changes: Sequence[Change]) -> Reason:
    """The trouble that its transport had been in, where that says why there was no link."""
    # There was a link: no trouble that keeps a transport from linking explains it.
    if reason.cause not in _UNLINKED:
        return reason
    for cause in TELLING_TROUBLES:
        change = explaining(reason.transport, cause, at_ms, changes)
        if change is not None and change.cause == cause.value and change.at <= at_ms + TROUBLE_NOTICED_MS:
            # Without the change: the cause has better words than "is degraded".
            return replace(reason, cause=cause, change=None)
    return reason


def _reason_now(facts: Facts, transport: str, at_ms: int) -> Reason | None:
    """Where no hop shows it: what keeps the transport from serving now."""
    cause = facts.troubles.get(transport)
    if cause is None:
        return None
    return Reason(transport, cause, (), explaining(transport, cause, at_ms, facts.changes))


def _points_away(facts: Facts, reasons: Sequence[Reason], at_ms: int) -> bool:
    """Whether the remote peer or the network must be looked at: only where this node was watched all the time."""
    if _blocked_there(facts, reasons, at_ms):
        return True
    watched = facts.known_since_ms <= at_ms - LOOK_BACK_MS or any(
        reason.change is not None and reason.change.kind is ChangeKind.LINK_CLOSED for reason in reasons
    )
    return bool(reasons) and watched and all(_is_away(facts, reason) for reason in reasons)


def _blocked_there(facts: Facts, reasons: Sequence[Reason], at_ms: int) -> bool:
    """Whether it is the remote peer that blocks. A block here is known from when the gateway started, however old."""
    return facts.known_since_ms <= at_ms and any(reason.blocked_there for reason in reasons)


def _is_away(facts: Facts, reason: Reason) -> bool:
    return reason.points_away and reason.transport not in facts.troubles


def _within(phases: Sequence[Phase], since_ms: int) -> list[Phase]:
    return [phase for phase in phases if phase.deliveries[-1].at_ms >= since_ms]


def _blocks_beside(facts: Facts, found: _Finding) -> list[Change]:
    """Blocks of ours that the finding does not name: of a peer, what is in force now, whatever it was like before;
    of a transfer that failed for a block, what was in force then."""
    if facts.kind != PEER and not _failed_for_block(facts):
        return []
    named = {reason.change.direction for reason in found.reasons if reason.change is not None and reason.blocked_here}
    at_ms = facts.now_ms if facts.kind == PEER else found.moment_ms
    return [block for block in blocks_at(at_ms, facts.changes) if block.direction not in named]


def _ended_there(facts: Facts, found: _Finding, blocks: Sequence[Change]) -> bool:
    """Whether nothing gets through, or the transfer has failed, for a block at the remote peer."""
    if found.outcome not in (Outcome.STUCK, Outcome.FAILED) or facts.known_since_ms > found.moment_ms:
        return False
    if _failed_for_block(facts):
        return bool(found.showing) and not blocks and not any(reason.blocked_here for reason in found.reasons)
    return _blocked_there(facts, found.reasons, found.moment_ms)


def _failed_for_block(facts: Facts) -> bool:
    return facts.transfer is not None and facts.transfer.state == FAILED and _cause(facts.transfer) is Cause.BLOCKED


def _explaining(changes: Sequence[Change], found: _Finding, blocks: Sequence[Change]) -> list[Change]:
    """What explains the reasons, blocks named beside them, and what happened from LOOK_BACK_MS before on."""
    explaining = [*(reason.change for reason in found.reasons if reason.change is not None), *blocks]
    near = [one for one in changes if one.at >= found.moment_ms - LOOK_BACK_MS and one not in explaining]
    return sorted([*dict.fromkeys(explaining), *near[-MAX_CHANGES_SHOWN:]], key=lambda one: one.at)


def _fell_back(deliveries: Sequence[DeliveryHops]) -> Sequence[DeliveryHops]:
    """Those that show something, else the last one."""
    return [one for one in deliveries if len(one.hops) > 1] or deliveries[-1:]


def _trace(showing: Sequence[DeliveryHops], has_trace: Callable[[str], bool]) -> str:
    """The trace that shows it: of the first delivery whose trace is still kept, one with a fallback if there is."""
    traces = [one.trace_id for one in sorted(showing, key=lambda one: len(one.hops) == 1) if one.trace_id]
    return next((trace_id for trace_id in traces if has_trace(trace_id)), traces[0] if traces else "")


def _cause(transfer: Transfer | None) -> Cause:
    return Cause(transfer.cause) if transfer is not None and transfer.cause else Cause.OTHER


def _causes(facts: Facts, deliveries: Sequence[DeliveryHops], reasons: Sequence[Reason]) -> list[CauseView]:
    """Every cause that was seen, the most frequent first, each with its sentence."""
    counts = Counter(hop.cause for delivery in deliveries for hop in delivery.hops if hop.cause is not None)
    unseen = [reason.cause for reason in reasons if reason.cause not in counts]
    if facts.transfer is not None and facts.transfer.cause and _cause(facts.transfer) not in counts:
        # Its own cause first, though no hop had it: it is what people are shown.
        unseen.insert(0, _cause(facts.transfer))
    seen = [*dict.fromkeys(unseen), *(cause for cause, _ in counts.most_common())]
    return [CauseView(cause.value, counts[cause], CAUSE_WORDS[cause].sentence) for cause in seen]


def _reason_view(reason: Reason) -> ReasonView:
    return ReasonView(
        transport=reason.transport,
        cause=reason.cause.value,
        words=reason.words,
        change=reason.change.text if reason.change is not None else None,
        tries=len(reason.hops),
    )
