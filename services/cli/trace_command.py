"""`trace`: one delivery as a waterfall in the terminal."""

from __future__ import annotations

import click

from services.cli.api import ask
from services.cli.daemon import Daemon, daemon_options, find_daemon
from services.cli.failures import CliFailure
from services.cli.output import print_json, result_console, table
from shared.gateway_api import calls
from shared.gateway_api.traces import TraceSummary, Waterfall
from shared.terminal.text import ago


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
        _show_list(ask(daemon, calls.trace_list()), as_json)
        return
    found = _waterfall(daemon, trace_id)
    if as_json:
        print_json(found)
    else:
        from shared.terminal.waterfall import draw

        console = result_console()
        console.print(draw(found, console.width))


def _waterfall(daemon: Daemon, trace_id: str | None) -> Waterfall:
    if trace_id is None:
        latest = ask(daemon, calls.trace_list(1, fallback_only=True))
        if not latest:
            raise CliFailure("not_found", "there was no fallback yet", "see `swarmbridge trace --list`")
        trace_id = latest[0].trace_id
    elif not (trace_id.isascii() and trace_id.isalnum()):
        raise CliFailure("not_found", "no such trace", "see `swarmbridge trace --list`")
    return ask(daemon, calls.waterfall(trace_id))


def _show_list(found: list[TraceSummary], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if not found:
        result_console().print("no trace is kept yet")
        return
    from rich.text import Text

    rows = table("TRACE", "WHAT", "WHEN", "MS", "SPANS", "", right=("MS", "SPANS"))
    for row in found:
        note = Text("fallback", "yellow") if row.fallback else Text("")
        rows.add_row(row.trace_id, row.name, ago(row.started_at), f"{row.duration_ms:.0f}", str(row.spans), note)
    result_console().print(rows)
