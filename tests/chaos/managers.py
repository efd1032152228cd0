"""Real manager processes of one node, which can be killed, stopped and started by their own process id."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from services.supervisor.machine.node import service_command, service_module
from services.supervisor.machine.processes import Child, Children, Program
from services.supervisor.nursery.start import start_nursery
from shared.clock import monotonic
from shared.settings.config import child_environment
from tests.fakes.waiting import until

START_TIMEOUT_S = 20.0
_STARTED = re.compile(r"started (manager-[0-9a-f]+)")


@dataclass
class Manager:
    """One process. instance: its name on the bus, from the line that it logs when it is connected."""

    child: Child
    instance: str
    connected_at: float

    async def kill(self) -> None:
        """SIGKILL."""
        await self.child.kill()

    def freeze(self) -> None:
        """SIGSTOP: its socket stays open and it says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.child.pid is not None
        os.kill(self.child.pid, number)


class Managers:
    """Starts managers; `close` ends every one that is left, stopped ones too."""

    def __init__(self, directory: Path, node: str, nats_url: str) -> None:
        self._directory = directory
        self._environment = child_environment({"SWARMBRIDGE_NODE_ID": node, "SWARMBRIDGE_BUS_URL": nats_url})
        self._children = Children(start_nursery(["services.manager.app", "uvloop"]))
        self._started = 0

    async def start(self) -> Manager:
        """Start one more and wait until it has connected. It serves a moment later."""
        self._started += 1
        log = self._directory / f"manager-{self._started}.log"
        name = f"chaos/manager-{self._started}"
        command, module = service_command("manager"), service_module("manager")
        child = self._children.start(Program(name, command, self._environment, log, restart=False, module=module))
        await until(lambda: _instance(log) or not child.running, START_TIMEOUT_S)
        instance = _instance(log)
        assert instance, child.log_tail()
        return Manager(child, instance, monotonic())

    async def close(self) -> None:
        for child in self._children:
            if child.pid is not None:
                await child.kill()
        await self._children.close()


def _instance(log: Path) -> str:
    try:
        found = _STARTED.search(log.read_text())
    except OSError:
        return ""
    return found.group(1) if found else ""
