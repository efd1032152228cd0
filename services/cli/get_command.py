"""`get`: fetch what a link names.

It never leaves half a file under the name that was asked for, and never takes a name that somebody else has taken while
it ran. The node has verified every chunk against the manifest; here the length is checked against what was announced.
"""

from __future__ import annotations

import base64
import time
from contextlib import ExitStack
from functools import partial
from typing import Any, BinaryIO

import click

from services.cli import destination as destinations
from services.cli.api import interruptible
from services.cli.daemon import daemon_options, find_daemon
from services.cli.destination import Destination, NewFile
from services.cli.failures import CliFailure, unusable
from services.cli.following import settled
from services.cli.lasting import LastingDownload, LastingGateway
from services.cli.output import by_transport, print_json, remark_console, size
from services.cli.progress import Patience, Step, bar
from shared.content.link import ContentLink, format_link, parse_link
from shared.content.names import safe_file_name
from shared.errors import SwarmbridgeError
from shared.gateway_api import calls
from shared.gateway_api.errors import BrokenOff, Refused
from shared.gateway_api.structs import Transfer

RESUME_HINT = "run it again to resume: what has arrived stays in the node"

Json = dict[str, Any]


@click.command()
@click.argument("link", metavar="LINK")
@click.option("-o", "--output", metavar="OUT", help="File or folder to write to; - for standard output.")
@click.option("--force", is_flag=True, help="Replace a file of that name.")
@daemon_options
def get(
    link: str,
    output: str | None,
    force: bool,
    home: str | None,
    url: str | None,
    token_file: str | None,
    as_json: bool,
) -> None:
    """Fetch what a link names, from whichever peers and transports work.

    Without -o the file gets its own name in this folder. Nothing that is there is replaced without --force, whenever
    it came; pipes and devices are written into. Quote the link: it may hold characters that a shell reads.

    \b
    Examples:
      swarmbridge get 'swarmbridge:3f2a…?h=kabc…'
      swarmbridge get 'swarmbridge:3f2a…' -o ~/Downloads/
      swarmbridge get 'swarmbridge:3f2a…' -o - | tar x

    After Ctrl-C the same command goes on where it was. A gateway that is restarted meanwhile is waited for.
    """
    try:
        wanted = parse_link(link)
    except SwarmbridgeError as error:
        raise unusable(str(error), "paste the whole link that `swarmbridge put` printed, in quotes") from None
    if output == destinations.STDOUT and as_json:
        raise unusable("-o - and --json both want standard output", "choose one")
    destinations.check(output, force=force)
    with interruptible(RESUME_HINT), LastingGateway(partial(find_daemon, home, url, token_file)) as gateway:
        done = _get(gateway, wanted, output, force, as_json)
    if as_json:
        print_json(done)


def _get(gateway: LastingGateway, link: ContentLink, output: str | None, force: bool, quiet: bool) -> Json:
    started_s = time.monotonic()
    with bar("fetching", link.digest[:12], quiet=quiet) as step:
        transfer = _fetched(gateway, link, step)
    fetched_s = time.monotonic() - started_s
    name = safe_file_name(transfer.name, link.digest)
    target = destinations.destination(output, name, force=force)
    with bar("writing", name, quiet=quiet) as step:
        count = _save(gateway, link, target, step)
    done = {
        "name": name,
        "path": str(target.path) if target.path else None,
        "manifest": link.digest,
        "transfer": transfer.id,
        "bytes": count,
        "seconds": round(time.monotonic() - started_s, 3),
        "fetchSeconds": round(fetched_s, 3),
        "byTransport": transfer.by_transport,
    }
    if not quiet:
        via = by_transport(transfer.by_transport)
        remark_console().print(f"{size(count)} in {done['seconds']:.1f} s: {via}", markup=False)
        if isinstance(target, NewFile):
            print(target.path)
    return done


def _fetched(gateway: LastingGateway, link: ContentLink, step: Step) -> Transfer:
    wanted = calls.fetch(format_link(link.without_key()))
    while True:
        restarts = gateway.restarts
        started = gateway.do(lambda client: client.ask(wanted), step.say)
        try:
            return settled(gateway, started.transfer, step)
        except (CliFailure, Refused) as error:
            if not gateway.ended(error, restarts):
                raise  # else it is asked for again, and fetches what is not stored yet


def _save(gateway: LastingGateway, link: ContentLink, target: Destination, step: Step) -> int:
    key = base64.urlsafe_b64encode(link.key).decode().rstrip("=") if link.key else ""
    # Asked for first: an answer that is an error opens no pipe and makes no draft.
    with ExitStack() as stack:
        patience = stack.enter_context(Patience(step))
        content = stack.enter_context(LastingDownload(gateway, link.digest, key, step.say))
        with patience.elsewhere():  # a pipe opens when somebody reads it
            file = stack.enter_context(destinations.written(target))
        return _write(content, file, step, patience)


def _write(content: LastingDownload, file: BinaryIO, step: Step, patience: Patience) -> int:
    count = 0
    for part in content.parts():
        with patience.elsewhere():
            file.write(part)
        count += len(part)
        step(count, content.length, {})
    if count != content.length:
        raise BrokenOff
    return count
