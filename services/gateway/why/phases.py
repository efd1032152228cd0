"""Hops put together: into deliveries, into phases carried by one transport, into rows to read. Pure.

A transfer is thousands of hops; what people want to know is which transport carried it from when to when, and
which hops made it change. A hedge that happens to win is no change of transport: only STRAY_RUN in a row are, or
one whose first hop has failed outright.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median

import msgspec

from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.gateway_api.why import TimelineRow
from shared.hops.fold import OUTCOME_ACCEPTED, OUTCOME_CANCELLED, OUTCOME_CONFIRMED, OUTCOME_FAILED, OUTCOME_SKIPPED
from shared.transports import ORDER

STRAY_RUN = 3
"""So many hedges won in a row on one transport are a change of transport, fewer are chance."""

MAX_ROWS = 40
"""Rows of a timeline; the oldest are left out and counted."""

UNSETTLED_MS = 11_000
"""A delivery whose transports have not all been reported may still wait for one of them: it lasts 10 s at most."""

_WON = (OUTCOME_CONFIRMED, OUTCOME_ACCEPTED)
_NOT_USED = (OUTCOME_FAILED, OUTCOME_SKIPPED)


@dataclass(frozen=True, slots=True)
class DeliveryHops:
    """The hops of one delivery, as its managers numbered them. winner: what carried it, None for nothing."""

    hops: tuple[HopRecord, ...]
    winner: HopRecord | None

    @property
    def at_ms(self) -> int:
        """When its last act began: the winning hop, else the last one."""
        return self.winner.started_ms if self.winner is not None else self.hops[-1].started_ms

    @property
    def ended_ms(self) -> int:
        return max(ended_ms(hop) for hop in self.hops)

    @property
    def trace_id(self) -> str:
        return next((hop.trace_id for hop in self.hops if hop.trace_id), "")

    @property
    def given_up(self) -> bool:
        """Whether its caller did not want it any more: only then is a hop cancelled without a winner or a cause."""
        return self.winner is None and any(hop.outcome == OUTCOME_CANCELLED and hop.cause is None for hop in self.hops)

    def unused(self, transport: str) -> list[HopRecord]:
        """Its hops on a transport that did not carry it, for a reason: failed, skipped, or silent beside a hedge."""
        return [hop for hop in self.hops if hop.transport == transport and _shows_cause(hop)]

    def is_settled(self, now_ms: int) -> bool:
        """Whether it has ended. The stream holds hops, not ends: one without a winner may still be going on."""
        if self.winner is not None or any(hop.outcome == OUTCOME_CANCELLED for hop in self.hops):
            return True
        known = {hop.transport for hop in self.hops}
        return all(transport.value in known for transport in ORDER) or now_ms - self.ended_ms > UNSETTLED_MS


@dataclass(slots=True)
class Phase:
    """Deliveries in a row that one transport carried, oldest first; never empty once made."""

    transport: str
    deliveries: list[DeliveryHops] = field(default_factory=list)

    @property
    def since_ms(self) -> int:
        return self.deliveries[0].at_ms

    @property
    def until_ms(self) -> int:
        return max(delivery.ended_ms for delivery in self.deliveries)


def deliveries_of(records: Iterable[HopRecord]) -> list[DeliveryHops]:
    """Records in any order. Returns: deliveries by `at_ms`; a record that came twice counts once."""
    hops: dict[str, dict[tuple[str, int], HopRecord]] = {}
    for record in records:
        # By manager too: one that takes a delivery over counts its hops from 1 again.
        hops.setdefault(record.delivery, {})[(record.manager, record.number)] = record
    made = []
    for of_one in hops.values():
        ordered = _in_order(of_one.values())
        # The first: after a takeover two managers may both have recorded a good end.
        winner = next((hop for hop in ordered if hop.outcome in _WON), None)
        made.append(DeliveryHops(tuple(_with_what_was_left(hop, winner) for hop in ordered), winner))
    return sorted(made, key=lambda delivery: delivery.at_ms)


def phases_of(deliveries: Sequence[DeliveryHops]) -> list[Phase]:
    """What carried the deliveries that were carried, oldest first; a stray hedge counts to the phase around it."""
    phases: list[Phase] = []
    strays: list[DeliveryHops] = []
    for delivery in deliveries:
        if delivery.winner is None:
            continue
        transport = delivery.winner.transport
        # Back on the phase's own transport: what was won beside it meanwhile was chance.
        if phases and transport == phases[-1].transport:
            strays = []
        elif phases and _won_by_chance(delivery, phases[-1].transport):
            same = strays and strays[-1].winner is not None and strays[-1].winner.transport == transport
            # Strays of two transports are two chances, and no run.
            strays = [*strays, delivery] if same else [delivery]
            if len(strays) >= STRAY_RUN:
                # They were counted to the phase before while they looked like chance.
                del phases[-1].deliveries[-(STRAY_RUN - 1) :]
                phases.append(Phase(transport, strays))
                strays = []
                continue
        else:
            phases.append(Phase(transport))
            strays = []
        # A stray counts to the phase around it until there are STRAY_RUN of them.
        phases[-1].deliveries.append(delivery)
    return phases


def timeline(deliveries: Sequence[DeliveryHops], max_rows: int = MAX_ROWS) -> tuple[list[TimelineRow], int]:
    """What was tried, oldest first: deliveries in a row that went alike share their rows.

    Returns: the last rows, at most max_rows (but a delivery's rows stay together), and how many hops were left out.
    """
    groups = [list(group) for _, group in groupby(deliveries, key=_course)]
    rows: list[list[TimelineRow]] = []
    shown = 0
    while groups and (not rows or shown + len(groups[-1][0].hops) <= max_rows):
        # From the newest: what is left out is the oldest.
        group = groups.pop()
        rows.append([_row([delivery.hops[index] for delivery in group]) for index in range(len(group[0].hops))])
        shown += len(group[0].hops)
    left_out = sum(len(delivery.hops) for group in groups for delivery in group)
    return [row for of_group in reversed(rows) for row in of_group], left_out


def ended_ms(hop: HopRecord) -> int:
    return hop.started_ms + round(hop.elapsed_ms)


def _in_order(hops: Collection[HopRecord]) -> list[HopRecord]:
    """By number, a manager after the other: one that takes a delivery over counts from 1 again.

    Not by their starts: those are rounded to milliseconds, and a skip takes none.
    """
    began: dict[str, int] = {}
    for hop in hops:
        began[hop.manager] = min(hop.started_ms, began.get(hop.manager, hop.started_ms))
    return sorted(hops, key=lambda hop: (began[hop.manager], hop.manager, hop.number))


def _with_what_was_left(hop: HopRecord, winner: HopRecord | None) -> HopRecord:
    """A hop that lost to the hedge which its silence had started: why is in the hedge's record alone, where the hop
    had been acked."""
    lost = hop.outcome == OUTCOME_CANCELLED and hop.cause is None
    if not lost or winner is None or not winner.hedged or winner.fallback_from != hop.transport:
        return hop
    return msgspec.structs.replace(hop, cause=winner.fallback_cause)


def _won_by_chance(delivery: DeliveryHops, transport: str) -> bool:
    """Whether a hedge won, and the hop on this transport might have done as well."""
    failed = any(hop.transport == transport and hop.outcome == OUTCOME_FAILED for hop in delivery.hops)
    return delivery.winner is not None and delivery.winner.hedged and not failed


def _course(delivery: DeliveryHops) -> tuple[tuple[str, str, Cause | None], ...]:
    return tuple((hop.transport, hop.outcome, hop.cause) for hop in delivery.hops)


def _shows_cause(hop: HopRecord) -> bool:
    return hop.cause is not None and (hop.outcome in _NOT_USED or hop.outcome == OUTCOME_CANCELLED)


def _row(hops: Sequence[HopRecord]) -> TimelineRow:
    first = hops[0]
    times = [hop.elapsed_ms for hop in hops]
    return TimelineRow(
        at=first.started_ms,
        transport=first.transport,
        outcome=first.outcome,
        cause=first.cause.value if first.cause is not None else None,
        count=len(hops),
        ms=round(median(times), 3),
        max_ms=max(times),
        fallback_from=first.fallback_from or None,
        hedged=any(hop.hedged for hop in hops),
        trace_id=first.trace_id,
    )
