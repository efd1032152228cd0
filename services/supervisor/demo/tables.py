"""The report as tables, a waterfall and a verdict, for `rich` to print on a terminal or into a pipe."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.supervisor.demo.report import SLOW_FACTOR, Report, SpanRow
from shared.transports import LABELS, TransportName

COLOURS = {"webrtc": "cyan", "webtorrent": "magenta", "broadcast": "yellow"}
OUTCOME_STYLES = {"confirmed": "green", "failed": "red", "cancelled": "dim", "skipped": "dim", "accepted": "yellow"}
BAR_CELLS = 40
MAX_SPANS = 28


def report_parts(report: Report) -> Iterator[RenderableType]:
    """Each part with an empty line before it; parts without rows are left out."""
    for part in (_hops(report), _trace(report), _throughput(report), _checks(report)):
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
            Text(row.transport, COLOURS.get(row.transport, "")),
            Text(row.outcome, OUTCOME_STYLES.get(row.outcome, "")),
            row.cause,
            str(row.count),
            f"{row.median_ms:.1f}",
            f"{row.bytes:,}",
        )
        last = row.file
    return table


def _trace(report: Report) -> RenderableType | None:
    if not report.trace:
        return None
    total_ms = max(row.start_ms + row.duration_ms for row in report.trace) or 1.0
    table = Table(
        title="One trace with a fallback, over the processes of both nodes",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("span", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("process", no_wrap=True)
    table.add_column(f"0 … {total_ms:.0f} ms", no_wrap=True)
    table.add_column("ms", justify="right")
    for row in report.trace[:MAX_SPANS]:
        table.add_row(_span_name(row), f"{row.node}/{row.service}", _bar(row, total_ms), f"{row.duration_ms:.1f}")
    left_out = len(report.trace) - MAX_SPANS
    return Group(table, f"… and {left_out} more spans") if left_out > 0 else table


def _span_name(row: SpanRow) -> Text:
    text = Text("  " * row.depth + row.name, OUTCOME_STYLES.get(row.outcome, ""))
    if row.outcome or row.cause:
        text.append(f" ({', '.join(word for word in (row.outcome, row.cause) if word)})", "dim")
    return text


def _bar(row: SpanRow, total_ms: float) -> Text:
    """At least one cell, however short."""
    start = min(BAR_CELLS - 1, int(row.start_ms / total_ms * BAR_CELLS))
    length = max(1, min(BAR_CELLS - start, round(row.duration_ms / total_ms * BAR_CELLS)))
    return Text(" " * start + "█" * length, OUTCOME_STYLES.get(row.outcome, "blue"))


def _throughput(report: Report) -> RenderableType | None:
    if not report.throughput_mb_per_s:
        return None
    table = Table(title="Throughput", title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("transport")
    table.add_column("")
    table.add_column("MB/s", justify="right")
    for name, speed in report.throughput_mb_per_s.items():
        table.add_row(Text(name, COLOURS.get(name, "")), LABELS[TransportName(name)], f"{speed:.1f}")
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
