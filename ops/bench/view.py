"""What is seen while it runs, on stderr: bars on a terminal, a line a measurement elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Tick = Callable[[], None]


class View(Protocol):
    """Shows progress. `close` leaves the terminal as it was."""

    def say(self, line: str) -> None: ...

    def measuring(self, what: str, rounds: int) -> AbstractContextManager[Tick]: ...

    def close(self) -> None: ...


class BarView:
    """A bar a measurement and one for all of them."""

    def __init__(self, console: Console, measurements: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description:46}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._progress.start()
        self._all = self._progress.add_task("all measurements", total=measurements)

    def say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False)

    @contextmanager
    def measuring(self, what: str, rounds: int) -> Iterator[Tick]:
        task = self._progress.add_task(what, total=rounds)
        try:
            yield lambda: self._progress.advance(task)
        finally:
            self._progress.remove_task(task)
            self._progress.advance(self._all)

    def close(self) -> None:
        self._progress.stop()


class LineView:
    """For logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        self._console.print(line, highlight=False)

    @contextmanager
    def measuring(self, what: str, rounds: int) -> Iterator[Tick]:
        self.say(f"{what}: {rounds} rounds at most")
        yield lambda: None

    def close(self) -> None:
        pass


def choose_view(console: Console, measurements: int) -> View:
    return BarView(console, measurements) if console.is_terminal else LineView(console)
