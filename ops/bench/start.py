"""What starting costs: time until ready, CPU and memory of every process, executed one by one and forked by a nursery.

One node is `up` as a person runs it, supervisor included; two nodes are the demo's pair, without whoever started
them. Both ways are measured in alternation, so that a machine that changes its pace changes it for both. Memory
is PSS, by which a page that n processes share counts as an nth for each. Linux only: it reads /proc.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from services.supervisor.machine.interrupts import unbroken
from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.pair import Pair
from shared.settings.config import child_environment

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("executed", "forked")
READY_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0
KIB_A_MIB = 1024
ROUNDS = 5
QUICK_ROUNDS = 1


class StartFailed(Exception):
    """A node did not start; the text says what it said last."""


class Cost(msgspec.Struct, rename="camel"):
    """Of one start. cpu_s, pss_mib: of all its processes together, when they were ready."""

    ready_s: float
    cpu_s: float
    pss_mib: float
    processes: int


class Row(msgspec.Struct, rename="camel"):
    """Medians of the rounds of one thing in one way."""

    what: str
    way: str
    rounds: int
    cost: Cost


async def measure(rounds: int, nats_binary: str = "") -> list[Row]:
    """Raises: StartFailed; CannotStart."""
    found: dict[tuple[str, str], list[Cost]] = {}
    for _ in range(rounds):
        for way in WAYS:
            found.setdefault(("one node (up)", way), []).append(await _one_node(way, nats_binary))
            found.setdefault(("two nodes (demo)", way), []).append(await _two_nodes(way, nats_binary))
    return [Row(what, way, rounds, _median(costs)) for (what, way), costs in sorted(found.items())]


def tables(rows: list[Row]) -> Iterator[Table]:
    """The rows as a person reads them: executed, then forked, then what is left of it."""
    table = Table(title="Starting", title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("what", "processes are"):
        table.add_column(name)
    for name in ("ready s", "CPU s", "PSS MiB", "processes"):
        table.add_column(name, justify="right")
    for row in rows:
        cost = row.cost
        table.add_row(
            row.what, row.way, f"{cost.ready_s:.1f}", f"{cost.cpu_s:.1f}", f"{cost.pss_mib:.0f}", str(cost.processes)
        )
    yield table


def show(rows: list[Row], *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode(), flush=True)
        return
    console = Console(highlight=False)
    for table in tables(rows):
        console.print(table)


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        ready_s=round(statistics.median(cost.ready_s for cost in costs), 2),
        cpu_s=round(statistics.median(cost.cpu_s for cost in costs), 2),
        pss_mib=round(statistics.median(cost.pss_mib for cost in costs), 1),
        processes=round(statistics.median(cost.processes for cost in costs)),
    )


async def _one_node(way: str, nats_binary: str) -> Cost:
    with tempfile.TemporaryDirectory(prefix="swarmbridge-bench-") as home:
        command = [sys.executable, "-P", "-m", "services.supervisor", "up", "--json", "--home", home]
        command += ["--no-fork"] if way == "executed" else []
        command += ["--nats-binary", nats_binary] if nats_binary else []
        environment = child_environment({"PYTHONPATH": str(ROOT)})
        started_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_LIMIT_S):
                line = await process.stdout.readline()
            if not line:
                raise StartFailed("up ended before it was ready")
            return _cost(time.monotonic() - started_s, tree(process.pid))
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            async with asyncio.timeout(STOP_LIMIT_S):
                await process.wait()


async def _two_nodes(way: str, nats_binary: str) -> Cost:
    work = Path(tempfile.mkdtemp(prefix="swarmbridge-bench-"))
    pair = Pair(work, fork=way == "forked")
    try:
        started_s = time.monotonic()
        await pair.start(find_binary(nats_binary))
        ready_s = time.monotonic() - started_s
        return _cost(ready_s, [pid for pid in tree(os.getpid()) if pid != os.getpid()])
    finally:
        await unbroken(pair.clear())


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in below for found in tree(int(child)))]


def _cost(ready_s: float, pids: list[int]) -> Cost:
    costs = [found for pid in pids if (found := _of_process(pid)) is not None]
    return Cost(ready_s, sum(cpu_s for cpu_s, _ in costs), sum(kib for _, kib in costs) / KIB_A_MIB, len(costs))


def _of_process(pid: int) -> tuple[float, int] | None:
    """Returns: CPU seconds so far and PSS in KiB; None where it has ended meanwhile."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        memory = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    ticks = int(fields[11]) + int(fields[12])  # utime, stime: fields 14 and 15 of proc_pid_stat(5)
    pss = next(int(line.split()[1]) for line in memory if line.startswith("Pss:"))
    return ticks / os.sysconf("SC_CLK_TCK"), pss
