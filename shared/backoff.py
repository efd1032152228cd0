"""Exponential back-off with full jitter, as plain numbers: the caller sleeps."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays_s(first_s: float, cap_s: float, factor: float = 2.0) -> Iterator[float]:
    """Endless delays: each uniformly from half of, to the whole of, a step that doubles up to `cap_s`."""
    step_s = first_s
    while True:
        yield step_s * (0.5 + random.random() / 2)
        step_s = min(cap_s, step_s * factor)
