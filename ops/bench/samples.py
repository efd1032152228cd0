"""Samples and what is said of them. Pure: no clock, no I/O.

A *sample* is one delivery as its caller saw it: from the request to a manager until the confirmed receipt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from shared.bus.messages.envelopes import HopReceipt, Receipt
from shared.hops.fold import OUTCOME_CONFIRMED, OUTCOME_SKIPPED
from shared.transports import ORDER


@dataclass(frozen=True, slots=True)
class Sample:
    """One delivery. All times in ms.

    left_after_ms: from the first hop's start to the start of the one that confirmed, 0 where that is the first.
    carried_ms: the confirmed hop's own time. duplicate_bytes: answer bytes of hops that did not confirm.
    on_primary: the first transport carried it. skipped: the first transport was passed over (flag or circuit).
    """

    elapsed_ms: float
    confirmed: bool
    left_after_ms: float = 0.0
    carried_ms: float = 0.0
    answer_bytes: int = 0
    duplicate_bytes: int = 0
    on_primary: bool = False
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """faulty: deliveries that met a fault. healthy: the same without it."""

    healthy: list[Sample]
    faulty: list[Sample]


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of `count` values; all 0 where there is none."""

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Row:
    """One fault under one policy, against the same deliveries without it.

    added: elapsed with the fault minus the median without. healthy, faulty: elapsed. failed: faulty deliveries
    without a confirmed receipt; missed: those that the fault did not hit; skipped: those whose manager knew better
    than to ask the first transport. Neither failed nor missed nor skipped ones count in the spreads.
    """

    fault: str
    policy: str
    stage: str
    healthy: Spread
    faulty: Spread
    added: Spread
    left_after: Spread
    carried: Spread
    rest: Spread
    duplicate_percent: float
    failed: int
    missed: int
    skipped: int


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that `share` (0 < share <= 1) of all are not above. 0 where there is none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Iterable[float]) -> Spread:
    known = list(values)
    return Spread(len(known), *(round(percentile(known, share), 2) for share in (0.5, 0.95, 0.99)))


def sample_of(receipt: Receipt, elapsed_ms: float) -> Sample:
    """What a receipt says of its delivery."""
    primary = ORDER[0].value
    sent = [hop for hop in receipt.hops if hop.outcome != OUTCOME_SKIPPED]
    winner = next((hop for hop in sent if hop.outcome == OUTCOME_CONFIRMED), None)
    if winner is None:
        return Sample(elapsed_ms, confirmed=False)
    return Sample(
        elapsed_ms,
        confirmed=receipt.outcome == OUTCOME_CONFIRMED,
        left_after_ms=float(winner.started_ms - min(hop.started_ms for hop in sent)),
        carried_ms=winner.elapsed_ms,
        answer_bytes=sum(hop.bytes for hop in sent),
        duplicate_bytes=sum(hop.bytes for hop in sent if hop is not winner),
        on_primary=winner.transport == primary,
        skipped=_was_skipped(receipt.hops, primary),
    )


def row(fault: str, policy: str, stage: str, measured: Measured, *, may_stay: bool = False) -> Row:
    """Put the samples of one fault under one policy together.

    may_stay: the fault is no reason to leave the first transport, so that staying is no miss.
    """
    faulty = measured.faulty
    normal = [one.elapsed_ms for one in measured.healthy if one.confirmed]
    usual_ms = median(normal) if normal else 0.0
    hit = [one for one in faulty if one.confirmed and not one.skipped and (may_stay or not one.on_primary)]
    answered = sum(one.answer_bytes for one in faulty)
    return Row(
        fault=fault,
        policy=policy,
        stage=stage,
        healthy=spread(normal),
        faulty=spread(one.elapsed_ms for one in hit),
        added=spread(one.elapsed_ms - usual_ms for one in hit),
        left_after=spread(one.left_after_ms for one in hit),
        carried=spread(one.carried_ms for one in hit),
        rest=spread(max(0.0, one.elapsed_ms - one.left_after_ms - one.carried_ms) for one in hit),
        duplicate_percent=round(100 * sum(one.duplicate_bytes for one in faulty) / answered, 2) if answered else 0.0,
        failed=sum(not one.confirmed for one in faulty),
        missed=sum(one.confirmed and one.on_primary and not may_stay for one in faulty),
        skipped=sum(one.confirmed and not one.on_primary and one.skipped for one in faulty),
    )


def ratio(ours: float, theirs: float) -> float | None:
    """How many times as long theirs takes; None where ours is nothing to divide by."""
    return round(theirs / ours, 1) if ours > 0 else None


def _was_skipped(hops: Sequence[HopReceipt], transport: str) -> bool:
    return any(hop.transport == transport and hop.outcome == OUTCOME_SKIPPED for hop in hops)
