"""The nursery: loads what our services share, once, and forks them. Started by `client.Nursery` alone.

A fork is safe only of a process with one thread and nothing open. So this one has no event loop, opens nothing,
and says that it is unable where a library has started a thread while it was loaded. A child is as if it had been
executed: its own session, environment, descriptors, signals, log and name in `ps`; it ends with the nursery, and
that with the supervisor (PR_SET_PDEATHSIG). What parent and child share is memory that neither changes: objects
are frozen, so that the child's garbage collector leaves their pages alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.supervisor.nursery.messages import MAX_PACKET_BYTES, decode, encode

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
"""linux/prctl.h"""
MAX_NAME_BYTES = 15
"""TASK_COMM_LEN less its NUL."""
ARG_START_FIELD = 48
"""proc_pid_stat(5), counted from 1: arg_start, and arg_end after it."""

_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Nursery:
    """The process' whole life. `serve` returns in a child alone, with what it is to become."""

    def __init__(self, supervisor: socket.socket) -> None:
        self._supervisor = supervisor
        self._ids: dict[int, int] = {}
        self._woken, waker = os.pipe()
        self._waker = waker
        os.set_blocking(waker, False)

    def serve(self) -> dict[str, Any]:
        """Fork as asked until the supervisor is gone. Returns: in a child, the request that it came from."""
        # A handler that does nothing: without one SIGCHLD is ignored, and nothing is written to the wake-up descriptor.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        while True:
            watched: list[Any] = [self._supervisor, self._woken]
            readable, _, _ = select.select(watched, [], [])
            # The ends first: a supervisor hears of an end before what it asked for since is done.
            if self._woken in readable:
                # One read for many: signals that came together are one, and `_reap` looks for every child.
                os.read(self._woken, 4096)
                self._reap()
            if self._supervisor in readable:
                request = self._request()
                if request is not None:
                    return request

    def _request(self) -> dict[str, Any] | None:
        """Do what one packet says. Returns: in a new child alone, what it is to become."""
        packet, descriptors, _, _ = socket.recv_fds(self._supervisor, MAX_PACKET_BYTES, 1)
        if not packet:
            os._exit(0)  # the supervisor has closed, or ended; the kernel ends what is left of our children
        message = decode(packet)
        if "signal" in message:
            self._signal(message["signal"], message["number"])
            return None
        output = descriptors[0]
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._say({"unable": error.strerror, "id": message["fork"]})
            os.close(output)
            return None
        if pid:
            self._ids[pid] = message["fork"]
            os.close(output)
            # Before its end can be said: `_reap` runs only when this function has returned.
            self._say({"forked": message["fork"], "pid": pid})
            return None
        self._leave(parent, output)
        return message

    def _leave(self, parent: int, output: int) -> None:
        """In a child: close everything that is the nursery's."""
        # Asked for again: a fork does not inherit it.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
        # A Ctrl-C on the terminal is the supervisor's to pass on, in its own order.
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._woken, self._waker):
            os.close(descriptor)
        # A child that kept it could be heard as the nursery, and would hold it open after its end.
        self._supervisor.close()
        for standard in (1, 2):
            os.dup2(output, standard)
        os.close(output)

    def _signal(self, wanted: int, number: int) -> None:
        for pid, known in self._ids.items():
            if known == wanted:
                os.kill(pid, number)  # not reaped yet, hence still our child's pid

    def _reap(self) -> None:
        while self._ids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._say({"ended": self._ids.pop(pid), "code": os.waitstatus_to_exitcode(status)})

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._supervisor.send(encode(message))
        except OSError:
            os._exit(0)


def load(modules: Sequence[str]) -> None:
    """Import them all. One that cannot be imported is left for its service to explain."""
    gc.disable()  # nothing is garbage yet, and looking for it would take a fifth of the time
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    # Collected before it is frozen: what is garbage now would stay for the life of every child.
    gc.collect()
    gc.freeze()


def become(request: dict[str, Any]) -> None:
    """In a child: be the module that was asked for, as `python -m` would run it."""
    from shared.settings.config import replace_environment

    # It was off for the loading; a service runs for months.
    gc.enable()
    replace_environment(request["environment"])
    _be_called(request["module"], request["arguments"])
    sys.argv = [request["module"]]
    # Run and not imported: as `__main__` it does what its own entry point does.
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _be_called(module: str, arguments: Sequence[str]) -> None:
    """Show up in `ps` as what was executed would: people look for, and end, processes by their command line."""
    _prctl(PR_SET_NAME, module.rpartition(".")[2].encode()[:MAX_NAME_BYTES], 0, 0, 0)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[field - 3]) for field in (ARG_START_FIELD, ARG_START_FIELD + 1))
    if not 0 < start < end:
        return  # unknown: a kernel without CONFIG_CHECKPOINT_RESTORE, or a sandbox
    command = b"\0".join(argument.encode() for argument in arguments)[: end - start - 1]
    ctypes.memmove(start, command.ljust(end - start, b"\0"), end - start)


def main(arguments: Sequence[str]) -> None:
    """arguments: the socket's descriptor, the modules to load separated by commas, and padding for longer names."""
    supervisor = socket.socket(fileno=int(arguments[0]))
    supervisor.set_inheritable(False)
    load(arguments[1].split(","))
    # A lock that another thread holds at the fork is held in the child for good.
    if len(os.listdir("/proc/self/task")) != 1:
        supervisor.send(encode({"unable": "a library started a thread"}))
        return
    become(Nursery(supervisor).serve())


if __name__ == "__main__":
    main(sys.argv[1:])
