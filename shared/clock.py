"""Time as an argument: the one place where glue reads it.

Protocol machines and the manager's core take `now` in seconds of a monotonic clock. Envelopes carry wall
clock milliseconds, because their reader is another process.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds, monotonic; the zero is arbitrary."""

monotonic: Clock = time.monotonic


def unix_ms() -> int:
    """Wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000
