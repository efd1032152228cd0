"""The fake itself: time jumps, in order, and for the clocks of the project too."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared.clock import unix_ms
from tests.fakes.virtual_time import START_S, run_virtual


def test_an_hour_passes_at_once_and_timers_keep_their_order() -> None:
    happened: list[tuple[str, float]] = []

    async def note(name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        happened.append((name, asyncio.get_running_loop().time() - START_S))

    async def main() -> int:
        started_ms = unix_ms()
        await asyncio.gather(note("hour", 3600.0), note("second", 1.0), note("minute", 60.0))
        return unix_ms() - started_ms

    began = time.monotonic()
    assert run_virtual(main) == 3_600_000
    assert time.monotonic() - began < 5.0
    assert [name for name, _ in happened] == ["second", "minute", "hour"]
    assert happened[0][1] == pytest.approx(1.0)
    assert abs(unix_ms() - time.time() * 1000) < 1000, "the real clock is back"


def test_a_deadlock_is_reported() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtual(main)


def test_timeouts_are_virtual_too() -> None:
    async def main() -> None:
        async with asyncio.timeout(100.0):
            await asyncio.sleep(200.0)

    with pytest.raises(TimeoutError):
        run_virtual(main)
