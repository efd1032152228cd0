"""Progress of transfers, on stderr: a bar on a terminal, and in any case a line for what a transfer waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self

from services.cli.output import remark_console
from shared.gateway_api.structs import Transfer
from shared.terminal.text import TRANSPORT_STYLES, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

NAME_CHARS = 28
PATIENCE_S = 3.0
"""A bus that hangs is noticed by then, and a second more is no news."""


class Step(Protocol):
    """Shows how far one part of the work is."""

    def __call__(self, done: int, total: int, transports: dict[str, int]) -> None:
        """done, total: bytes; 0 in all where nobody knows. transports: confirmed bytes by transport."""

    def named(self, name: str) -> None:
        """The name of what is moved, where it was not known at the beginning."""

    def say(self, text: str) -> None:
        """One line for a person, above the bar."""


@contextmanager
def bar(label: str, name: str, *, quiet: bool) -> Iterator[Step]:
    """One bar for one part of the work; lines alone where stderr is no terminal; nothing with --json.

    label: what happens now, as `sending`.
    """
    if quiet:
        yield _Nothing()
        return
    console = remark_console()
    if not console.is_terminal:
        yield _Lines(console)
        return
    # Here: 0.1 s that only a terminal is worth.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.fields[label]:<9}", style="bold"),
        TextColumn("{task.fields[file]}"),
        BarColumn(bar_width=28),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[via]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, progress.add_task("", label=label, file="", via="", total=None), name)


class _Bar:
    """A line that is drawn again and again."""

    def __init__(self, progress: Progress, task: TaskID, name: str) -> None:
        self._progress = progress
        self._task = task
        self.named(name)

    def __call__(self, done: int, total: int, transports: dict[str, int]) -> None:
        self._progress.update(self._task, completed=done, total=total or None, via=_via(transports))

    def named(self, name: str) -> None:
        from rich.text import Text  # a name is no markup

        self._progress.update(self._task, file=Text(_short(printable(name))))

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False)


class _Lines:
    """For logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, done: int, total: int, transports: dict[str, int]) -> None:
        pass

    def named(self, name: str) -> None:
        pass

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class _Nothing:
    """For programs."""

    def __call__(self, done: int, total: int, transports: dict[str, int]) -> None:
        pass

    def named(self, name: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Following:
    """A transfer's states as a step shows them: numbers, its name once it has one, and what it waits for, once each."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._name = ""
        self._waiting = ""
        self._said: set[str] = set()

    def __call__(self, transfer: Transfer) -> None:
        if transfer.name and transfer.name != self._name:
            self._name = transfer.name
            self._step.named(transfer.name)
        self._step(transfer.bytes_done, transfer.bytes_total, transfer.by_transport)
        waiting = printable(transfer.reason or transfer.waiting) if transfer.waiting else ""
        if waiting and waiting not in self._said:
            self._said.add(waiting)  # causes come and go with the transport that was tried last
            self._step.say(f"waiting: {waiting}")
        elif self._waiting and not waiting and transfer.state == "running":
            self._step.say("it goes on")
            self._said.clear()
        self._waiting = waiting


class Patience:
    """Says that nothing comes of a download, once, while the caller waits in a read.

    The node holds all of it by then: only its own processes can be what keeps it.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._came = threading.Event()
        self._elsewhere = False
        self._over = False
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over = True
        self._came.set()
        self._thread.join()

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Something came, and is handed on: to a pipe that nobody reads, say, which is not the node's fault."""
        self._elsewhere = True
        yield
        self._elsewhere = False
        self._came.set()

    def _watch(self) -> None:
        while self._came.wait(PATIENCE_S) or self._elsewhere:
            if self._over:
                return
            self._came.clear()
        self._step.say("waiting: nothing comes from the node; its bus or its chunk service may be away")


def _via(transports: dict[str, int]) -> str:
    whole = sum(transports.values())
    return " ".join(
        f"[{TRANSPORT_STYLES.get(name, 'white')}]{name} {100 * count // whole}%[/]"
        for name, count in transports.items()
        if count
    )


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"
