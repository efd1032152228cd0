"""The byte budget of hedges: what is fetched twice may be at most 5 % of what is fetched. Pure."""

from __future__ import annotations

DUPLICATE_SHARE = 0.05
START_ALLOWANCE_BYTES = 4 * 2**20
"""So that the first silent link of a manager can be hedged before anything has been counted: four chunks."""

EXPECTED_ANSWER_BYTES = 2**20
"""What a hedge may cost until it is known: one swarm-space chunk."""


class HedgeBudget:
    """Counts answer bytes of finished deliveries and what of them was a duplicate."""

    def __init__(self) -> None:
        self._answered_bytes = 0
        self._duplicate_bytes = 0
        self._in_flight = 0

    def allows(self) -> bool:
        """Whether one more hedge stays within the budget, if it and those in flight cost a chunk each."""
        # Those in flight count as if each came twice: else a moment in which all links are quiet would double
        # everything.
        at_worst = self._duplicate_bytes + EXPECTED_ANSWER_BYTES * (self._in_flight + 1)
        return at_worst <= self._answered_bytes * DUPLICATE_SHARE + START_ALLOWANCE_BYTES

    def hedge_started(self) -> None:
        self._in_flight += 1

    def delivery_ended(self, hedges: int, answered_bytes: int, duplicate_bytes: int) -> None:
        """hedges: how many of its hops were hedges. answered_bytes: all that came, duplicates included."""
        self._in_flight -= hedges
        self._answered_bytes += answered_bytes
        self._duplicate_bytes += duplicate_bytes

    @property
    def duplicate_share(self) -> float:
        return self._duplicate_bytes / self._answered_bytes if self._answered_bytes else 0.0
