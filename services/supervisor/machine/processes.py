"""Child processes of this machine: started, watched, restarted and ended by their own pid, never by a name.

Nothing survives its supervisor: `close` ends every child, and on Linux the kernel ends them where the
supervisor itself is killed (PR_SET_PDEATHSIG). Elsewhere a SIGKILLed supervisor leaves its children behind.

asyncio's own subprocesses are not used: spawning with them is cancellable half-way, and a child whose pid
nobody noted could not be ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.backoff import delays_s

STOP_GRACE_S = 5.0
"""How long a process may drain after SIGTERM before SIGKILL."""
RESTART_FIRST_S = 0.2
RESTART_CAP_S = 10.0
STEADY_AFTER_S = 30.0
"""A process that ran this long and then died starts its back-off afresh."""
LOG_TAIL_LINES = 12
LOG_TAIL_BYTES = 8192
MAX_LOG_BYTES = 8 * 2**20
"""A log is truncated when its process starts and when it has grown beyond this."""
LOG_CHECK_INTERVAL_S = 30.0
LOG_MODE = 0o600
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """What to run. environment: the whole of it. log: stdout and stderr, truncated at each start.

    restart: start it again, after a back-off, whenever it ends without being told to.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    restart: bool = True


class Child:
    """One supervised program. Made by `Children.start`."""

    def __init__(self, program: Program, on_exit: Callable[[Child], None]) -> None:
        self.program = program
        self.start_count = 0
        self.exit_code: int | None = None
        self._on_exit = on_exit
        self._wanted = False
        self._process: subprocess.Popen[bytes] | None = None
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
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        # Appending, so that truncating a grown log makes it start again at its beginning.
        output = os.open(self.program.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, LOG_MODE)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                list(self.program.arguments),
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_before_exec(),
            )
        finally:
            os.close(output)

    def reap(self) -> None:
        """Notice that it has ended; called on SIGCHLD."""
        if self._process is None or self._process.poll() is None:
            return
        self.exit_code = self._process.returncode
        self._process = None
        self._ended.set()
        if self._wanted:
            log.warning("%s ended with code %s", self.program.name, self.exit_code)
            if self.program.restart:
                self._restarting = asyncio.get_running_loop().create_task(self._restart())
        self._on_exit(self)

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
        try:
            with self.program.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if line.strip()][-LOG_TAIL_LINES:]

    def bound_log(self) -> None:
        """Forget a log that has grown too long."""
        try:
            if self.program.log.stat().st_size > MAX_LOG_BYTES:
                os.truncate(self.program.log, 0)
        except OSError:
            log.debug("no log of %s", self.program.name)

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

    async def _restart(self) -> None:
        if time.monotonic() - self._started_s > STEADY_AFTER_S:
            self._delays = delays_s(RESTART_FIRST_S, RESTART_CAP_S)
        await asyncio.sleep(next(self._delays))
        self._restarting = None
        if self._wanted and not self.running:
            self.spawn()


class Children:
    """Every child of this process. One a process: it owns SIGCHLD.

    Cancellation: `close` may be awaited after a cancellation and ends everything within the grace.
    """

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._watchers: set[asyncio.Future[Child]] = set()
        self._log_task: asyncio.Task[None] | None = None
        self._open = False

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._children))

    def start(self, program: Program) -> Child:
        """Start a program; it is ours from here on. Raises: OSError where it cannot be run."""
        if not self._open:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGCHLD, self._reap)
            self._log_task = loop.create_task(self._bound_logs())
            self._open = True
        child = Child(program, self._child_ended)
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
                child.bound_log()


def _before_exec() -> Callable[[], None] | None:
    """What the child does between fork and exec: ask the kernel to be killed when its parent dies."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: no imports after it
    parent = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
