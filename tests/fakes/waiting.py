"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE_S = 5.0
POLL_S = 0.005


async def until(condition: Callable[[], object], timeout_s: float = DEADLINE_S) -> None:
    """Return when `condition()` is true. Raises: TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(POLL_S)
