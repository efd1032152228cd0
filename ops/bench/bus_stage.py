"""The stage of the bus: a real nats-server and real manager processes; workers and caller are in this process.

For what transports would only blur: how many deliveries a manager decides, and faults that a worker tells or shows.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.bench.bus_workers import Behaviour, BusWorker
from ops.bench.caller import Caller, Order
from ops.bench.policies import Policy
from ops.bench.rounds import Rounds
from ops.bench.samples import Measured, Sample
from services.supervisor.machine.interrupts import unbroken
from services.supervisor.machine.nats_process import NatsServer, start_nats
from services.supervisor.machine.node import lay_out, seed_settings
from services.supervisor.machine.processes import Child, Children, Program
from services.supervisor.machine.toml_text import config_toml
from shared.bus.contract import Bus
from shared.bus.messages.conversations import ADMIN
from shared.bus.messages.subjects import Subjects
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.users import make_users, write_private
from shared.content.messages import PeerAnswer, RequestManifest
from shared.ids import member_token, new_instance_id
from shared.settings.config import ENV_CONFIG_FILE, BusSettings, Config, NodeSettings, child_environment
from shared.transports import ORDER

NODE = "bench"
SERVICE = "manager"
PEER = member_token(bytes(range(32)))
START_LIMIT_S = 20.0
POLL_S = 0.05
WARM_DELIVERIES = 24
HEALTHY_BETWEEN = 2
"""Good deliveries before each bad one: the error budget, half of the last 20, stays in credit."""
CONCURRENT = 64
"""Deliveries in flight in the throughput measurement."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """managers: processes. per_second: deliveries confirmed a second. per_core: for one CPU second of the managers.

    *_cpu_percent: of one core, this process (caller and workers) and the server. None: the system does not tell.
    """

    managers: int
    per_second: float
    per_core: float | None
    p50_ms: float
    p99_ms: float
    failed: int
    bench_cpu_percent: float
    nats_cpu_percent: float | None


class BusStage:
    """Made by `running_bus`. `use` says who decides."""

    def __init__(
        self,
        children: Children,
        server: NatsServer,
        template: Program,
        caller: Caller,
        connected: Callable[[str], Awaitable[Bus]],
        subjects: Subjects,
    ) -> None:
        self._children = children
        self._server = server
        self._template = template
        self._managers: list[Child] = []
        self._order = Order(PEER, RequestManifest("00"), _anything)
        self.caller = caller
        self.workers: list[BusWorker] = []
        self.connected = connected
        """One more bus of this process by its name; closed with the stage."""
        self.subjects = subjects

    def cpu_s(self) -> tuple[float, float] | None:
        """CPU seconds used so far by what decides and by the server; None where the system does not tell."""
        managers_s, server_s = _cpu_s(self._managers), _cpu_s([self._server.child])
        return None if managers_s is None or server_s is None else (managers_s, server_s)

    async def use(self, policy: Policy, count: int = 1) -> None:
        """Replace what decides by `count` processes of this policy, and warm them up."""
        await self._children.stop([self._managers])
        self._managers = [
            self._children.start(
                Program(
                    f"{policy.name}-{number}",
                    policy.command(),
                    self._template.environment,
                    self._template.log.with_name(f"{policy.name}-{number}.log"),
                )
            )
            for number in range(count)
        ]
        await self._announced(count)
        for _ in range(count):
            await self.caller.burst(self._order, WARM_DELIVERIES)

    async def fault(self, behaviour: Behaviour, rounds: Rounds, quiet_s: float = 0.0) -> Measured:
        """One delivery after another; each third one meets a first transport that behaves so, after quiet_s."""
        measured = Measured([], [])
        primary = self.workers[0]
        for _ in rounds:
            for _ in range(HEALTHY_BETWEEN):
                measured.healthy.append(await self.caller.deliver(self._order))
            primary.behaviour = behaviour
            await asyncio.sleep(quiet_s)
            try:
                measured.faulty.append(await self.caller.deliver(self._order))
            finally:
                primary.behaviour = Behaviour.ANSWER
        return measured

    async def throughput(self, seconds: float) -> Throughput:
        """CONCURRENT deliveries at a time for so long, answers without a body."""
        for worker in self.workers:
            worker.with_body = False
        try:
            return await self._throughput(seconds)
        finally:
            for worker in self.workers:
                worker.with_body = True

    async def _throughput(self, seconds: float) -> Throughput:
        samples: list[Sample] = []
        end = time.monotonic() + seconds

        async def one_after_another() -> None:
            while time.monotonic() < end:
                samples.append(await self.caller.deliver(self._order))

        managers_before, nats_before = _cpu_s(self._managers), _cpu_s([self._server.child])
        started, own_before = time.monotonic(), time.process_time()
        await asyncio.gather(*(one_after_another() for _ in range(CONCURRENT)))
        took_s, own_s = time.monotonic() - started, time.process_time() - own_before
        managers_s, nats_s = _since(managers_before, self._managers), _since(nats_before, [self._server.child])
        good = sorted(one.elapsed_ms for one in samples if one.confirmed)
        return Throughput(
            managers=len(self._managers),
            per_second=round(len(good) / took_s, 1),
            per_core=round(len(good) / managers_s, 1) if managers_s else None,
            p50_ms=round(good[len(good) // 2], 2) if good else 0.0,
            p99_ms=round(good[len(good) * 99 // 100], 2) if good else 0.0,
            failed=len(samples) - len(good),
            bench_cpu_percent=round(100 * own_s / took_s, 1),
            nats_cpu_percent=round(100 * nats_s / took_s, 1) if nats_s is not None else None,
        )

    async def _announced(self, count: int) -> None:
        """Wait until every manager takes deliveries: until each has taken one."""
        async with asyncio.timeout(START_LIMIT_S):
            self.caller.managers.clear()
            while len(self.caller.managers) < count:
                await self.caller.burst(self._order, count * 2)
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def running_bus(work: Path, binary: Path) -> AsyncIterator[BusStage]:
    """A server, workers and a caller in `work`; no manager yet. Everything is ended at the end."""
    children = Children()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(lambda: unbroken(children.close()))
        users = make_users(work / "seeds", {NODE: (SERVICE,)})
        server = await start_nats(
            children,
            binary=binary,
            run_dir=work / "nats",
            store_dir=work / "nats" / "store",
            log_file=work / "logs" / "nats-server.log",
            accounts=users.accounts,
        )
        seeds = users.of_node(NODE)
        await lay_out(NODE, server.url, seeds)
        seed = seeds[ADMIN].node.read_text().strip()
        subjects = Subjects(NODE)

        async def connected(name: str) -> Bus:
            bus = await nats_bus.connect(server.url, new_instance_id(name), seed=seed, service=ADMIN)
            stack.push_async_callback(bus.close)
            return bus

        caller = Caller(await connected("chunk"), subjects)
        await caller.start()
        stack.push_async_callback(caller.close)
        stage = BusStage(
            children, server, _template(work, server.url, seed_settings(seeds[SERVICE])), caller, connected, subjects
        )
        for transport in ORDER:
            worker = BusWorker(await connected(transport.value), subjects, transport, PEER, with_body=True)
            await worker.start()
            stack.push_async_callback(worker.close)
            stage.workers.append(worker)
        yield stage


def _template(work: Path, url: str, settings: dict[str, str]) -> Program:
    """A manager's environment and log, whatever it runs."""
    config = Config(node=NodeSettings(id=NODE, home=str(work)), bus=BusSettings(url=url))
    config_file = work / "node.toml"
    write_private(config_file, config_toml(config).encode())
    environment = child_environment({ENV_CONFIG_FILE: str(config_file), **settings})
    return Program(SERVICE, [], environment, work / "logs" / f"{SERVICE}.log")


def _anything(answer: PeerAnswer, body: bytes) -> None:
    """Made-up answers hold nothing to check."""


def _cpu_s(children: Sequence[Child]) -> float | None:
    """CPU seconds used so far; None where the system does not tell (no /proc)."""
    ticks = 0
    for child in children:
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        ticks += int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def _since(before: float | None, children: Sequence[Child]) -> float | None:
    now = _cpu_s(children)
    return None if before is None or now is None else now - before
