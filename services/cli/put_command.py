"""`put`: store files in the node, a link for each."""

from __future__ import annotations

import itertools
import mimetypes
import time
from functools import partial
from typing import Any

import click

from services.cli import source
from services.cli.api import interruptible
from services.cli.daemon import daemon_options, find_daemon
from services.cli.failures import CliFailure, failure_of, unusable
from services.cli.following import settled
from services.cli.lasting import LastingGateway
from services.cli.output import print_json, remark_console, size
from services.cli.progress import Step, bar
from shared.gateway_api import calls
from shared.gateway_api.client import GatewayClient
from shared.gateway_api.errors import Refused
from shared.terminal.text import printable

DEFAULT_MIME = "application/octet-stream"

Json = dict[str, Any]


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE…", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "--class",
    "content_class",
    type=click.Choice(["shared", "mesh", "private"]),
    default="shared",
    show_default=True,
    help="Who may read it: any peer; members of the mesh; or any peer whose user has the link, which holds the key.",
)
@click.option("--name", metavar="NAME", help="Another name for the file (with one FILE).")
@click.option("--again", is_flag=True, help="Make a new link even where this very file is stored already.")
@daemon_options
def put(
    files: tuple[str, ...],
    content_class: str,
    name: str | None,
    again: bool,
    home: str | None,
    url: str | None,
    token_file: str | None,
    as_json: bool,
) -> None:
    """Store files in the node and print a link for each. FILE - is standard input; pipes are read to their end.

    A file that is stored already, under the same name and class, keeps its link; private content gets a new one each
    time, because its key is kept nowhere but in its link.

    \b
    Examples:
      swarmbridge put photo.jpg
      swarmbridge put --class private notes.txt      the link is then the only key
      swarmbridge put *.mp4 --json | jq -r '.files[].link'
      tar cz folder | swarmbridge put - --name folder.tar.gz
    """
    if name is not None and len(files) > 1:
        raise unusable("--name goes with one FILE", "put the files one by one")
    if files.count(source.STDIN) > 1:
        raise unusable("standard input can be named once", "say - once")
    # Before the first is sent: a mistake in the last one is no half-done command.
    names = [name if name is not None else source.name_of(file) for file in files]
    done: list[Json] = []
    try:
        with interruptible(), LastingGateway(partial(find_daemon, home, url, token_file)) as gateway:
            _put_all(gateway, list(zip(files, names, strict=True)), content_class, again, as_json, done)
    except Exception as error:
        failure = failure_of(error)
        failure.beside = {"files": done} if done else {}  # what is stored has its link, whatever came after it
        raise failure from error
    if as_json:
        print_json({"files": done})


def _put_all(
    gateway: LastingGateway,
    files: list[tuple[str, str]],
    content_class: str,
    again: bool,
    quiet: bool,
    done: list[Json],
) -> None:
    """done: gets each that is stored."""
    for file, name in files:
        stored = _put(gateway, file, name, content_class, again, quiet)
        done.append(stored)
        if not quiet:
            remark_console().print(
                f"{printable(stored['name'])}: {size(stored['bytes'])} in {stored['seconds']:.1f} s", markup=False
            )
            print(stored["link"], flush=True)


def _put(gateway: LastingGateway, file: str, name: str, content_class: str, again: bool, quiet: bool) -> Json:
    started_s = time.monotonic()
    mime = mimetypes.guess_type(name)[0] or DEFAULT_MIME
    query = calls.upload_query(name, mime, content_class, again=again)
    while True:
        restarts = gateway.restarts
        with bar("sending", name, quiet=quiet) as step:
            transfer_id, length = _send(gateway, file, query, step)
        try:
            with bar("storing", name, quiet=quiet) as step:
                transfer = settled(gateway, transfer_id, step)
            break
        except (CliFailure, Refused) as error:
            if not gateway.ended(error, restarts) or not source.can_be_read_again(file):
                raise
    return {
        "name": name,
        "link": transfer.link,
        "manifest": transfer.manifest,
        "transfer": transfer_id,
        "bytes": transfer.bytes_total if length is None else length,
        "seconds": round(time.monotonic() - started_s, 3),
    }


def _send(gateway: LastingGateway, file: str, query: dict[str, str], step: Step) -> tuple[str, int | None]:
    """Returns: the transfer's id; the length, None where nobody knew it."""

    def send(client: GatewayClient) -> tuple[str, int | None]:
        with source.opened(file) as opened:
            parts = opened.parts(step)
            # The node gives an upload up of which nothing comes: it is not begun before something does.
            first = next(parts, b"")
            return client.upload(query, itertools.chain((first,), parts), opened.length).transfer, opened.length

    return gateway.do(send, step.say) if source.can_be_read_again(file) else send(gateway.client)
