"""Tasks that swallow a cancellation are ended all the same."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from shared.tasks.ending import end_tasks


async def test_a_task_that_swallows_cancellations_is_ended() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            swallowed += 1

    async def failing() -> None:
        raise ValueError

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(failing()), None]
    await asyncio.sleep(0)
    await end_tasks(tasks)
    assert swallowed == 3
    await end_tasks([])


async def test_it_does_not_wait_for_itself() -> None:
    await end_tasks([asyncio.current_task()])
