"""Tasks that swallow a cancellation are ended all the same; those that clean up are left to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from shared.tasks.ending import CANCEL_AGAIN_S, end_tasks


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


LONG_S = 4 * CANCEL_AGAIN_S
"""Some looks of `end_tasks` at what a task does."""


async def cleaned(how: Callable[[list[str]], Coroutine[Any, Any, None]]) -> list[str]:
    """What a task has done when it is ended by `end_tasks` in the middle of its work."""
    done: list[str] = []
    task = asyncio.create_task(how(done))
    await asyncio.sleep(0)
    await end_tasks([task])
    assert task.done()
    return done


async def release(done: list[str]) -> None:
    await asyncio.sleep(LONG_S)
    done.append("released")


async def in_finally(done: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await release(done)
        done.append("after it")


async def in_except(done: list[str]) -> None:
    try:
        await in_finally(done)
    except asyncio.CancelledError:
        await asyncio.gather(release(done), release(done))
        raise


async def in_context(done: list[str]) -> None:
    @asynccontextmanager
    async def lease() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await release(done)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(lease())
        stack.push_async_callback(release, done)
        await asyncio.Event().wait()


async def in_group(done: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_finally(done))
        await asyncio.Event().wait()


async def swallows_then_cleans(done: list[str]) -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await in_finally(done)


@pytest.mark.parametrize(
    ("how", "count"), [(in_finally, 2), (in_except, 4), (in_context, 2), (in_group, 2), (swallows_then_cleans, 2)]
)
async def test_a_task_that_cleans_up_is_not_cut_short(
    how: Callable[[list[str]], Coroutine[Any, Any, None]], count: int
) -> None:
    assert len(await cleaned(how)) == count


async def test_one_that_never_finishes_cleaning_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.tasks.ending.CLEANING_S", LONG_S)

    async def hangs(done: list[str]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    assert await cleaned(hangs) == []
