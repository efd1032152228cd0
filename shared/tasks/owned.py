"""Owned tasks: everything a process runs in the background is in one of these, and ends with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from shared.tasks.ending import end_tasks

log = logging.getLogger(__name__)


class Tasks:
    """A set of tasks with one owner.

    A task that raises is logged by the type of what it raised (texts may hold addresses) and handed to
    `on_crash`; cancellation is silent.
    """

    def __init__(self, on_crash: Callable[[str], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_crash = on_crash

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("task %s ended with %s", task.get_name(), type(error).__name__, exc_info=_debug_info(error))
            if self._on_crash is not None:
                self._on_crash(task.get_name())

    async def close(self) -> None:
        """Cancel everything and wait until it has ended; called from one of them, all but that one."""
        while others := self._tasks - {asyncio.current_task()}:
            await end_tasks(others)


def _debug_info(error: BaseException) -> BaseException | None:
    """Tracebacks are for debug logs only: an exception's text may hold what must not be logged."""
    return error if log.isEnabledFor(logging.DEBUG) else None
