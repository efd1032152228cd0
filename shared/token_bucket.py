"""How often something may happen: a token bucket with time as an argument."""

from __future__ import annotations

import math


class TokenBucket:
    """`rate` tokens a second, at most `burst` kept; full at first. One bucket costs four numbers."""

    __slots__ = ("_at_s", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float = -math.inf) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at_s = burst, now

    def take(self, now: float) -> bool:
        """Whether it may happen now; takes a token if so."""
        self._fill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def wait_s(self, now: float) -> float:
        """How long until a token is there; 0 = now. Takes nothing."""
        self._fill(now)
        return max(0.0, (1.0 - self._tokens) / self._rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at_s) * self._rate)
        self._at_s = now
