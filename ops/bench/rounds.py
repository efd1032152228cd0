"""Rounds of a measurement, bounded in number and in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shared.clock import monotonic


@dataclass(frozen=True, slots=True)
class Rounds:
    """Iterate over it once: at most `count` rounds, none but the first begun after limit_s, `tick` after each."""

    count: int
    limit_s: float
    tick: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[int]:
        give_up = monotonic() + self.limit_s
        for number in range(self.count):
            if number and monotonic() >= give_up:
                return
            yield number
            self.tick()
