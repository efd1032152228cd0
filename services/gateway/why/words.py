"""The one sentence at the top of a verdict. Pure: what is so comes from services.gateway.why.verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.gateway.model.history import DIRECTION_WORDS
from services.gateway.transfers.board import DONE, FAILED
from services.gateway.why.phases import Phase
from services.gateway.why.reasons import Reason, tried_again
from services.gateway.words.causes import CAUSE_WORDS
from shared.errors import Cause
from shared.gateway_api.structs import Transfer
from shared.gateway_api.why import Change
from shared.settings.blocklist import Direction

PEER = "peer"
TRANSFER = "transfer"

BLOCKED_THERE = "the block is at the other end, not here: ask who runs it"

ANSWERED_SO = frozenset(
    {Cause.REFUSED, Cause.FORBIDDEN, Cause.BLOCKED, Cause.INTEGRITY_MISMATCH, Cause.INVALID, Cause.TOO_LARGE}
)
"""Causes that a peer's answer brings about: the transport that carried it did its work."""


@dataclass(frozen=True, slots=True)
class Headlines:
    """Sentences about one subject. clock_text: ms of the wall clock as people read it."""

    kind: str
    who: str
    transfer: Transfer | None
    clock_text: Callable[[int], str]

    def direct(self, phase: Phase) -> str:
        others = [one for one in phase.deliveries if one.winner and one.winner.transport != phase.transport]
        causes = dict.fromkeys(hop.cause for one in others for hop in one.unused(phase.transport) if hop.cause)
        seen = f" ({phase.transport}: {', '.join(causes)})" if causes else ""
        hedges = f"; {len(others)} of {len(phase.deliveries)} deliveries were won by a hedge{seen}" if others else ""
        return f"{self._goes_over(phase)}, the first choice{hedges}"

    def fallback(self, phase: Phase, reasons: Sequence[Reason], links: Sequence[str], *, looks_away: bool) -> str:
        parts = [self._goes_over(phase) + _because(reasons)]
        parts += filter(None, (tried_again(reason, phase.since_ms) for reason in reasons))
        if looks_away:
            parts.append(_elsewhere(reasons))
        # Not where the peer is blocked: a link that is there would be read as a way out.
        linked = [reason.transport for reason in reasons if reason.transport in links and not reason.of_peer]
        if not self._over and (back := linked):
            parts.append(f"{_joined(back)} {'is' if len(back) == 1 else 'are'} linked again now")
        return "; ".join(parts)

    def returned(self, phase: Phase, left: Phase, reasons: Sequence[Reason]) -> str:
        span = f"from {self.clock_text(left.since_ms)} to {self.clock_text(left.until_ms)}"
        return (
            f"{self.who} {self._verb} over {phase.transport} again {self._from(phase.since_ms)}; "
            f"{span} it went over {left.transport}{_because(reasons)}"
        )

    def mixed(self, carried: Counter[str], reasons: Sequence[Reason]) -> str:
        shares = ", ".join(f"{transport} {count}" for transport, count in carried.most_common())
        causes = ", ".join(f"{reason.transport}: {reason.cause.value}" for reason in reasons)
        tail = f"; what was left, and why: {causes}" if causes else ""
        return (
            f"{self.who} {self._verb} by turns over several transports ({shares} of the last {carried.total()}){tail}"
        )

    def stuck(self, reasons: Sequence[Reason], since_ms: int, before: Phase | None, links: Sequence[str]) -> str:
        last = f"; it last went over {before.transport} at {self.clock_text(before.until_ms)}" if before else ""
        now = f"; it is linked over {_joined(links)} now" if links else ""
        return f"nothing gets through for {self.who} since {self.clock_text(since_ms)}: {_each(reasons)}{last}{now}"

    def failed(self, cause: Cause, ended_ms: int | None, reached: Phase | None, reasons: Sequence[Reason]) -> str:
        """ended_ms: of its last hop, None where no peer was asked."""
        meaning = CAUSE_WORDS[cause].meaning
        when = f"at {self.clock_text(ended_ms)}" if ended_ms is not None else "before any peer was asked"
        head = f"{self.who} failed {when} ({cause.value}): {meaning[0].lower()}{meaning[1:]}"
        if reached is not None and cause in ANSWERED_SO:
            return f"{head}; the peer was reached over {reached.transport}, so no transport is to blame"
        if reached is not None:
            return f"{head}; the last answer came over {reached.transport}"
        answered = cause in ANSWERED_SO and not any(reason.blocked_here for reason in reasons)
        if answered and reasons and all(reason.cause is cause for reason in reasons):
            names = _joined([reason.transport for reason in reasons])
            return f"{head}; that came over {names}, so no transport is to blame"
        return f"{head}; {_each(reasons)}" if reasons else head

    def idle(self, links: Sequence[str]) -> str:
        """No delivery was made for it."""
        transfer = self.transfer
        if transfer is None:
            linked = f"it is linked over {_joined(links)}" if links else "it has no link to this node now"
            return f"nothing was asked of {self.who} yet; {linked}"
        if transfer.kind == "put":
            return f"{self.who} is kept on this node: a put asks no peer"
        if transfer.state == DONE:
            return f"{self.who} was already here: no peer was asked"
        return f"{self.who} has had no answer from any peer yet, and nothing has failed either"

    def blocked(self, block: Change) -> str:
        """A block of ours that is in force, whatever else is so."""
        whom = "it" if block.peer == self.who else block.peer
        way = DIRECTION_WORDS[block.direction or Direction.ALL]
        return f"this node has blocked {whom} {way} since {self.clock_text(block.at)}"

    @property
    def _over(self) -> bool:
        return self.transfer is not None and self.transfer.state in (DONE, FAILED)

    @property
    def _verb(self) -> str:
        if self.kind == PEER:
            return "is reached"
        return "arrived" if self._over else "arrives"

    def _from(self, at_ms: int) -> str:
        return f"from {self.clock_text(at_ms)} on" if self._over else f"since {self.clock_text(at_ms)}"

    def _goes_over(self, phase: Phase) -> str:
        return f"{self.who} {self._verb} over {phase.transport} {self._from(phase.since_ms)}"


def _because(reasons: Sequence[Reason]) -> str:
    said = [words for _, words in _said(reasons)]
    return " because " + " and ".join(said) if said else ", whose link opened first"


def _each(reasons: Sequence[Reason]) -> str:
    said = [f"{transport}: {words}" if transport else words for transport, words in _said(reasons)]
    return "; ".join(said) or "no transport is left"


def _said(reasons: Sequence[Reason]) -> list[tuple[str, str]]:
    """Transports and words; what holds for the peer on every transport is said once, and without one."""
    codes: dict[tuple[str, str], list[str]] = {}
    for reason in reasons:
        # Under one key where a reason is the peer's: it is not said once more for each transport.
        codes.setdefault(("" if reason.of_peer else reason.transport, reason.clause), []).append(reason.code)
    return [(name, f"{clause} ({', '.join(dict.fromkeys(found))})") for (name, clause), found in codes.items()]


def _elsewhere(reasons: Sequence[Reason]) -> str:
    if any(reason.blocked_there for reason in reasons):
        return BLOCKED_THERE
    return "nothing on this node explains it: look at the other end or the network"


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
