"""`trace`: one delivery as a waterfall in the terminal."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from services.cli.api import Api, run
from services.cli.daemon import Daemon, daemon_options, find_daemon
from services.cli.failures import CliFailure
from services.cli.output import ago, print_json, result_console, table
from services.cli.waterfall import draw


@click.command()
@click.argument("trace_id", required=False, metavar="[ID]")
@click.option("--list", "listing", is_flag=True, help="List the traces that are kept instead.")
@daemon_options
def trace(
    trace_id: str | None,
    listing: bool,
    home: str | None,
    url: str | None,
    token_file: str | None,
    as_json: bool,
) -> None:
    """Draw a trace as a waterfall: what was tried, how long it took, what failed and why.

    Without ID it is the last one in which a transport was left for another.

    \b
    Examples:
      swarmbridge trace
      swarmbridge trace --list
      swarmbridge trace 4bf92f3577b34da6a3ce929d0e0e4736 --json
    """
    daemon = find_daemon(home, url, token_file)
    if listing:
        _show_list(run(lambda: _list(daemon)), as_json)
        return
    found = run(lambda: _waterfall(daemon, trace_id))
    if as_json:
        print_json(found)
    else:
        console = result_console()
        console.print(draw(found, console.width))


async def _list(daemon: Daemon) -> Any:
    async with Api(daemon) as api:
        return await api.get("/api/traces")


async def _waterfall(daemon: Daemon, trace_id: str | None) -> Any:
    async with Api(daemon) as api:
        if trace_id is None:
            latest = await api.get("/api/traces", fallback="1", limit="1")
            if not latest:
                raise CliFailure("not_found", "there was no fallback yet", "see `swarmbridge trace --list`")
            trace_id = str(latest[0]["traceId"])
        elif not (trace_id.isascii() and trace_id.isalnum()):
            raise CliFailure("not_found", "no such trace", "see `swarmbridge trace --list`")
        return await api.get(f"/api/traces/{trace_id}/waterfall")


def _show_list(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if not found:
        result_console().print("no trace is kept yet")
        return
    rows = table("TRACE", "WHAT", "WHEN", "MS", "SPANS", "", right=("MS", "SPANS"))
    for row in found:
        note = Text("fallback", "yellow") if row["fallback"] else Text("")
        rows.add_row(
            row["traceId"], row["name"], ago(row["startedAt"]), f"{row['durationMs']:.0f}", str(row["spans"]), note
        )
    result_console().print(rows)
