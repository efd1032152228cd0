"""`flags chaos`: break a transport on purpose, and see what fallback does about it."""

from __future__ import annotations

from typing import Any

import click

from services.cli.api import ask
from services.cli.daemon import daemon_options, find_daemon
from services.cli.failures import unusable
from services.cli.output import print_json, result_console, table
from shared.gateway_api import calls

TRANSPORTS = ("webrtc", "webtorrent", "broadcast")
MAX_DELAY_MS = 60_000
PERCENT = click.IntRange(0, 100)

Faults = dict[str, Any]


@click.command()
@click.argument("transport", type=click.Choice(TRANSPORTS))
@click.option("--drop", metavar="PERCENT", type=PERCENT, help="Requests that are accepted and never sent.")
@click.option("--refuse", metavar="PERCENT", type=PERCENT, help="Requests that are refused at once.")
@click.option("--delay-ms", metavar="MS", type=click.IntRange(1, MAX_DELAY_MS), help="Send the others this much later.")
@click.option("--percent", metavar="PERCENT", type=click.IntRange(1, 100), help="Touch no more than these. [100]")
@click.option("--peer", metavar="NAME", help="Only requests to this peer (see `swarmbridge peers`).")
@click.option("--clear", is_flag=True, help="Take the transport's faults away.")
@daemon_options
def chaos(
    transport: str,
    drop: int | None,
    refuse: int | None,
    delay_ms: int | None,
    percent: int | None,
    peer: str | None,
    clear: bool,
    home: str | None,
    url: str | None,
    token_file: str | None,
    as_json: bool,
) -> None:
    """Break some of a transport's requests on purpose. For nodes in development, or with node.allow_chaos.

    \b
    Examples:
      swarmbridge flags chaos webrtc --drop 20
      swarmbridge flags chaos webrtc --refuse 100 --peer peer-0123456789abcdef
      swarmbridge flags chaos webtorrent --delay-ms 500 --percent 10 --json
      swarmbridge flags chaos webrtc --clear
    """
    asked = {"drop": drop, "refuse": refuse, "delayMs": delay_ms, "percent": percent, "peer": peer}
    faults = {name: value for name, value in asked.items() if value is not None}
    if clear and faults:
        raise unusable("--clear goes with no other fault", "choose one")
    if not clear and not (drop or refuse or delay_ms):
        raise unusable("there is no fault to set", "say --drop, --refuse, --delay-ms or --clear")
    daemon = find_daemon(home, url, token_file)
    found = ask(daemon, calls.clear_chaos(transport) if clear else calls.set_chaos(transport, faults))
    if as_json:
        print_json(found["chaos"])
        return
    rows = table("TRANSPORT", "CHAOS")
    for name in TRANSPORTS:
        rows.add_row(name, in_words(found["chaos"].get(name)))
    result_console().print(rows)


class WithChaos(click.Command):
    """A command whose first word may be `chaos`, which then is another command with its own options and help."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["chaos"]:
            return chaos.make_context(f"{info_name} chaos", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def in_words(faults: Faults | None) -> str:
    """`drop 20 %, to peer-…`; `none` for None."""
    if faults is None:
        return "none"
    parts = [f"{word} {faults[word]} %" for word in ("refuse", "drop") if faults[word]]
    if faults["delayMs"]:
        parts.append(f"delay {'the others' if parts else 'all'} by {faults['delayMs']} ms")
    if faults["percent"] != 100:
        parts.append(f"of {faults['percent']} % of requests")
    if faults["peer"]:
        parts.append(f"to {faults['peer']}")
    return ", ".join(parts)
