"""The report as tables, a waterfall and a verdict, for `rich` to print on a terminal or into a pipe."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.supervisor.demo.report import SLOW_FACTOR, Report
from shared.terminal.text import OUTCOME_STYLES, TRANSPORT_STYLES
from shared.terminal.waterfall import draw
from shared.transports import LABELS, TransportName

MAX_SPANS = 28


def report_parts(report: Report, width: int) -> Iterator[RenderableType]:
    """Each part with an empty line before it; parts without rows are left out. width: of the terminal."""
    for part in (_hops(report), _trace(report, width), _throughput(report), _checks(report)):
        if part is not None:
            yield ""
            yield part
    yield ""
    yield _verdict(report)


def _hops(report: Report) -> RenderableType | None:
    if not report.hops:
        return None
    table = Table(title="Hops", title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("file", "transport", "outcome", "cause"):
        table.add_column(name)
    for name in ("hops", "median ms", "bytes"):
        table.add_column(name, justify="right")
    last = ""
    for row in report.hops:
        table.add_row(
            row.file if row.file != last else "",
            Text(row.transport, TRANSPORT_STYLES.get(row.transport, "")),
            Text(row.outcome, OUTCOME_STYLES.get(row.outcome, "")),
            row.cause,
            str(row.count),
            f"{row.median_ms:.1f}",
            f"{row.bytes:,}",
        )
        last = row.file
    return table


def _trace(report: Report, width: int) -> RenderableType | None:
    if report.trace is None:
        return None
    title = Text("One trace with a fallback, over the processes of both nodes", "italic")
    left_out = max(0, len(report.trace.rows) - MAX_SPANS)
    shown = msgspec.structs.replace(
        report.trace, rows=report.trace.rows[:MAX_SPANS], hidden=report.trace.hidden + left_out
    )
    return Group(title, draw(shown, width))


def _throughput(report: Report) -> RenderableType | None:
    if not report.throughput_mb_per_s:
        return None
    table = Table(title="Throughput", title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("transport")
    table.add_column("")
    table.add_column("MB/s", justify="right")
    for name, speed in report.throughput_mb_per_s.items():
        table.add_row(Text(name, TRANSPORT_STYLES.get(name, "")), LABELS[TransportName(name)], f"{speed:.1f}")
    return table


def _checks(report: Report) -> RenderableType | None:
    if not report.checks:
        return None
    lines = [
        Text("  ok      " if check.ok else "  FAILED  ", "green" if check.ok else "bold red").append(
            check.name, "default"
        )
        for check in report.checks
    ]
    return Group(Text("Checks", "italic"), *lines)


def _verdict(report: Report) -> RenderableType:
    if not report.ok:
        return Text(f"FAILED: {report.reason}", "bold red")
    moved_mib = sum(file.bytes for file in report.files) / 2**20
    processes = sum(report.processes.values())
    busy = f", on a busy machine ({report.slowdown:.1f} times the CPU time)" if report.slowdown > SLOW_FACTOR else ""
    return Text(
        f"OK: {len(report.files)} files, {moved_mib:.0f} MiB, {processes} processes, "
        f"{report.seconds:.1f} s of which {report.start_seconds:.1f} s starting{busy}",
        "bold green",
    )
