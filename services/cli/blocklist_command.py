"""`blocklist`: who is blocked; block a peer, lift a block."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from services.cli.api import Api, run
from services.cli.daemon import Daemon, daemon_options, find_daemon
from services.cli.failures import unusable
from services.cli.output import clock, print_json, printable, result_console, table
from shared.errors import SwarmbridgeError
from shared.ids import is_peer_name, peer_name
from shared.settings.blocklist import MAX_NOTE_CHARS, Direction
from shared.text import is_safe_text

DIRECTION_STYLES = {"all": "bold red", "inbound": "yellow", "outbound": "yellow"}


@click.group(invoke_without_command=True)
@daemon_options
@click.pass_context
def blocklist(context: click.Context, home: str | None, url: str | None, token_file: str | None, as_json: bool) -> None:
    """List the peers that this node has blocked, block one, or lift a block.

    \b
    Examples:
      swarmbridge blocklist
      swarmbridge blocklist add peer-3f2a90c1d4e5b607
      swarmbridge blocklist add peer-3f2a90c1d4e5b607 --direction inbound --note "asks too much"
      swarmbridge blocklist remove peer-3f2a90c1d4e5b607
      swarmbridge blocklist --json | jq -r '.[].peer'
    """
    if context.invoked_subcommand is None:
        daemon = find_daemon(home, url, token_file)
        _show(run(lambda: _list(daemon)), as_json=as_json)
    elif home or url or token_file or as_json:
        command = f"blocklist {context.invoked_subcommand}"
        raise unusable("the options come too early", f"say them after `{command}`, see `swarmbridge {command} --help`")


@blocklist.command()
@click.argument("peer")
@click.option(
    "--direction",
    type=click.Choice([direction.value for direction in Direction]),
    default="all",
    help="inbound: refuse what it asks of us; outbound: ask nothing of it. [all]",
)
@click.option("--note", metavar="TEXT", default="", help=f"Why, for people: {MAX_NOTE_CHARS} characters at most.")
@daemon_options
def add(
    peer: str,
    direction: str,
    note: str,
    home: str | None,
    url: str | None,
    token_file: str | None,
    as_json: bool,
) -> None:
    """Block a peer on every transport at once, or change its block. In force at once, also on open links.

    PEER is a peer's name (peer-…, guest-…) or token (k…, g…); see `swarmbridge peers`.

    \b
    Examples:
      swarmbridge blocklist add peer-3f2a90c1d4e5b607
      swarmbridge blocklist add peer-3f2a90c1d4e5b607 --direction inbound --note "asks too much"
      swarmbridge blocklist add guest-0123456789abcdef --json
    """
    if len(note) > MAX_NOTE_CHARS or not is_safe_text(note):
        raise unusable("the note cannot be used", f"write one line of {MAX_NOTE_CHARS} characters at most")
    _check(peer)
    daemon = find_daemon(home, url, token_file)
    _show(run(lambda: _block(daemon, peer, direction, note)), as_json=as_json)


@blocklist.command()
@click.argument("peer")
@daemon_options
def remove(peer: str, home: str | None, url: str | None, token_file: str | None, as_json: bool) -> None:
    """Lift a peer's block, whatever its direction.

    \b
    Examples:
      swarmbridge blocklist remove peer-3f2a90c1d4e5b607
      swarmbridge blocklist remove guest-0123456789abcdef --json

    Exit code 1 where the peer is not blocked.
    """
    _check(peer)
    daemon = find_daemon(home, url, token_file)
    _show(run(lambda: _lift(daemon, peer)), as_json=as_json)


def _check(peer: str) -> None:
    """Raises: CliFailure(USAGE) for what is neither a peer's name nor its token."""
    try:
        named = is_peer_name(peer) or bool(peer.isascii() and peer.isalnum() and peer_name(peer))
    except SwarmbridgeError:
        named = False
    if not named:
        raise unusable(
            f"{printable(peer)} names no peer", "give a name (peer-…) or token (k…); see `swarmbridge peers`"
        )


async def _list(daemon: Daemon) -> Any:
    async with Api(daemon) as api:
        return await api.get("/api/blocklist")


async def _block(daemon: Daemon, peer: str, direction: str, note: str) -> Any:
    async with Api(daemon) as api:
        return await api.put(f"/api/blocklist/{peer}", {"direction": direction, "note": note})


async def _lift(daemon: Daemon, peer: str) -> Any:
    async with Api(daemon) as api:
        return await api.delete(f"/api/blocklist/{peer}")


def _show(found: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if not found:
        result_console().print("nobody is blocked")
        return
    rows = table("PEER", "DIRECTION", "SINCE", "NOTE")
    for block in found:
        direction = block["direction"]
        rows.add_row(
            block["peer"],
            Text(direction, DIRECTION_STYLES.get(direction, "")),
            clock(block["since"]) if block["since"] else "unknown",
            Text(printable(block["note"])),
        )
    result_console().print(rows)
