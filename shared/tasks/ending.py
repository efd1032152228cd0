"""Ending tasks that may swallow their cancellation.

Python 3.11's `asyncio.wait_for` returns, and forgets that it was cancelled, when what it waits for is done in the
same moment; nats-py's flush drops a cancellation on purpose. A loop around either goes on for ever after one
`cancel()`, and so does whoever waits for its end. So: cancel again until it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_AGAIN_S = 0.05


async def end_tasks(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks (None is skipped) and wait until all have ended; what they raised is dropped.

    Cancellation: the caller's own is passed on, once all have been told.
    """
    pending = {task for task in tasks if task is not None and task is not asyncio.current_task()}
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        for task in done:
            _ = task.cancelled() or task.exception()  # read, so that asyncio does not report it
