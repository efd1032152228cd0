"""One run: every leg at every size, round after round, so that a machine that changes its pace changes it for all."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from ops.bench.machine import describe
from ops.bench.webtorrent.ends import LegFailed, Taken
from ops.bench.webtorrent.legs import LEGS, Stage, running_stage
from ops.bench.webtorrent.report import MIB, SYSTEM, Report, report
from ops.bench.webtorrent.system import running_system
from services.supervisor.machine.nats_process import find_binary

ALL_LEGS = (*LEGS, SYSTEM)
Found = dict[tuple[str, int], list[Taken]]


async def measure(sizes: list[int], rounds: int, wanted: list[str], nats_binary: str = "") -> Report:
    """sizes: MiB. wanted: names of ALL_LEGS. Raises: CannotStart; LegFailed: the whole system did not come up."""
    binary = find_binary(nats_binary)
    machine = await describe(binary)
    work = Path(tempfile.mkdtemp(prefix="swarmbridge-bench-"))
    found: Found = {(leg, size): [] for size in sizes for leg in ALL_LEGS if leg in wanted}
    problems: list[str] = []
    try:
        async with running_stage(work, binary) as stage:
            for size in sizes:
                stage.prepare(size * MIB)
                for number in range(rounds):
                    await _round(stage, size, number, found, problems)
        # Two idle nodes cost next to nothing, but not nothing: they start when the other legs are measured.
        if SYSTEM in wanted:
            await _system(work, binary, sizes, rounds, found, problems)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return report(machine, found, problems)


async def _round(stage: Stage, size: int, number: int, found: Found, problems: list[str]) -> None:
    legs = [(name, leg) for name, leg in LEGS.items() if (name, size) in found]
    for name, leg in legs if number % 2 == 0 else reversed(legs):
        try:
            _keep(name, size, await leg(stage, size * MIB), found)
        except LegFailed as error:
            problems.append(f"{name}, {size} MiB: {error}")


async def _system(work: Path, binary: Path, sizes: list[int], rounds: int, found: Found, problems: list[str]) -> None:
    async with running_system(work, binary) as system:
        for size in sizes:
            for _ in range(rounds):
                try:
                    _keep(SYSTEM, size, await system.fetch(size * MIB), found)
                except (LegFailed, TimeoutError) as error:
                    problems.append(f"{SYSTEM}, {size} MiB: {error}")


def _keep(name: str, size: int, taken: Taken, found: Found) -> None:
    found[name, size].append(taken)
    text = f"{name}, {size} MiB: {taken.mb_per_s:.0f} MB/s, CPU {taken.cpu_s_per_gb:.1f} s/GB"
    print(text, file=sys.stderr, flush=True)
