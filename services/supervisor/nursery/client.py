"""The supervisor's side of its nursery: processes forked instead of executed, handled like any other.

Imports the standard library alone: the nursery loads its modules while the supervisor loads its own.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.supervisor.nursery.messages import MAX_PACKET_BYTES, decode, encode

MODULE = "services.supervisor.nursery"
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""
CLOSE_TIMEOUT_S = 2.0
ARGUMENT_PADDING = "-" * 256
"""Room for a child's own command line, which the kernel keeps where the nursery's was."""


class NurseryLost(Exception):
    """There is no nursery (any more), or it cannot fork: the caller executes instead."""


class Forked:
    """A process that the nursery forks, with as much of `subprocess.Popen` as its owner uses.

    pid: None until the nursery has forked it. never_forked: it never ran, and never will.
    """

    def __init__(self, nursery: Nursery, number: int) -> None:
        self._nursery = nursery
        self._number = number
        self.pid: int | None = None
        self.returncode: int | None = None
        self.never_forked = False

    def poll(self) -> int | None:
        """Returns: its exit code, negative for a signal; None while it runs, as far as the nursery has said."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """In order with its fork: one that is not born yet gets it at its birth."""
        if self.returncode is None:
            self._nursery.signal(self._number, number)


class Nursery:
    """Started by its constructor; loads `modules` at once, and forks when it has.

    on_change: called from `receive` when a process has ended or will never be.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            # A SEQPACKET is sent whole or not at all, and the default buffer is smaller than an environment may be.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PACKET_BYTES)
        descriptor = theirs.fileno()
        command = [sys.executable, "-P", "-m", MODULE, str(descriptor), ",".join(modules), ARGUMENT_PADDING]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves, no shell
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[descriptor],
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        except OSError:
            ours.close()
            raise
        finally:
            # The child has its own: while ours were open too, the nursery's end would not be seen.
            theirs.close()
        self._socket = ours
        self._numbers = itertools.count(1)
        self._forked: dict[int, Forked] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.lost = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """To be read from (`receive`) whenever it is readable."""
        return self._socket.fileno()

    def fork(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: int) -> Forked:
        """Have a module run as `python -m` would run it. Raises: NurseryLost."""
        number = next(self._numbers)
        message = {"fork": number, "module": module, "arguments": list(arguments), "environment": dict(environment)}
        self._send(message, [output])
        # Behind the send, which may raise; the answer is read by `receive` alone, and so not before this.
        forked = self._forked[number] = Forked(self, number)
        return forked

    def signal(self, number: int, signal_number: int) -> None:
        try:
            self._send({"signal": number, "number": int(signal_number)})
        except NurseryLost:
            pass  # it has gone with the nursery

    def receive(self) -> None:
        """Take in all that the nursery has said."""
        changed = False
        while not self.lost:
            try:
                packet = self._socket.recv(MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
            # All that is there is taken: the caller is woken once for it.
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            changed |= self._lose() if not packet else self._take(decode(packet))
        if changed:
            self.on_change()

    def close(self) -> None:
        """End the nursery, and what is left of its children with it."""
        if not self.lost:
            self._lose()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        if self.lost:
            raise NurseryLost
        try:
            socket.send_fds(self._socket, [encode(message)], list(descriptors))
        except OSError as error:  # closed, or a packet larger than the system takes
            raise NurseryLost from error

    def _take(self, message: dict[str, Any]) -> bool:
        """Returns: whether a process has ended or will never be."""
        if "unable" in message:
            if "id" not in message:
                return self._lose()
            self._forked.pop(message["id"]).never_forked = True
            return True
        if "forked" in message:
            self._forked[message["forked"]].pid = message["pid"]
            return False
        self._forked.pop(message["ended"]).returncode = message["code"]
        return True

    def _lose(self) -> bool:
        """It has ended: the kernel has killed what it had forked, and the rest never was."""
        self.lost = True
        self._socket.close()
        for forked in self._forked.values():
            if forked.pid is None:
                forked.never_forked = True
            else:
                forked.returncode = -signal.SIGKILL
        self._forked.clear()
        return True


def can_fork() -> bool:
    """Whether this system has what the nursery needs; elsewhere programs are executed."""
    return sys.platform == "linux"


def die_with_parent() -> Callable[[], None] | None:
    """What a child does between fork and exec: ask the kernel to be killed when its parent dies."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: no imports after it
    parent = os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
