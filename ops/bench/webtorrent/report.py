"""Medians of each leg, and what the aims say to them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from rich.table import Table

from ops.bench.webtorrent.ends import Taken

WIRE, NATS_HOP, WEBTORRENT, SYSTEM = "our wire, TCP", "NATS hop", "webtorrent, TCP", "whole system"
MIB = 2**20


class Row(msgspec.Struct, rename="camel"):
    """Medians of one leg at one size. cpu_s_per_gb: of all its processes, for 10^9 bytes.

    least, most: MB/s of its slowest and its fastest transfer; far apart, the median says little.
    """

    leg: str
    size_mib: int
    rounds: int
    mb_per_s: float
    cpu_s_per_gb: float
    first_byte_ms: float
    least: float
    most: float


class Aim(msgspec.Struct, rename="camel"):
    """leg at least `least` times `than`, in MB/s; ratio: what it was, of medians."""

    leg: str
    than: str
    least: float
    size_mib: int
    ratio: float

    @property
    def met(self) -> bool:
        return self.ratio >= self.least


AIMS = ((WIRE, WEBTORRENT, 2.0), (WIRE, NATS_HOP, 0.5), (SYSTEM, WEBTORRENT, 1.0))


class Report(msgspec.Struct, rename="camel"):
    """machine: as ops.bench.machine describes it. problems: legs that failed, in words."""

    machine: dict[str, str]
    rows: list[Row]
    aims: list[Aim]
    problems: list[str]


def row(leg: str, size_mib: int, taken: Sequence[Taken]) -> Row:
    """taken: not empty."""
    speeds = [each.mb_per_s for each in taken]
    return Row(
        leg,
        size_mib,
        len(taken),
        round(statistics.median(speeds), 1),
        round(statistics.median(each.cpu_s_per_gb for each in taken), 2),
        round(1000 * statistics.median(each.first_byte_s for each in taken), 1),
        round(min(speeds), 1),
        round(max(speeds), 1),
    )


def aims(rows: Sequence[Row]) -> list[Aim]:
    """One for each aim and size of which both legs were measured."""
    speeds = {(each.leg, each.size_mib): each.mb_per_s for each in rows}
    return [
        Aim(leg, than, least, size, round(speeds[leg, size] / speeds[than, size], 2))
        for size in sorted({each.size_mib for each in rows})
        for leg, than, least in AIMS
        if (leg, size) in speeds and speeds.get((than, size))
    ]


def report(
    machine: dict[str, str], found: Mapping[tuple[str, int], Sequence[Taken]], problems: Sequence[str]
) -> Report:
    rows = [row(leg, size, taken) for (leg, size), taken in found.items() if taken]
    return Report(machine, rows, aims(rows), list(problems))


def tables(result: Report) -> Iterator[Table]:
    table = _table("One transfer between two processes, medians", ("leg",))
    for name in ("MiB", "rounds", "MB/s", "least-most", "CPU s/GB", "first byte ms"):
        table.add_column(name, justify="right")
    for each in result.rows:
        table.add_row(
            each.leg,
            str(each.size_mib),
            str(each.rounds),
            f"{each.mb_per_s:.0f}",
            f"{each.least:.0f}-{each.most:.0f}",
            f"{each.cpu_s_per_gb:.1f}",
            f"{each.first_byte_ms:.0f}",
        )
    yield table
    table = _table("Aims", ("leg", "beside", "MiB", "aim", "was", ""))
    for aim in result.aims:
        verdict = "met" if aim.met else "missed"
        table.add_row(aim.leg, aim.than, str(aim.size_mib), f"{aim.least:.1f} x", f"{aim.ratio:.2f} x", verdict)
    yield table
    table = _table("Measured on", ("", ""))
    for name, value in result.machine.items():
        table.add_row(name, value)
    yield table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in columns:
        table.add_column(name)
    return table
