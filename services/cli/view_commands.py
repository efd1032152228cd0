"""`peers`, `stats` and `flags`: what the node knows, as tables."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Group
from rich.text import Text

from services.cli.api import Api, run
from services.cli.chaos_command import WithChaos, in_words
from services.cli.daemon import Daemon, daemon_options, find_daemon
from services.cli.failures import unusable
from services.cli.output import STATE_STYLES, TRANSPORT_STYLES, ago, print_json, result_console, table

FLAG_WORDS = {
    "webrtc": "webrtcTransport",
    "webtorrent": "webTorrentTransport",
    "broadcast": "broadcastTransport",
    "telemetry": "transportFallbackTelemetry",
}
"""Short words for the flags; their full names work too."""

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
        node = run(lambda: _get(daemon, "/api/node"))
        print_json(node) if as_json else print(node["peer"])
        return
    found = run(lambda: _get(daemon, "/api/peers"))
    if as_json:
        print_json(found)
    elif not found:
        result_console().print("no peer is linked")
    else:
        rows = table("PEER", "ROLE", "TRANSPORTS")
        for peer in found:
            via = Text(" ").join(Text(name, TRANSPORT_STYLES.get(name, "")) for name in peer["transports"])
            rows.add_row(peer["peer"], peer["role"] or "", via)
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
    found = run(lambda: _get(daemon, "/api/stats"))
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
        full = FLAG_WORDS.get(name, name)
        found = run(lambda: _put(daemon, f"/api/flags/{full}", {"enabled": value == "on"}))
    else:
        found = run(lambda: _get(daemon, "/api/flags"))
    if as_json:
        print_json(found)
        return
    rows = table("FLAG", "VALUE")
    faults = found.pop("chaos", {})
    for flag, enabled in found.items():
        rows.add_row(flag, Text("on", "green") if enabled else Text("off", "dim"))
    for transport, fault in faults.items():
        rows.add_row(f"chaos.{transport}", Text(in_words(fault), "yellow"))
    result_console().print(rows)


async def _get(daemon: Daemon, path: str) -> Any:
    async with Api(daemon) as api:
        return await api.get(path)


async def _put(daemon: Daemon, path: str, body: dict[str, Any]) -> Any:
    async with Api(daemon) as api:
        return await api.put(path, body)


def _stats_view(found: dict[str, Any]) -> Group:
    rows = table("TRANSPORT", "STATE", "PEERS", "FALLBACKS", "LAST", "LAST ERROR", right=("PEERS", "FALLBACKS"))
    advice = []
    for row in found["transports"]:
        state = row["state"] if row["enabled"] else "off"
        rows.add_row(
            Text(row["id"], TRANSPORT_STYLES.get(row["id"], "")),
            Text(state, STATE_STYLES.get(state, "dim")),
            str(row["connectedPeers"]),
            str(row["fallbackCount"]),
            ago(row["lastFallbackAt"]),
            row["lastError"] or "",
        )
        if row["fallbackCauses"]:
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(row["fallbackCauses"].items()))
            advice.append(Text(f"{row['id']} ({row['label']}) was left because of: {causes}", "dim"))
        if state in ("degraded", "error"):
            what = ADVICE.get(row["lastError"] or "", "see the node's log")
            advice.append(Text(f"{row['id']} ({row['label']}) is {state}: {what}", "yellow"))
    whole = Text(f"{found['transportFallbacks']} fallbacks, the last {ago(found['lastTransportFallbackAt'])}")
    return Group(rows, *([Text()] if advice else []), *advice, Text(), whole, _managers(found["managers"]))


def _managers(found: dict[str, Any]) -> Text:
    """What decides: a node without a manager delivers nothing."""
    if not found["count"]:
        return Text("no manager is heard of: nothing can be delivered; see the node's log", "bold red")
    plural = "s" if found["count"] > 1 else ""
    parts = [f"{found['count']} manager{plural}", f"{found['deliveries']} deliveries in flight"]
    if found["refused"]:
        parts.append("not taken: " + ", ".join(f"{cause} {count}" for cause, count in found["refused"].items()))
    if found["duplicateShare"]:
        parts.append(f"{found['duplicateShare']:.1%} of bytes came twice")
    return Text(", ".join(parts))
