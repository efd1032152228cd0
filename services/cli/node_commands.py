"""`up`, `demo` and `version`: the first two become the supervisor, so that signals and its exit code are its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import metadata

import click

from services.cli.output import print_json

SUPERVISOR = "services.supervisor"
FILE = click.Path(exists=True, dir_okay=False)


@click.command()
@click.option("--home", metavar="DIR", type=click.Path(file_okay=False), help="Where keys, chunks and logs are kept.")
@click.option("--name", metavar="NAME", help="The node's name on its bus.")
@click.option("--port", metavar="N", type=click.IntRange(0, 65535), help="Port of the page and the API; 0 for any.")
@click.option("--nats-url", metavar="URL", help="Use this NATS server instead of an own one.")
@click.option("--nats-binary", metavar="PATH", type=FILE, help="The nats-server to run.")
@click.option("--rendezvous", metavar="FILE", type=FILE, help="Rendezvous document; without it, an own one is started.")
@click.option("--member", metavar="TOKEN", multiple=True, help="Peer token of a trusted node; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="Say where the node is as one JSON line.")
def up(
    home: str | None,
    name: str | None,
    port: int | None,
    nats_url: str | None,
    nats_binary: str | None,
    rendezvous: str | None,
    member: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run one node on this machine until Ctrl-C; prints where its page is.

    \b
    Examples:
      swarmbridge up
      swarmbridge up --home ~/node-b --name b --port 7701
      swarmbridge up --member kabc…      trust another node (its `swarmbridge peers --self`)

    Exit codes: 0 stopped as asked, 2 wrong argument or setting, 3 cannot start.
    """
    options = (
        *_option("--home", home),
        *_option("--name", name),
        *_option("--port", port),
        *_option("--nats-url", nats_url),
        *_option("--nats-binary", nats_binary),
        *_option("--rendezvous", rendezvous),
        *(part for token in member for part in ("--member", token)),
        *_switch("--json", as_json),
    )
    _become("up", options)


@click.command()
@click.option("--size-mib", metavar="N", type=click.IntRange(min=1), help="Size of each of the three files.")
@click.option("--file", "files", metavar="PATH", type=FILE, multiple=True, help="A real file to move as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
@click.option("--keep", is_flag=True, help="Keep homes and logs, and say where they are.")
@click.option("--nats-url", metavar="URL", help="Use this NATS server instead of an own one.")
@click.option("--nats-binary", metavar="PATH", type=FILE, help="The nats-server to run.")
def demo(
    size_mib: int | None,
    files: tuple[str, ...],
    as_json: bool,
    keep: bool,
    nats_url: str | None,
    nats_binary: str | None,
) -> None:
    """Two nodes, three real transports: files move while transports are killed and switched off.

    \b
    Examples:
      swarmbridge demo
      swarmbridge demo --size-mib 64 --file video.mp4
      swarmbridge demo --json | jq .

    Exit codes: 0 everything held, 1 it did not, 2 wrong argument, 3 cannot start, 130 interrupted.
    """
    options = (
        *_option("--size-mib", size_mib),
        *(part for path in files for part in ("--file", path)),
        *_switch("--json", as_json),
        *_switch("--keep", keep),
        *_option("--nats-url", nats_url),
        *_option("--nats-binary", nats_binary),
    )
    _become("demo", options)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def version(as_json: bool) -> None:
    """Print this program's version.

    \b
    Examples:
      swarmbridge version
      swarmbridge version --json
    """
    found = metadata.version("swarmbridge")
    if as_json:
        print_json({"version": found})
    else:
        print(f"swarmbridge {found}")


def _option(name: str, value: str | int | None) -> tuple[str, ...]:
    # One word, so that a value that starts with a dash stays a value.
    return () if value is None else (f"{name}={value}",)


def _switch(name: str, on: bool) -> tuple[str, ...]:
    return (name,) if on else ()


def _become(command: str, options: Iterable[str]) -> None:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", SUPERVISOR, command, *options])  # noqa: S606 - ourselves
