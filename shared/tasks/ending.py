"""Ending tasks that may swallow their cancellation, without cutting short those that clean up.

Python 3.11's `asyncio.wait_for` returns, and forgets that it was cancelled, when what it waits for is done in the
same moment; nats-py has places that drop a cancellation. A loop around either goes on indefinitely after one
`cancel()`, and so does whoever waits for its end. So such a task is cancelled again. But a task that is in a
`finally` or an `except` because of its cancellation is doing what it was asked to: a second cancellation would
break off the lease that it releases, or the file that it removes.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterable
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

CANCEL_AGAIN_S = 0.05
CLEANING_S = 30.0
"""A task that cleans up for longer is cancelled again after all. No process has that long to end anyway."""


async def end_tasks(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks (None is skipped) and wait until all have ended; what they raised is dropped.

    Cancellation: the caller's own is passed on, once all have been cancelled.
    """
    pending = {task for task in tasks if task is not None and task is not asyncio.current_task()}
    for task in pending:
        task.cancel()
    cancelled_s = dict.fromkeys(pending, time.monotonic())
    while pending:
        done, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        for task in done:
            _ = task.cancelled() or task.exception()  # read, so that asyncio does not report it
        for task in pending:
            if not _is_cleaning_up(task) or time.monotonic() - cancelled_s[task] > CLEANING_S:
                task.cancel()
                cancelled_s[task] = time.monotonic()


def _is_cleaning_up(task: asyncio.Task[Any]) -> bool:
    """Whether some coroutine of the task is suspended while it handles a CancelledError.

    CPython keeps the exception that a suspended coroutine is handling with the coroutine, and shows it to the
    garbage collector alone (`gen_traverse` in Objects/genobject.c, 3.11 and later).
    """
    awaited: Any = task.get_coro()
    while isinstance(awaited, CoroutineType | GeneratorType | AsyncGeneratorType):
        if any(isinstance(held, asyncio.CancelledError) for held in gc.get_referents(awaited)):
            return True
        match awaited:
            case CoroutineType():
                awaited = awaited.cr_await
            case GeneratorType():
                awaited = awaited.gi_yieldfrom
            case AsyncGeneratorType():
                awaited = awaited.ag_await
    return False
