"""What was measured, as tables for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table

from ops.bench.bus_stage import Throughput
from ops.bench.plan import EXPLICIT, EXPLICIT_P99_AIM_MS, SILENT, SILENT_P99_AIM_MS
from ops.bench.policies import POLICIES, PRODUCT
from ops.bench.samples import Row, Spread, ratio

STAGES = (
    "nodes: two whole nodes, real transports and links, a caller that does what the chunk service does; "
    "bus: real nats-server and manager processes, workers and caller made up in the benchmark's own process."
)


@dataclass(frozen=True, slots=True)
class Aim:
    """p99_ms: of the added latency, under the product's manager."""

    fault: str
    aim_ms: float
    p99_ms: float
    count: int

    @property
    def met(self) -> bool:
        return self.p99_ms <= self.aim_ms


@dataclass
class Report:
    """problems: what could not be measured, and why."""

    machine: dict[str, str]
    quick: bool
    rows: list[Row] = field(default_factory=list)
    throughput: list[Throughput] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def aims(self) -> list[Aim]:
        wanted = {**dict.fromkeys(EXPLICIT, EXPLICIT_P99_AIM_MS), **dict.fromkeys(SILENT, SILENT_P99_AIM_MS)}
        ours = [row for row in self.rows if row.policy == PRODUCT.name and row.fault in wanted and row.added.count]
        return [Aim(row.fault, wanted[row.fault], row.added.p99, row.added.count) for row in ours]

    def as_json(self) -> str:
        return json.dumps(
            {
                "machine": self.machine,
                "quick": self.quick,
                "seconds": self.seconds,
                "rows": [asdict(row) for row in self.rows],
                "throughput": [asdict(one) for one in self.throughput],
                "aims": [{**asdict(aim), "met": aim.met} for aim in self.aims()],
                "problems": self.problems,
            },
            indent=2,
        )


def show(report: Report, console: Console) -> None:
    """All tables."""
    console.print(_latency_table(report.rows))
    console.print(_parts_table([row for row in report.rows if row.policy == PRODUCT.name]))
    console.print(_throughput_table(report.throughput))
    for aim in report.aims():
        word = "met" if aim.met else "MISSED"
        console.print(f"aim {word}: {aim.fault}: p99 {aim.p99_ms:.1f} ms of {aim.aim_ms:.0f} ms (n={aim.count})")
    for problem in report.problems:
        console.print(f"not measured: {problem}", style="bold")
    console.print(" · ".join(f"{name} {value}" for name, value in report.machine.items()), style="dim", highlight=False)
    kind = "quick run: few samples, p99 is close to the maximum" if report.quick else "full run"
    console.print(f"{report.seconds:.0f} s, {kind}", style="dim", highlight=False)


def _latency_table(rows: Sequence[Row]) -> Table:
    table = Table(
        title="Latency that a fault adds to a delivery, ms (its time minus the median of the same without the fault)",
        caption=f"{STAGES} Below zero: the second transport is faster than the first. x: p50 against ours. "
        "n: deliveries that the fault hit; beside it failed, missed by the fault, or first transport skipped.",
    )
    for name in ("fault", "stage", "who decides"):
        table.add_column(name)
    for name in ("n", "healthy p50", "added p50", "p95", "p99", "x", "duplicates %"):
        table.add_column(name, justify="right")
    for fault in dict.fromkeys(row.fault for row in rows):
        of_fault = sorted((row for row in rows if row.fault == fault), key=_policy_order)
        ours = next((row.added.p50 for row in of_fault if row.policy == PRODUCT.name), 0.0)
        for row in of_fault:
            compared = row.policy != PRODUCT.name and row.added.count and row.added.p50 > 0
            times = ratio(ours, row.added.p50) if compared else None
            table.add_row(
                row.fault,
                row.stage,
                row.policy,
                _count(row),
                f"{row.healthy.p50:.1f}",
                *_figures(row.added),
                "" if times is None else f"{times:g}",
                f"{row.duplicate_percent:.1f}",
            )
        table.add_section()
    return table


def _parts_table(rows: Sequence[Row]) -> Table:
    table = Table(
        title="Where the time goes under swarmbridge's manager, ms",
        caption="to leave: from the first hop's start to the start of the one that confirmed (1 ms steps). "
        "carried: that hop, its worker, the peer, the pull, the check and the verdict. rest: to the manager and back.",
    )
    table.add_column("fault")
    for name in ("total p50", "p99", "to leave p50", "p99", "carried p50", "p99", "rest p50", "p99"):
        table.add_column(name, justify="right")
    for row in rows:
        parts = (row.faulty, row.left_after, row.carried, row.rest)
        table.add_row(row.fault, *(f"{value:.1f}" for part in parts for value in (part.p50, part.p99)))
    return table


def _throughput_table(throughput: Sequence[Throughput]) -> Table:
    table = Table(
        title="Deliveries a second (answers without a body, 64 at a time)",
        caption="Real manager processes and nats-server; the caller and all workers are one process beside them, so "
        "that with few cores everything shares them and more managers gain little. per core: for a CPU second of the "
        "managers alone. CPU in % of one core.",
    )
    columns = (
        "managers",
        "a second",
        "per core",
        "p50 ms",
        "p99 ms",
        "failed",
        "caller+workers CPU",
        "nats-server CPU",
    )
    for name in columns:
        table.add_column(name, justify="right")
    for one in throughput:
        table.add_row(
            str(one.managers),
            f"{one.per_second:.0f}",
            _known(one.per_core),
            f"{one.p50_ms:.1f}",
            f"{one.p99_ms:.1f}",
            str(one.failed),
            f"{one.bench_cpu_percent:.0f}",
            _known(one.nats_cpu_percent),
        )
    return table


def _policy_order(row: Row) -> int:
    return [policy.name for policy in POLICIES].index(row.policy)


def _figures(spread: Spread) -> list[str]:
    if not spread.count:
        return ["-"] * 3
    return [f"{value:.1f}" for value in (spread.p50, spread.p95, spread.p99)]


def _count(row: Row) -> str:
    beside = {"failed": row.failed, "missed": row.missed, "skipped": row.skipped}
    words = [f"{count} {name}" for name, count in beside.items() if count]
    return f"{row.added.count} ({', '.join(words)})" if words else str(row.added.count)


def _known(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
