"""Where the node is: `<home>/gateway.json` and the token that it names, or --url and --token-file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from services.cli.failures import CliFailure, unusable
from shared import exit_codes
from shared.gateway_api.address import TOKEN_FILE, Address, read_address
from shared.settings import config

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Daemon:
    """url: of the gateway, without a slash at its end. token: the operator's.

    proof_key: what the gateway must prove that it knows before the token is sent; None where the user named the token.
    """

    url: str
    token: str
    proof_key: str | None


def daemon_options(command: F) -> F:
    """The options of every command that talks to a running node."""
    for option in reversed(
        (
            click.option("--home", metavar="DIR", type=click.Path(file_okay=False), help="The node's home folder."),
            click.option("--url", metavar="URL", help="The gateway's address, instead of a home."),
            click.option(
                "--token-file",
                metavar="FILE",
                type=click.Path(dir_okay=False),
                help="The operator's token, with --url.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        )
    ):
        command = option(command)
    return command


def find_daemon(home: str | None, url: str | None, token_file: str | None) -> Daemon:
    """Where to ask, and with what.

    Raises: CliFailure(NOT_RUNNING) where no node has said where it is, (USAGE) for an address that is none.
    """
    folder = Path(home).expanduser() if home else config.load().home
    address = _address(folder)
    if url is None:
        url = _named_by(folder, address, named=home is not None)
    elif urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise unusable(f"{url} is no http address", "say for example --url http://127.0.0.1:7700")
    elif token_file is None and (address is None or address.url.rstrip("/") != url.rstrip("/")):
        # Whoever listens at an address that the home does not name would get the token of its operator.
        raise CliFailure(
            "unauthorized",
            f"the node of {folder} did not say that it is at {url}, so its token is not sent there",
            "name that node's token with --token-file",
            exit_codes.REFUSED,
        )
    named = Path(token_file).expanduser() if token_file else None
    token = _token(named or (address.token_path(folder) if address is not None else folder / TOKEN_FILE))
    return Daemon(url.rstrip("/"), token, address.proof if address is not None and token_file is None else None)


def _named_by(folder: Path, address: Address | None, *, named: bool) -> str:
    if address is None:
        hint = "do `swarmbridge up --home " + str(folder) + "`" if named else "do `swarmbridge up`, or name its --home"
        raise CliFailure("not_running", f"no node runs in {folder}", hint, exit_codes.NOT_RUNNING)
    return address.url


def _address(folder: Path) -> Address | None:
    """Where the home's gateway says that it is; None where none does, or the one that did is gone.

    A gateway that was killed leaves its file behind, and its port to whoever asks for it next; where its process id has
    a new owner too, the proof shows it (shared/gateway_api/proof.py).
    """
    address = read_address(folder)
    return address if address is not None and _is_alive(address.pid) else None


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True


def _token(path: Path) -> str:
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise CliFailure(
            "unauthorized", f"cannot read the token in {path}", "name it with --token-file", exit_codes.REFUSED
        ) from None
    if not token.isascii() or not token.isprintable() or not token:
        raise CliFailure("unauthorized", f"there is no token in {path}", "see --token-file", exit_codes.REFUSED)
    return token
