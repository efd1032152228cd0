"""`ls` and `rm`: what the node holds, how full its store is, and removing a file."""

from __future__ import annotations

import re

import click

from services.cli.api import ask, client_of, interruptible
from services.cli.daemon import Daemon, daemon_options, find_daemon
from services.cli.failures import CliFailure, unusable
from services.cli.output import print_json, remark_console, result_console, size, table
from shared.content.link import parse_link
from shared.errors import SwarmbridgeError
from shared.gateway_api import calls
from shared.gateway_api.structs import FileView, UsageView
from shared.terminal.text import ago, printable

NAME_CHARS = 40
MIN_PREFIX_CHARS = 6
_DIGEST = re.compile(r"[0-9a-f]{6,64}")
DIGEST_CHARS = 64


@click.command()
@click.option("--links", is_flag=True, help="Print the links alone, one a line.")
@daemon_options
def ls(links: bool, home: str | None, url: str | None, token_file: str | None, as_json: bool) -> None:
    """List the files that the node holds, newest first, and how full its store is.

    Private content has no link here: its key is kept nowhere but in the link that `put` printed.

    \b
    Examples:
      swarmbridge ls
      swarmbridge ls --links
      swarmbridge ls --json | jq -r '.files[] | [.name, .link] | @tsv'
    """
    daemon = find_daemon(home, url, token_file)
    files = _all_files(daemon)
    if links:
        for file in files:
            if file.link:
                print(file.link)
        return
    usage = ask(daemon, calls.usage())
    if as_json:
        print_json({"files": files, "usage": usage})
    else:
        _show(files, usage)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@daemon_options
def rm(files: tuple[str, ...], home: str | None, url: str | None, token_file: str | None, as_json: bool) -> None:
    """Remove files from the node: what no other file shares of them is freed at once.

    FILE is a link, or the first six or more characters of a digest that `ls` shows. Other nodes keep their copies.

    \b
    Examples:
      swarmbridge rm 3f2a90
      swarmbridge rm 'swarmbridge:3f2a…'

    Exit code 1 where a file is not held, or a transfer of it runs.
    """
    daemon = find_daemon(home, url, token_file)
    digests = [_digest(daemon, file) for file in files]
    removed = []
    for digest in digests:
        gone = ask(daemon, calls.remove_file(digest))
        removed.append(gone)
        if not as_json:
            name = printable(gone.name) or digest[:12]
            remark_console().print(f"{name} is removed, {size(gone.freed_bytes)} are free", markup=False)
    if as_json:
        print_json({"removed": removed})


def _all_files(daemon: Daemon) -> list[FileView]:
    found: list[FileView] = []
    with interruptible(), client_of(daemon) as client:
        while page := client.ask(calls.files(len(found))):
            found += page
    return found


def _digest(daemon: Daemon, file: str) -> str:
    """Raises: CliFailure for what names no file, or more than one."""
    if file.startswith("swarmbridge:"):
        try:
            return parse_link(file).digest
        except SwarmbridgeError as error:
            raise unusable(str(error), "paste the whole link that `swarmbridge put` printed, in quotes") from None
    if not _DIGEST.fullmatch(file):
        raise unusable(
            f"{printable(file)} names no file", "give a link, or the beginning of a digest, see `swarmbridge ls`"
        )
    if len(file) == DIGEST_CHARS:
        return file
    found = [one.manifest for one in _all_files(daemon) if one.manifest.startswith(file)]
    if not found:
        raise CliFailure("not_found", f"no file here begins with {file}", "see `swarmbridge ls`")
    if len(found) > 1:
        raise unusable(f"{len(found)} files begin with {file}", "give more of the digest")
    return found[0]


def _show(files: list[FileView], usage: UsageView) -> None:
    console = result_console()
    if files:
        rows = table("FILE", "NAME", "SIZE", "CLASS", "WHEN", right=("SIZE",))
        for file in files:
            rows.add_row(file.manifest[:12], _short(file.name), _amount(file), file.content_class, ago(file.stored_at))
        console.print(rows)
        console.print("their links: `swarmbridge ls --links`", style="dim")
    else:
        console.print("no file is stored")
    promised = f", {size(usage.promised_bytes)} more promised to running transfers" if usage.promised_bytes else ""
    console.print(f"{size(usage.used_bytes)} of {size(usage.quota_bytes)} used{promised}", style="dim")


def _amount(file: FileView) -> str:
    if file.chunks_stored == file.chunks_total:
        return size(file.size)
    return f"{100 * file.chunks_stored // max(1, file.chunks_total)}% of {size(file.size)}"


def _short(name: str) -> str:
    shown = printable(name) or "(private)"
    return shown if len(shown) <= NAME_CHARS else shown[: NAME_CHARS - 1] + "…"
