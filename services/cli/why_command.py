"""`why`: the verdict on a peer or a transfer, what was tried, what changed, and where to look further."""

from __future__ import annotations

import re
import time

import click
from rich.console import Console
from rich.text import Text

from services.cli.api import ask
from services.cli.daemon import Daemon, daemon_options, find_daemon
from services.cli.failures import CliFailure
from services.cli.output import clock, print_json, result_console, table
from shared.gateway_api import calls
from shared.gateway_api.why import Why
from shared.terminal.text import OUTCOME_STYLES, TRANSPORT_STYLES, printable

SUBJECT = re.compile(r"[0-9a-z-]{1,128}")
VERDICT_STYLES = {
    "direct": "green",
    "returned": "green",
    "fallback": "yellow",
    "mixed": "yellow",
    "stuck": "bold red",
    "failed": "bold red",
    "idle": "dim",
}


@click.command()
@click.argument("subject", metavar="PEER|TRANSFER")
@daemon_options
def why(subject: str, home: str | None, url: str | None, token_file: str | None, as_json: bool) -> None:
    """Say in words why a peer or a transfer goes over the transport it goes over, or over none.

    PEER is a peer's name (peer-…) or token (k…); TRANSFER an id, or its first six characters or more.

    \b
    Examples:
      swarmbridge why peer-3f2a90c1d4e5b607
      swarmbridge why 9c41d2
      swarmbridge why 9c41d2 --json | jq -r .headline

    Exit code 0 also where the verdict is bad; 1 where nothing is known of it.
    """
    daemon = find_daemon(home, url, token_file)
    found = _ask(daemon, subject)
    if as_json:
        print_json(found)
    else:
        _show(found, result_console())


def _ask(daemon: Daemon, subject: str) -> Why:
    if not SUBJECT.fullmatch(subject):
        raise CliFailure("not_found", "this names neither a peer nor a transfer", "see `swarmbridge peers`")
    return ask(daemon, calls.why_of(subject, _utc_offset_minutes()))


def _utc_offset_minutes() -> int:
    """What our clock is ahead of UTC, so that the node's sentence has our times in it."""
    return time.localtime().tm_gmtoff // 60


def _show(found: Why, console: Console) -> None:
    console.print(Text(printable(found.headline), VERDICT_STYLES.get(found.verdict, "")), soft_wrap=True)
    if found.timeline:
        _show_timeline(found, console)
    if found.changes:
        console.print()
        rows = table("TIME", "WHAT CHANGED")
        for change in found.changes:
            rows.add_row(clock(change.at), Text(printable(change.text)))
        console.print(rows)
    elif found.timeline:
        since = clock(found.changes_known_since)
        console.print(Text(f"\nnothing changed on this node before it (watched since {since})", "dim"))
    if found.causes:
        console.print()
        for row in found.causes:
            seen = f" ({row.count})" if row.count else ""
            console.print(Text.assemble((row.cause, "bold"), seen, f": {row.sentence}"), soft_wrap=True)
    if found.trace_id:
        kept = "" if found.trace_kept else "   (not kept here yet, or no longer)"
        console.print(Text(f"\ntrace {found.trace_id}{kept}\n  swarmbridge trace {found.trace_id}", "dim"))


def _show_timeline(found: Why, console: Console) -> None:
    console.print()
    if found.omitted:
        console.print(Text(f"{found.omitted} earlier hops are left out", "dim"))
    rows = table("TIME", "TRANSPORT", "OUTCOME", "CAUSE", "MS", "TIMES", "", right=("MS", "TIMES"))
    for row in found.timeline:
        longest = f" ≤ {row.max_ms:.0f}" if row.count > 1 and round(row.max_ms) > round(row.ms) else ""
        notes = [f"after {row.fallback_from}"] if row.fallback_from else []
        notes += ["hedge"] if row.hedged else []
        rows.add_row(
            clock(row.at),
            Text(row.transport, TRANSPORT_STYLES.get(row.transport, "")),
            Text(row.outcome, OUTCOME_STYLES.get(row.outcome, "")),
            row.cause or "",
            f"{row.ms:.0f}{longest}",
            str(row.count),
            Text(", ".join(notes), "dim"),
        )
    console.print(rows)
