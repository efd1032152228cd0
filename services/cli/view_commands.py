"""`peers`, `stats` and `flags`: what the node knows, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from services.cli.api import ask
from services.cli.chaos_command import WithChaos, in_words
from services.cli.daemon import daemon_options, find_daemon
from services.cli.failures import unusable
from services.cli.output import STATE_STYLES, print_json, result_console, size, table
from shared.gateway_api import calls
from shared.gateway_api.structs import ManagersView, Stats, TransportStats
from shared.terminal.text import TRANSPORT_STYLES, ago

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

FLAG_WORDS = {
    "webrtc": "webrtcTransport",
    "webtorrent": "webTorrentTransport",
    "broadcast": "broadcastTransport",
    "telemetry": "transportFallbackTelemetry",
}
"""Short words for the flags; their full names work too."""

POOR_PLACES = ("waiting", "unusable")
"""States in which a member of the rendezvous document serves nobody."""

ADVICE = {
    "import_failed": "a package that it needs is missing: install swarmbridge[node]",
    "signalling_unavailable": "no PeerServer or tracker answers: see the rendezvous document",
    "worker_lost": "its worker is gone: see the node's log",
    "id_taken": "another process holds our PeerJS id",
}


@click.command()
@click.option("--self", "own", is_flag=True, help="Print this node's own peer token instead.")
@daemon_options
def peers(own: bool, home: str | None, url: str | None, token_file: str | None, as_json: bool) -> None:
    """List the peers with a live link, and over which transports.

    \b
    Examples:
      swarmbridge peers
      swarmbridge peers --self           for another node's `up --member TOKEN`
      swarmbridge peers --json | jq -r '.[].peer'
    """
    daemon = find_daemon(home, url, token_file)
    if own:
        node = ask(daemon, calls.node())
        print_json(node) if as_json else print(node.peer)
        return
    found = ask(daemon, calls.peers())
    if as_json:
        print_json(found)
    elif not found:
        result_console().print("no peer is linked")
    else:
        from rich.text import Text

        rows = table("PEER", "ROLE", "TRANSPORTS")
        for peer in found:
            via = Text(" ").join(Text(name, TRANSPORT_STYLES.get(name, "")) for name in peer.transports)
            rows.add_row(peer.peer, peer.role or "", via)
        result_console().print(rows)


@click.command()
@daemon_options
def stats(home: str | None, url: str | None, token_file: str | None, as_json: bool) -> None:
    """Show each transport's state, peers, fallbacks and last error.

    \b
    Examples:
      swarmbridge stats
      swarmbridge stats --json | jq '.transports[] | {id, state, fallbackCount}'
    """
    daemon = find_daemon(home, url, token_file)
    found = ask(daemon, calls.stats())
    if as_json:
        print_json(found)
    else:
        result_console().print(_stats_view(found))


@click.command(cls=WithChaos)
@click.argument("name", required=False)
@click.argument("value", required=False, type=click.Choice(["on", "off"], case_sensitive=False))
@daemon_options
def flags(
    name: str | None, value: str | None, home: str | None, url: str | None, token_file: str | None, as_json: bool
) -> None:
    """Show the run-time flags, or switch one for the whole node.

    NAME is webrtc, webtorrent, broadcast or telemetry, or a flag's full name. `flags chaos` breaks a transport on
    purpose, see `swarmbridge flags chaos --help`.

    \b
    Examples:
      swarmbridge flags
      swarmbridge flags webtorrent off
      swarmbridge flags transportFallbackTelemetry on --json
      swarmbridge flags chaos webrtc --drop 20
    """
    if name is not None and name not in FLAG_WORDS and name not in FLAG_WORDS.values():
        raise unusable(f"there is no flag {name}", f"choose one of {', '.join(FLAG_WORDS)}")
    if name is not None and value is None:
        raise unusable("on or off is missing", f"say `swarmbridge flags {name} off`")
    daemon = find_daemon(home, url, token_file)
    if name is not None:
        found = ask(daemon, calls.set_flag(FLAG_WORDS.get(name, name), value == "on"))
    else:
        found = ask(daemon, calls.flags())
    if as_json:
        print_json(found)
        return
    from rich.text import Text

    rows = table("FLAG", "VALUE")
    faults = found.pop("chaos", {})
    for flag, enabled in found.items():
        rows.add_row(flag, Text("on", "green") if enabled else Text("off", "dim"))
    for transport, fault in faults.items():
        rows.add_row(f"chaos.{transport}", Text(in_words(fault), "yellow"))
    result_console().print(rows)


def _stats_view(found: Stats) -> Group:
    from rich.console import Group
    from rich.text import Text

    numbers = ("PEERS", "FETCHED", "SENT", "FALLBACKS")
    rows = table("TRANSPORT", "STATE", *numbers, "LAST", "LAST ERROR", right=numbers)
    remarks: list[Text] = []
    for row in found.transports:
        state = row.state if row.enabled else "off"
        rows.add_row(
            Text(row.id, TRANSPORT_STYLES.get(row.id, "")),
            Text(state, STATE_STYLES.get(state, "dim")),
            str(row.connected_peers),
            size(row.confirmed_bytes),
            size(row.sent_bytes),
            str(row.fallback_count),
            ago(row.last_fallback_at),
            _error(row),
        )
        remarks += [Text(text, style) for text, style in _remarks(row, state)]
    whole = Text(f"{found.transport_fallbacks} fallbacks, the last {ago(found.last_transport_fallback_at)}")
    deciding = [_managers(found.managers), *_chunk_services(found.chunk_transfers)]
    return Group(rows, *([Text()] if remarks else []), *remarks, Text(), whole, *deciding)


def _error(row: TransportStats) -> str:
    if not row.last_error:
        return ""
    return f"{row.last_error}, {ago(row.last_error_at)}" if row.last_error_at else row.last_error


def _remarks(row: TransportStats, state: str) -> Iterator[tuple[str, str]]:
    """Lines below the table, each with its style."""
    called = f"{row.id} ({row.label})"
    if row.counted_since:
        yield f"{called} counts since it was switched off, {ago(row.counted_since)}", "dim"
    if row.fallback_causes:
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(row.fallback_causes.items()))
        yield f"{called} was left because of: {causes}", "dim"
    if state in ("degraded", "error"):
        what = ADVICE.get(row.last_error or "", "see the node's log")
        yield f"{called} is {state}: {what}", "yellow"
    for place in row.places:
        if place.state in POOR_PLACES:
            why = f": {place.cause}" if place.cause else ""
            yield f"{row.id}: {place.list}[{place.index}] of the rendezvous document is {place.state}{why}", "yellow"


def _chunk_services(transfers: dict[str, int]) -> list[Text]:
    """How several share the work; one has all of it."""
    from rich.text import Text

    if len(transfers) < 2:
        return []
    return [Text(f"{len(transfers)} chunk services, transfers: " + " + ".join(map(str, transfers.values())))]


def _managers(found: ManagersView) -> Text:
    """What decides: a node without a manager delivers nothing."""
    from rich.text import Text

    if not found.count:
        return Text("no manager is heard of: nothing can be delivered; see the node's log", "bold red")
    plural = "s" if found.count > 1 else ""
    parts = [f"{found.count} manager{plural}", f"{found.deliveries} deliveries in flight"]
    if len(found.taken) > 1:
        parts.append("taken: " + " + ".join(map(str, found.taken.values())))
    if found.refused:
        parts.append("not taken: " + ", ".join(f"{cause} {count}" for cause, count in found.refused.items()))
    if found.duplicate_share:
        parts.append(f"{found.duplicate_share:.1%} of bytes came twice")
    return Text(", ".join(parts))
