"""`make bench-fallback`: how much latency a fault adds, and to whom the product is compared.

Everything runs on this machine's loopback, in one temporary directory and in child processes of ours; both are
gone at the end, whatever ended it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.bench.bus_stage import BusStage, running_bus
from ops.bench.machine import describe
from ops.bench.nodes import BenchFailed, Nodes, running_nodes
from ops.bench.plan import BUS_FAULTS, MANAGER_COUNTS, NODE_FAULTS, Plan
from ops.bench.policies import POLICIES, PRODUCT, Policy
from ops.bench.report import Report
from ops.bench.rounds import Rounds
from ops.bench.samples import row
from ops.bench.view import View
from services.supervisor.machine.nats_process import find_binary
from shared.clock import monotonic

TEMPORARY_PREFIX = "swarmbridge-bench-"
BUS_STAGE_SHARE = 0.3
"""Of the time for everything; the throughput measurements included."""


@dataclass
class Bench:
    """One run. report: complete when `run` returned. _give_up_at: when the policy at hand has had its share of time."""

    plan: Plan
    view: View
    report: Report
    _give_up_at: float = 0.0

    async def run(self, work: Path, binary: Path) -> None:
        started = monotonic()
        self.view.say("starting a nats-server, managers and made-up workers")
        async with running_bus(work / "bus", binary) as stage:
            await self._throughput(stage)
            for policy, give_up_at in _shares(started + self.plan.limit_s * BUS_STAGE_SHARE):
                self._give_up_at = give_up_at
                await self._bus_faults(stage, policy)
        self.view.say("starting two whole nodes")
        async with running_nodes(work / "nodes", binary) as nodes:
            for policy, give_up_at in _shares(started + self.plan.limit_s):
                self._give_up_at = give_up_at
                await self._node_faults(nodes, policy)
        self.report.seconds = round(monotonic() - started, 1)

    async def _throughput(self, stage: BusStage) -> None:
        for count in MANAGER_COUNTS:
            with self.view.measuring(f"deliveries a second, {count} managers", 1) as tick:
                await stage.use(PRODUCT, count)
                self.report.throughput.append(await stage.throughput(self.plan.throughput_s))
                tick()

    async def _bus_faults(self, stage: BusStage, policy: Policy) -> None:
        await stage.use(policy)
        for name, fault in BUS_FAULTS.items():
            with self._measuring(name, policy) as rounds:
                measured = await stage.fault(fault.behaviour, rounds, fault.quiet_s)
            self.report.rows.append(row(name, policy.name, "bus", measured, may_stay=fault.may_stay))

    async def _node_faults(self, nodes: Nodes, policy: Policy) -> None:
        await nodes.use(policy)
        for name, fault in NODE_FAULTS.items():
            try:
                with self._measuring(name, policy) as rounds:
                    measured = await fault(nodes, rounds)
            except BenchFailed as error:
                self.report.problems.append(f"{name}, {policy.name}: {error}")
                await nodes.all_linked()
                continue
            self.report.rows.append(row(name, policy.name, "nodes", measured))

    @contextmanager
    def _measuring(self, name: str, policy: Policy) -> Iterator[Rounds]:
        count = self.plan.rounds(name, policy)
        limit_s = min(self.plan.fault_limit_s, max(0.0, self._give_up_at - monotonic()))
        with self.view.measuring(f"{name}, {policy.name}", count) as tick:
            yield Rounds(count, limit_s, tick)


def _shares(give_up_at: float) -> Iterator[tuple[Policy, float]]:
    """Each policy, as its turn comes, and when it must be done: what time is left is shared among those left."""
    for number, policy in enumerate(POLICIES):
        now = monotonic()
        yield policy, now + (give_up_at - now) / (len(POLICIES) - number)


async def bench(plan: Plan, view: View, *, quick: bool, nats_binary: str = "") -> Report:
    """Measure everything. Raises: CannotStart; BenchFailed; CancelledError after everything is cleaned up."""
    binary = find_binary(nats_binary)
    work = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
    run = Bench(plan, view, Report(await describe(binary), quick))
    try:
        await run.run(work, binary)
    finally:
        view.close()
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    return run.report
