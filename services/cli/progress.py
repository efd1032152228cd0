"""Progress bars of transfers, on stderr: none when it is no terminal or --json was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from services.cli.output import TRANSPORT_STYLES, printable, remark_console

Step = Callable[[int, int, dict[str, int]], None]
"""step(bytes done, bytes in all, confirmed bytes by transport)."""

NAME_CHARS = 28


@contextmanager
def bar(label: str, name: str, *, quiet: bool) -> Iterator[Step]:
    """One bar for one part of the work. label: what happens now, as `sending`."""
    if quiet or not (console := remark_console()).is_terminal:
        yield _nothing
        return
    # Here: 0.1 s that only a terminal is worth.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    from rich.text import Text

    columns = (
        TextColumn("{task.fields[label]:<9}", style="bold"),
        TextColumn("{task.fields[file]}"),
        BarColumn(bar_width=28),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TextColumn("{task.fields[via]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", label=label, file=Text(_short(printable(name))), via="", total=None)

        def step(done: int, total: int, transports: dict[str, int]) -> None:
            progress.update(task, completed=done, total=total or None, via=_via(transports))

        yield step


def of_transfer(step: Step) -> Callable[[dict[str, Any]], None]:
    """A bar's step from the API's transfer object."""
    return lambda transfer: step(transfer["bytesDone"], transfer["bytesTotal"], transfer["byTransport"])


def _nothing(done: int, total: int, transports: dict[str, int]) -> None:
    pass


def _via(transports: dict[str, int]) -> str:
    whole = sum(transports.values())
    return " ".join(
        f"[{TRANSPORT_STYLES.get(name, 'white')}]{name} {100 * count // whole}%[/]"
        for name, count in transports.items()
        if count
    )


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"
