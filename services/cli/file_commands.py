"""`put` and `get`.

`get` never leaves half a file under the name that was asked for: it writes beside it and renames. The node has
verified every chunk against the manifest; here the length is checked against what was announced.
"""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from services.cli.api import Api, Json, run
from services.cli.daemon import Daemon, daemon_options, find_daemon
from services.cli.failures import CliFailure, unusable
from services.cli.output import by_transport, print_json, printable, remark_console, size
from services.cli.progress import Step, bar, of_transfer
from shared.content.link import ContentLink, format_link, parse_link
from shared.errors import SwarmbridgeError
from shared.text import shows_something, without_unsafe

READ_BYTES = 1024 * 1024
CANCEL_WAIT_S = 2.0
STDOUT = "-"
DEFAULT_MIME = "application/octet-stream"
MAX_NAME_BYTES = 255


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
    done = run(lambda: _put_all(daemon, files, content_class, name, again, as_json))
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
    done = run(lambda: _get(daemon, wanted, output, force, as_json))
    if as_json:
        print_json(done)


async def _put_all(
    daemon: Daemon, files: tuple[str, ...], content_class: str, name: str | None, again: bool, quiet: bool
) -> list[Json]:
    done = []
    async with Api(daemon) as api:
        for file in files:
            path = Path(file)
            stored = await _put(api, path, name or _name_of(path), content_class, again, quiet)
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


async def _put(api: Api, path: Path, name: str, content_class: str, again: bool, quiet: bool) -> Json:
    started_s = time.monotonic()
    length = (await asyncio.to_thread(path.stat)).st_size
    mime = mimetypes.guess_type(name)[0] or DEFAULT_MIME
    with bar("sending", name, quiet=quiet) as step:
        query: dict[str, str] = {"name": name, "mime": mime, "class": content_class} | ({"again": "1"} if again else {})
        transfer_id = await api.upload(_read(path, length, step), length, **query)
    with bar("storing", name, quiet=quiet) as step:
        transfer = await _finished(api, transfer_id, step)
    return {
        "name": name,
        "link": transfer["link"],
        "manifest": transfer["manifest"],
        "transfer": transfer_id,
        "bytes": length,
        "seconds": round(time.monotonic() - started_s, 3),
    }


async def _read(path: Path, length: int, step: Step) -> AsyncIterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while part := await asyncio.to_thread(file.read, READ_BYTES):
            sent += len(part)
            if sent > length:
                raise CliFailure("invalid", f"{path} grew while it was sent", "put it again when it is whole")
            yield part
            step(sent, length, {})
    if sent < length:
        raise CliFailure("invalid", f"{path} shrank while it was sent", "put it again when it is whole")


async def _get(daemon: Daemon, link: ContentLink, output: str | None, force: bool, quiet: bool) -> Json:
    started_s = time.monotonic()
    async with Api(daemon) as api:
        started = await api.post("/api/fetches", {"link": format_link(link.without_key())})
        with bar("fetching", link.digest[:12], quiet=quiet) as step:
            transfer = await _finished(api, started["transfer"], step)
        fetched_s = time.monotonic() - started_s
        name = _safe_name(transfer["name"], link.digest)
        target = _target(name, output, force)
        with bar("writing", name, quiet=quiet) as step:
            count = await _save(api, link, target, step)
    done = {
        "name": name,
        "path": str(target) if target else None,
        "manifest": link.digest,
        "transfer": transfer["id"],
        "bytes": count,
        "seconds": round(time.monotonic() - started_s, 3),
        "fetchSeconds": round(fetched_s, 3),
        "byTransport": transfer["byTransport"],
    }
    if not quiet:
        via = by_transport(transfer["byTransport"])
        remark_console().print(f"{size(count)} in {done['seconds']:.1f} s: {via}", markup=False)
        if target:
            print(target)
    return done


async def _finished(api: Api, transfer_id: str, step: Step) -> Json:
    """A transfer's end; when we are interrupted, its end too."""
    try:
        return await api.finished(transfer_id, of_transfer(step))
    except asyncio.CancelledError:
        with suppress(CliFailure, TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT_S):
                await api.delete(f"/api/transfers/{transfer_id}")
        raise


def _safe_name(name: str, digest: str) -> str:
    """The name that the file's owner gave it, unless that would lead elsewhere or hide it."""
    last = without_unsafe(name.replace("\\", "/").rpartition("/")[2]).lstrip(".")
    return last if shows_something(last) and len(last.encode()) <= MAX_NAME_BYTES else f"{digest[:16]}.bin"


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


async def _save(api: Api, link: ContentLink, target: Path | None, step: Step) -> int:
    key = base64.urlsafe_b64encode(link.key).decode().rstrip("=") if link.key else ""
    async with api.download(link.digest, key) as (length, parts):
        if target is None:
            return await _write(parts, length, sys.stdout.buffer, step)
        descriptor, draft = tempfile.mkstemp(prefix=f".{target.name[:64]}.", suffix=".part", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                count = await _write(parts, length, file, step)
            os.chmod(draft, 0o666 & ~_umask())
            os.replace(draft, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise
        return count


async def _write(parts: AsyncIterator[bytes], length: int, file: Any, step: Step) -> int:
    count = 0
    async for part in parts:
        await asyncio.to_thread(file.write, part)
        count += len(part)
        step(count, length, {})
    file.flush()
    if count != length:
        raise CliFailure("closed", "the node sent less than the whole file", "get it again")
    return count


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
