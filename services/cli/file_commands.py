"""`put` and `get`.

`get` never leaves half a file under the name that was asked for: it writes beside it and renames. The node has
verified every chunk against the manifest; here the length is checked against what was announced.
"""

from __future__ import annotations

import base64
import mimetypes
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import click

from services.cli.api import client_of, finished, interruptible
from services.cli.daemon import Daemon, daemon_options, find_daemon
from services.cli.failures import CliFailure, unusable
from services.cli.output import by_transport, print_json, remark_console, size
from services.cli.progress import Step, bar, of_transfer
from shared.content.link import ContentLink, format_link, parse_link
from shared.content.names import safe_file_name
from shared.errors import SwarmbridgeError
from shared.gateway_api import calls
from shared.gateway_api.client import Download, GatewayClient
from shared.gateway_api.errors import BrokenOff, GatewayError
from shared.gateway_api.structs import Transfer
from shared.terminal.text import printable

READ_BYTES = 1024 * 1024
CANCEL_WAIT_S = 2.0
STDOUT = "-"
DEFAULT_MIME = "application/octet-stream"

Json = dict[str, Any]


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(exists=True, dir_okay=False))
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
    """Store files in the node and print a link for each.

    A file that is stored already, under the same name and class, keeps its link; private content gets a new one each
    time, because its key is kept nowhere but in its link.

    \b
    Examples:
      swarmbridge put photo.jpg
      swarmbridge put --class private notes.txt      the link is then the only key
      swarmbridge put *.mp4 --json | jq -r '.files[].link'
    """
    if name is not None and len(files) > 1:
        raise unusable("--name goes with one FILE", "put the files one by one")
    daemon = find_daemon(home, url, token_file)
    with interruptible():
        done = _put_all(daemon, files, content_class, name, again, as_json)
    if as_json:
        print_json({"files": done})


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

    Without -o the file gets its own name in this folder, and nothing is replaced. Quote the link: it may hold
    characters that a shell reads.

    \b
    Examples:
      swarmbridge get 'swarmbridge:3f2a…?h=kabc…'
      swarmbridge get 'swarmbridge:3f2a…' -o ~/Downloads/
      swarmbridge get 'swarmbridge:3f2a…' -o - | tar x
    """
    try:
        wanted = parse_link(link)
    except SwarmbridgeError as error:
        raise unusable(str(error), "paste the whole link that `swarmbridge put` printed, in quotes") from None
    if output == STDOUT and as_json:
        raise unusable("-o - and --json both want standard output", "choose one")
    daemon = find_daemon(home, url, token_file)
    with interruptible():
        done = _get(daemon, wanted, output, force, as_json)
    if as_json:
        print_json(done)


def _put_all(
    daemon: Daemon, files: tuple[str, ...], content_class: str, name: str | None, again: bool, quiet: bool
) -> list[Json]:
    done = []
    with client_of(daemon) as client:
        for file in files:
            path = Path(file)
            stored = _put(client, path, name or _name_of(path), content_class, again, quiet)
            done.append(stored)
            if not quiet:
                remark_console().print(
                    f"{printable(stored['name'])}: {size(stored['bytes'])} in {stored['seconds']:.1f} s", markup=False
                )
                print(stored["link"], flush=True)
    return done


def _name_of(path: Path) -> str:
    """The file's own name. Names are bytes; one that is no UTF-8 could only be stored as another."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise unusable(
            f"the name of {printable(str(path))} is not UTF-8, and would lose some of its bytes",
            "give the file another name with --name",
        ) from None
    return path.name


def _put(client: GatewayClient, path: Path, name: str, content_class: str, again: bool, quiet: bool) -> Json:
    started_s = time.monotonic()
    mime = mimetypes.guess_type(name)[0] or DEFAULT_MIME
    query = calls.upload_query(name, mime, content_class, again=again)
    with path.open("rb") as file, bar("sending", name, quiet=quiet) as step:
        about = os.fstat(file.fileno())
        # A pipe (`<(tar c …)`) has no length before its end.
        length = about.st_size if stat.S_ISREG(about.st_mode) else None
        transfer_id = client.upload(query, _read(file, path, length, step), length).transfer
    with bar("storing", name, quiet=quiet) as step:
        transfer = _finished(client, transfer_id, step)
    return {
        "name": name,
        "link": transfer.link,
        "manifest": transfer.manifest,
        "transfer": transfer_id,
        "bytes": transfer.bytes_total if length is None else length,
        "seconds": round(time.monotonic() - started_s, 3),
    }


def _read(file: BinaryIO, path: Path, length: int | None, step: Step) -> Iterator[bytes]:
    sent = 0
    while part := file.read(READ_BYTES):
        sent += len(part)
        if length is not None and sent > length:
            raise CliFailure("invalid", f"{path} grew while it was sent", "put it again when it is whole")
        yield part
        step(sent, length or 0, {})
    if length is not None and sent < length:
        raise CliFailure("invalid", f"{path} shrank while it was sent", "put it again when it is whole")


def _get(daemon: Daemon, link: ContentLink, output: str | None, force: bool, quiet: bool) -> Json:
    started_s = time.monotonic()
    with client_of(daemon) as client:
        started = client.ask(calls.fetch(format_link(link.without_key())))
        with bar("fetching", link.digest[:12], quiet=quiet) as step:
            transfer = _finished(client, started.transfer, step)
        fetched_s = time.monotonic() - started_s
        name = safe_file_name(transfer.name, link.digest)
        target = _target(name, output, force)
        with bar("writing", name, quiet=quiet) as step:
            count = _save(client, link, target, step)
    done = {
        "name": name,
        "path": str(target) if target else None,
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
        if target:
            print(target)
    return done


def _finished(client: GatewayClient, transfer_id: str, step: Step) -> Transfer:
    """A transfer's end; when we are interrupted, its end too."""
    try:
        return finished(client, transfer_id, of_transfer(step))
    except KeyboardInterrupt:
        with suppress(GatewayError):
            client.ask(calls.cancel(transfer_id), CANCEL_WAIT_S)
        raise


def _target(name: str, output: str | None, force: bool) -> Path | None:
    """Where to write; None for standard output. A name that we chose replaces nothing; one that was given does."""
    if output == STDOUT:
        return None
    chosen = Path(output).expanduser() if output else Path(name)
    if output and (chosen.is_dir() or output.endswith(os.sep)):
        chosen = chosen / name
    elif output:
        force = True
    if chosen.exists() and (not force or not chosen.is_file()):
        raise CliFailure("exists", f"{chosen} is already there", "name another with -o, or add --force")
    if not chosen.parent.is_dir():
        raise CliFailure("not_found", f"there is no folder {chosen.parent}", "make it, or name another with -o")
    return chosen


def _save(client: GatewayClient, link: ContentLink, target: Path | None, step: Step) -> int:
    key = base64.urlsafe_b64encode(link.key).decode().rstrip("=") if link.key else ""
    with client.download(link.digest, key) as content:
        if target is None:
            return _write(content, sys.stdout.buffer, step)
        # Named before it is made: an interrupt between the two must not leave it behind.
        draft = target.parent / f".{target.name[:64]}.{secrets.token_hex(4)}.part"
        try:
            with open(draft, "xb", opener=_private) as file:
                count = _write(content, file, step)
            os.chmod(draft, 0o666 & ~_umask())
            os.replace(draft, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise
        return count


def _write(content: Download, file: BinaryIO, step: Step) -> int:
    count = 0
    for part in content.parts:
        file.write(part)
        count += len(part)
        step(count, content.length, {})
    file.flush()
    if count != content.length:
        raise BrokenOff
    return count


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
