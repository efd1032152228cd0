"""How the demo is shown: live bars on a terminal, plain lines elsewhere, nothing until the end for `--json`."""

from __future__ import annotations

from typing import Protocol

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from services.supervisor.demo.report import FileResult, Report
from services.supervisor.demo.tables import report_parts
from shared.gateway_api.structs import Transfer
from shared.terminal.text import TRANSPORT_STYLES

PLAIN_WIDTH = 110
QUARTERS = 4
MIB = 2**20


class View(Protocol):
    """What the story tells to. Labels name a file's part in the story."""

    def say(self, line: str) -> None: ...

    def fault(self, line: str) -> None: ...

    def moving(self, label: str) -> None: ...

    def progress(self, label: str, now: Transfer, carrier: str) -> None: ...

    def moved(self, result: FileResult) -> None: ...

    def report(self, report: Report) -> None:
        """The end of it; after this, nothing more is shown."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


class JsonView:
    """One JSON document on stdout."""

    def say(self, line: str) -> None:
        pass

    def fault(self, line: str) -> None:
        pass

    def moving(self, label: str) -> None:
        pass

    def progress(self, label: str, now: Transfer, carrier: str) -> None:
        pass

    def moved(self, result: FileResult) -> None:
        pass

    def report(self, report: Report) -> None:
        print(msgspec.json.format(msgspec.json.encode(report)).decode(), flush=True)

    def close(self) -> None:
        pass


class PlainView:
    """Lines, for logs and pipes: a line a quarter of each file."""

    def __init__(self) -> None:
        self._console = Console(width=PLAIN_WIDTH, highlight=False, color_system=None)
        self._quarter = 0

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def fault(self, line: str) -> None:
        self.say(f"  ! {line}")

    def moving(self, label: str) -> None:
        self._quarter = 0

    def progress(self, label: str, now: Transfer, carrier: str) -> None:
        quarter = now.chunks_done * QUARTERS // now.chunks_total if now.chunks_total else 0
        if quarter > self._quarter:
            self._quarter = quarter
            self.say(f"  {label}: {now.chunks_done}/{now.chunks_total} chunks, on {carrier or 'no transport yet'}")

    def moved(self, result: FileResult) -> None:
        self.say(moved_line(result))

    def report(self, report: Report) -> None:
        for part in report_parts(report, self._console.width):
            self._console.print(part)

    def close(self) -> None:
        pass


class LiveView:
    """A bar a file, coloured by the transport that carries it now; faults appear above the bars."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=32),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[carrier]}"),
            console=self._console,
        )

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False)

    def fault(self, line: str) -> None:
        self._progress.console.print(f"⚡ {line}", style="bold red", markup=False)

    def moving(self, label: str) -> None:
        self._progress.start()
        self._bars[label] = self._progress.add_task(label, total=None, carrier="")

    def progress(self, label: str, now: Transfer, carrier: str) -> None:
        colour = TRANSPORT_STYLES.get(carrier, "white")
        self._progress.update(
            self._bars[label],
            total=now.bytes_total or None,
            completed=now.bytes_done,
            carrier=f"[{colour}]{carrier}[/]" if carrier else "[dim]finding a way[/]",
        )

    def moved(self, result: FileResult) -> None:
        ways = ", ".join(f"[{TRANSPORT_STYLES.get(name, 'white')}]{text}[/]" for name, text in carried(result).items())
        verdict = "[green]SHA-256 ok[/]" if result.sha256_ok else "[bold red]SHA-256 differs[/]"
        self._progress.update(self._bars[result.label], completed=result.bytes, carrier=f"{ways}  {verdict}")
        self._progress.stop_task(self._bars[result.label])

    def report(self, report: Report) -> None:
        self.close()
        for part in report_parts(report, self._console.width):
            self._console.print(part)

    def close(self) -> None:
        self._progress.stop()


def choose_view(*, json: bool) -> View:
    """The view for this terminal, or for none."""
    if json:
        return JsonView()
    return LiveView() if Console().is_terminal else PlainView()


def carried(result: FileResult) -> dict[str, str]:
    """What each transport carried of a file, in words."""
    return {name: f"{name} {count / MIB:.1f} MiB" for name, count in result.by_transport.items()}


def moved_line(result: FileResult) -> str:
    """A file's way in one line of plain text."""
    ways = ", ".join(carried(result).values()) or "nothing"
    verdict = "SHA-256 ok" if result.sha256_ok else "SHA-256 differs"
    return f"  {result.label}: {result.bytes / MIB:.1f} MiB in {result.seconds:.1f} s by {ways}; {verdict}"
