"""Child processes of this machine: started, watched, restarted and ended by their own pid, never by a name.

Nothing survives its supervisor: `close` ends every child, and on Linux the kernel ends them where the
supervisor itself is killed (PR_SET_PDEATHSIG). Elsewhere a SIGKILLed supervisor leaves its children behind.

Our own services are forked by a nursery that has loaded what they share (`services.supervisor.nursery`), where
there is one; anything else is executed. Who handles a child need not know which it was.

asyncio's own subprocesses are not used: spawning with them is cancellable half-way, and a child whose pid
nobody noted could not be ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.supervisor.machine.process_log import ProcessLog
from services.supervisor.nursery.client import Forked, Nursery, NurseryLost, die_with_parent
from shared.backoff import delays_s

STOP_GRACE_S = 5.0
"""How long a process may drain after SIGTERM before SIGKILL."""
RESTART_FIRST_S = 0.2
RESTART_CAP_S = 10.0
STEADY_AFTER_S = 30.0
"""A process that ran this long and then died starts its back-off afresh."""
LOG_CHECK_INTERVAL_S = 30.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """What to run. environment: the whole of it. log: stdout and stderr (`ProcessLog`).

    restart: start it again, after a back-off, whenever it ends without being asked to.
    module: of ours, that `arguments` run; it may be forked instead. "" for any other program.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    restart: bool = True
    module: str = ""


class Running(Protocol):
    """What is needed of a process, executed or forked: as much of `subprocess.Popen`."""

    @property
    def pid(self) -> int | None: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def send_signal(self, number: int, /) -> None: ...


Launch = Callable[[Program, int], Running]
"""Start a program with its output going to a descriptor. Raises: OSError where it cannot be run at all."""


