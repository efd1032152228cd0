"""What commands print: results on stdout, progress and remarks on stderr, JSON instead of both with --json."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATE_STYLES = {
    "active": "bold green",
    "ready": "green",
    "initializing": "cyan",
    "idle": "dim",
    "degraded": "yellow",
    "error": "bold red",
}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


PIPED_WIDTH = 200
"""Characters of a line where nobody's terminal says how many: a script must not get cut words."""


def result_console() -> Console:
    from rich.console import Console  # here and below: `--json` and plain lines draw nothing

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            """Ours to handle, once for every way of printing; rich would exit with 1."""
            raise BrokenPipeError

    console = Piped(highlight=False, emoji=False)
    return console if console.is_terminal else Piped(highlight=False, emoji=False, width=PIPED_WIDTH)


def remark_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def print_json(body: Any) -> None:
    """One object, indented: for `jq` and for eyes alike. body: of the API's structs, or plain."""
    import msgspec  # here: `version` and a wrong argument need none of it

    print(json.dumps(msgspec.to_builtins(body), indent=2, ensure_ascii=False))


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return made


def size(count: int) -> str:
    """1536 -> `1.5 KiB`."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


def clock(at_ms: int) -> str:
    """Wall clock ms as the time of day here, and the day where it is not today."""
    at = datetime.fromtimestamp(at_ms / 1000).astimezone()
    today = at.date() == datetime.now().astimezone().date()
    return f"{at:%H:%M:%S}" if today else f"{at:%Y-%m-%d %H:%M:%S}"


def by_transport(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {size(count)}" for name, count in counts.items() if count) or "all of it was already here"
