"""Ctrl-C and SIGTERM at any moment: the work is cancelled once, cleaning up is not.

Three phases: while modules load there is nothing to clean (exit at once); while the work runs its task is
cancelled and cleans up in its `finally`; from then on, further signals are ignored, since cleaning up is
bounded in time and the best thing to wait for.

A SIGHUP that was ignored when we were started stays ignored: that is all that `nohup` does. An ignored SIGINT does
not: a script's shell ignores it for whatever it runs with `&`, and who sends it then means us.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import TypeVar

from shared import exit_codes

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


class Interrupted(Exception):
    """A stop signal ended the work, and everything is cleaned up."""


def stop_signals() -> list[signal.Signals]:
    """Those that end us."""
    return [n for n in STOP_SIGNALS if not (n == signal.SIGHUP and signal.getsignal(n) is signal.SIG_IGN)]


def exit_quietly_when_interrupted() -> None:
    """For the time before `run`: nothing is started, so there is nothing to do but go."""
    for number in stop_signals():
        signal.signal(number, lambda *_: os._exit(exit_codes.INTERRUPTED))


def run(work: Coroutine[object, object, T]) -> T:
    """Run `work` in an event loop until it ends or a stop signal cancels it.

    Raises: Interrupted after a stop signal; whatever `work` raises.
    """
    return asyncio.run(_cancellable(work))


async def _cancellable(work: Coroutine[object, object, T]) -> T:
    loop = asyncio.get_running_loop()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            task.cancel()

    numbers = stop_signals()
    for number in numbers:
        loop.add_signal_handler(number, interrupt)
    task = loop.create_task(work)
    try:
        return await task
    except asyncio.CancelledError:
        raise Interrupted from None
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def unbroken(cleaning: Coroutine[object, object, T]) -> T:
    """Await `cleaning` to its end, whatever cancels us meanwhile; the cancellation is raised afterwards."""
    task = asyncio.get_running_loop().create_task(cleaning)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return task.result()