class Child:
    """One supervised program. Made by `Children.start`."""

    def __init__(self, program: Program, launch: Launch, on_exit: Callable[[Child], None]) -> None:
        self.program = program
        self.log = ProcessLog(program.log)
        self._launch = launch
        self.start_count = 0
        self.exit_code: int | None = None
        self._on_exit = on_exit
        self._wanted = False
        self._process: Running | None = None
        self._ended = asyncio.Event()
        self._restarting: asyncio.Task[None] | None = None
        self._delays: Iterator[float] = delays_s(RESTART_FIRST_S, RESTART_CAP_S)
        self._started_s = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None

    def spawn(self) -> None:
        """Start it now. Raises: OSError where the program cannot be run at all."""
        assert self._process is None
        self._wanted = True
        self._ended.clear()
        self.exit_code = None
        self.start_count += 1
        self._started_s = time.monotonic()
        self._launch_with_log(self._launch)

    def _launch_with_log(self, launch: Launch) -> None:
        if self.start_count == 1:
            output = self.log.begin_run()
        else:
            output = self.log.go_on(f"started again (start {self.start_count} of this run)")
        try:
            self._process = launch(self.program, output)
        finally:
            os.close(output)

    def reap(self) -> None:
        """Notice that it has ended; called on SIGCHLD."""
        if self._process is None:
            return
        never_forked = isinstance(self._process, Forked) and self._process.never_forked
        if never_forked and self._wanted:
            self._launch_with_log(execute)
            return
        if never_forked:
            self.exit_code = -signal.SIGKILL  # ended before it began
        elif self._process.poll() is None:
            return
        else:
            self.exit_code = self._process.returncode
        self._process = None
        self._ended.set()
        if self._wanted:
            self._answer_to_crash()
        self._on_exit(self)

    def _answer_to_crash(self) -> None:
        if not self.program.restart:
            log.warning("%s ended with code %s", self.program.name, self.exit_code)
            return
        if time.monotonic() - self._started_s > STEADY_AFTER_S:
            self._delays = delays_s(RESTART_FIRST_S, RESTART_CAP_S)
        delay_s = next(self._delays)
        log.warning("%s ended with code %s; restarting it in %.1f s", self.program.name, self.exit_code, delay_s)
        self._restarting = asyncio.get_running_loop().create_task(self._restart(delay_s))

    async def kill(self, *, restart: bool = False) -> None:
        """SIGKILL, as a crash would end it. restart False: it stays down until `start`."""
        self._wanted = restart
        self._cancel_restart()
        self._signal(signal.SIGKILL)
        await self._ended_or_not_running()

    def start(self) -> None:
        """Start it again after a `kill` or `stop`; nothing happens where it runs."""
        self._cancel_restart()
        if not self.running:
            self.spawn()

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """SIGTERM, then SIGKILL when the grace is over. Returns when it is gone."""
        self._wanted = False
        self._cancel_restart()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self._ended_or_not_running()
        except TimeoutError:
            log.warning("%s did not end within %.0f s: killed", self.program.name, grace_s)
            self._signal(signal.SIGKILL)
            await self._ended_or_not_running()

    async def ended(self) -> int:
        """Wait until it ends. Returns: its exit code, negative for a signal."""
        await self._ended_or_not_running()
        assert self.exit_code is not None
        return self.exit_code

    def log_tail(self) -> list[str]:
        """The last lines that it wrote, for a person who wants to know why it failed."""
        return self.log.tail()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # polls first: never signals a pid that may be somebody else's

    def _cancel_restart(self) -> None:
        if self._restarting is not None:
            self._restarting.cancel()
            self._restarting = None

    async def _ended_or_not_running(self) -> None:
        self.reap_if_ended()
        if self._process is not None:
            await self._ended.wait()

    def reap_if_ended(self) -> None:
        """As `reap`; the event loop may not have seen the SIGCHLD yet."""
        if self._process is not None and self._process.poll() is not None:
            self.reap()

    async def _restart(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self._restarting = None
        if self._wanted and not self.running:
            self.spawn()


class Children:
    """Every child of this process. One a process: it owns SIGCHLD.

    nursery: where our own services are forked; ours from here on. None: everything is executed.

    Cancellation: `close` may be awaited after a cancellation and ends everything within the grace.
    """

    def __init__(self, nursery: Nursery | None = None) -> None:
        self._nursery = nursery
        self._nursery_fd: int | None = None
        self._children: list[Child] = []
        self._watchers: set[asyncio.Future[Child]] = set()
        self._log_task: asyncio.Task[None] | None = None
        self._open = False

    def use(self, nursery: Nursery | None) -> None:
        """Fork our own services there, from the next one on; for a `Children` that has started none."""
        assert self._nursery is None
        assert not self._open
        self._nursery = nursery

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._children))

    def start(self, program: Program) -> Child:
        """Start a program; it is ours from here on. Raises: OSError where it cannot be run."""
        if not self._open:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGCHLD, self._reap)
            self._log_task = loop.create_task(self._bound_logs())
            self._open = True
            if self._nursery is not None and not self._nursery.lost:
                self._nursery.on_change = self._nursery_changed
                self._nursery_fd = self._nursery.fileno()
                loop.add_reader(self._nursery_fd, self._nursery.receive)
        child = Child(program, self._launch, self._child_ended)
        child.spawn()
        self._children.append(child)
        return child

    async def first_exit(self, of: Iterable[Child]) -> Child:
        """Wait until one of these children ends. Returns: the first that has."""
        wanted = set(of)
        for child in wanted:
            if not child.running and child.exit_code is not None:
                return child
        while True:
            future: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
            self._watchers.add(future)
            try:
                child = await future
            finally:
                self._watchers.discard(future)
            if child in wanted:
                return child

    async def stop(self, groups: Sequence[Sequence[Child]]) -> None:
        """Stop group after group, the members of one group together."""
        for group in groups:
            await asyncio.gather(*(child.stop() for child in group))
            self._children = [child for child in self._children if child not in group]

    async def close(self) -> None:
        """Stop whatever is left, the last started first, and give SIGCHLD back."""
        while self._children:
            await self.stop([[child] for child in reversed(self._children)])
        if self._log_task is not None:
            self._log_task.cancel()
        if self._open:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
            self._open = False
        if self._nursery is not None:
            self._close_nursery()
            await asyncio.to_thread(self._nursery.close)

    def _launch(self, program: Program, output: int) -> Running:
        if program.module and self._nursery is not None:
            try:
                return self._nursery.fork(program.module, program.arguments, program.environment, output)
            except NurseryLost:
                log.debug("%s is executed: there is no nursery", program.name)
        return execute(program, output)

    def _nursery_changed(self) -> None:
        assert self._nursery is not None
        if self._nursery.lost:
            self._close_nursery()
        self._reap()

    def _close_nursery(self) -> None:
        """At once: a closed descriptor's number may soon be somebody else's."""
        if self._nursery_fd is not None:
            asyncio.get_running_loop().remove_reader(self._nursery_fd)
            self._nursery_fd = None

    def _reap(self) -> None:
        for child in tuple(self._children):
            child.reap()

    def _child_ended(self, child: Child) -> None:
        for future in self._watchers:
            if not future.done():
                future.set_result(child)

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_INTERVAL_S)
            for child in tuple(self._children):
                child.log.bound()


def execute(program: Program, output: int) -> Running:
    """Fork and exec. Raises: OSError where the program cannot be run at all."""
    return subprocess.Popen(  # noqa: S603 - our own programs, no shell
        list(program.arguments),
        env=dict(program.environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
