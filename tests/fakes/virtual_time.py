"""An event loop whose time jumps: hours of timers pass in the time that their callbacks take.

Where nothing is ready, the clock moves on to the next timer instead of waiting for it. What runs is deterministic but
for the hashes of sets, and a storm of a minute costs what it computes. Only for what needs no socket and no thread.

`run_virtual` also makes `unix_ms` and `monotonic` of shared.clock read virtual time in the modules that it is given.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

from shared import clock

T = TypeVar("T")

START_S = 1_000_000.0
"""Of both clocks; far enough from zero that nothing looks unset."""


class _Jump(selectors.SelectSelector):
    """Never waits: moves `clock` on by what it was to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or not timeout:
            if timeout is None and not ready:
                raise RuntimeError("nothing is left that could happen: a deadlock")
            return ready
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def pass_over(self, seconds: float) -> None:
        """Let time pass in which nothing of this loop runs."""
        self._jump.now += seconds


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], modules: Iterable[ModuleType] = ()) -> T:
    """Run `main` to its end in virtual time. modules: those that took `monotonic` from shared.clock by name."""
    loop = VirtualLoop()
    with ExitStack() as stack:
        clocks_of(loop, modules, stack)
        runner = stack.enter_context(asyncio.Runner(loop_factory=lambda: loop))
        return runner.run(main())


def clocks_of(loop: asyncio.AbstractEventLoop, modules: Iterable[ModuleType], stack: ExitStack) -> None:
    """Until `stack` closes, the clocks of shared.clock show the loop's time. modules: as for `run_virtual`."""
    virtual = SimpleNamespace(time_ns=lambda: int(loop.time() * 1e9), monotonic=loop.time)
    stack.enter_context(patch.object(clock, "time", virtual))
    for module in modules:
        stack.enter_context(patch.object(module, "monotonic", loop.time))


def stand_still(seconds: float) -> None:
    """The process of the running virtual loop is stopped for so long: time passes, and it notices nothing."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.pass_over(seconds)
