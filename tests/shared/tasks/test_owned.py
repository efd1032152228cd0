from __future__ import annotations

import asyncio

from shared.tasks.owned import Tasks
from tests.fakes.waiting import until


async def test_closing_cancels_and_waits() -> None:
    tasks = Tasks()
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    tasks.start(work(), name="work")
    await asyncio.sleep(0)
    await tasks.close()
    assert ended
    assert len(tasks) == 0


async def test_a_crash_is_reported_and_a_cancellation_is_not() -> None:
    crashed: list[str] = []
    tasks = Tasks(crashed.append)

    async def crash() -> None:
        raise ValueError("with an address in it")

    tasks.start(asyncio.sleep(60), name="sleeper").cancel()
    tasks.start(crash(), name="crasher")
    await until(lambda: crashed)
    assert crashed == ["crasher"]
    await tasks.close()
