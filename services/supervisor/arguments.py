"""The command line: `up` runs one node, `demo` shows two, `init` prepares one for others to run, `keep` keeps its
streams there."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from shared import exit_codes
from shared.errors import ConfigError, SwarmbridgeError
from shared.ids import token_key

DEFAULT_SIZE_MIB = 32
MIN_SIZE_MIB = 8
"""A third of a file is confirmed before the first fault; less would show nothing of what comes after it."""
MAX_SIZE_MIB = 1024
MAX_PORT = 65535
NATS_PORT = 4222


class _Parser(argparse.ArgumentParser):
    """argparse, with our one line instead of its usage text: the same as of every other command."""

    def __init__(self, *, as_json: bool, **options: Any) -> None:
        super().__init__(**options)
        self._as_json = as_json

    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        if self._as_json:
            print(json.dumps({"error": {"code": "usage", "message": message, "hint": hint}}))
            self.exit(exit_codes.USAGE)
        self.exit(exit_codes.USAGE, f"error: {' '.join(message.split())}; {hint}\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong argument is one line, with --json one object, and exits with 2."""
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    make = functools.partial(_Parser, as_json=as_json, allow_abbrev=False)
    type_of: Any = make  # argparse only calls it; its types ask for a class
    parser = make(prog="swarmbridge", description="Run swarmbridge nodes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|demo|init|keep", parser_class=type_of)
    _add_up(
        commands.add_parser(
            "up",
            help="run one node until Ctrl-C",
            description="Run one node until Ctrl-C: a NATS server, its workers and its gateway.",
            epilog="Exit codes: 0 stopped as asked, 2 wrong argument or setting, 3 could not start (a line says why). "
            "Examples: swarmbridge up --home ~/node --port 8080; swarmbridge up --member kabc… (another node's "
            "`swarmbridge peers --self`)",
        )
    )
    _add_demo(
        commands.add_parser(
            "demo",
            help="two nodes, three real transports, real faults",
            description="Move files between two nodes of this machine while transports are killed and switched off.",
            epilog="Exit codes: 0 everything held, 1 it did not (a line says why), 2 wrong argument, 3 could not "
            "start, 130 interrupted. Example: swarmbridge demo --size-mib 64 --file video.mp4",
        )
    )
    _add_init(
        commands.add_parser(
            "init",
            help="prepare a home: keys, seeds, the bus's configuration",
            description="Make what a node needs before its processes start, where something else than `up` starts "
            "them: identity, operator's token, a seed for each service, nats-server's configuration; with --nats-url "
            "the node's streams and buckets too. Secrets that are there are kept.",
            epilog="Exit codes: 0 done, 2 wrong argument or setting, 3 it could not (a line says why), 130 "
            "interrupted. Example: swarmbridge init --home /data --name node --nats-host 0.0.0.0 --nats-store /nats",
        )
    )
    _add_keep(commands)
    return parser.parse_args(arguments)


def _add_keep(commands: Any) -> None:
    parser = commands.add_parser(
        "keep",
        help="make a node's streams and buckets again when NATS loses them",
        description="Make the node's streams and buckets, and make them again when NATS has lost them, until it is "
        "asked to end. Reads bus.url, node.id and bus.seed_file, the keeper's, as every service does.",
        epilog="Exit codes: 0 stopped as asked, 2 wrong setting, 3 could not start (a line says why).",
    )
    parser.add_argument("--once", action="store_true", help="end when they are made")


def _add_up(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=_path, metavar="DIR", help="where keys, chunks and logs are kept")
    parser.add_argument("--name", metavar="NAME", help="the node's name on its bus (default: node)")
    parser.add_argument("--port", type=_port, metavar="N", help="port of the page and the API (default: the last one)")
    _add_nats(parser)
    parser.add_argument(
        "--rendezvous",
        type=_document,
        metavar="FILE",
        help="rendezvous document to use; without it, our own is started",
    )
    parser.add_argument(
        "--member",
        type=_member,
        action="append",
        default=[],
        metavar="TOKEN",
        help="peer token of a node to trust; remembered",
    )
    parser.add_argument(
        "--forget", type=_member, action="append", default=[], metavar="TOKEN", help="a remembered one, trusted no more"
    )
    parser.add_argument("--json", action="store_true", help="say where the node is as one JSON line")


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=_path, metavar="DIR", help="where all of it is made")
    parser.add_argument("--name", metavar="NAME", help="the node's name on its bus (default: node)")
    parser.add_argument("--nats-host", default="127.0.0.1", metavar="HOST", help="where nats-server is to listen")
    parser.add_argument("--nats-port", type=_port, default=NATS_PORT, metavar="N", help=f"its port ({NATS_PORT})")
    parser.add_argument("--nats-store", default="", metavar="DIR", help="its data, as it sees it (default: DIR/nats)")
    parser.add_argument(
        "--nats-tls",
        type=_names,
        default=(),
        metavar="NAMES",
        help="serve TLS alone, with a certificate for these names, separated by commas",
    )
    parser.add_argument(
        "--nats-tls-files",
        default="",
        metavar="DIR",
        help="where the server sees server.pem and server.key (default: DIR/bus/tls)",
    )
    parser.add_argument(
        "--nats-url", default="", metavar="URL", help="wait for this server and make the streams and buckets on it"
    )
    parser.add_argument("--json", action="store_true", help="say where everything is as one JSON line")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size-mib",
        type=_size,
        default=DEFAULT_SIZE_MIB,
        metavar="N",
        help=f"size of each of the three files, {MIN_SIZE_MIB} to {MAX_SIZE_MIB} (default: {DEFAULT_SIZE_MIB})",
    )
    parser.add_argument(
        "--file", type=_file, action="append", default=[], metavar="PATH", help="a real file to move as well"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("--keep", action="store_true", help="keep homes and logs, and say where they are")
    _add_nats(parser)


def _add_nats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nats-url",
        default="",
        metavar="URL",
        help="use this NATS server (with JetStream) instead of our own; no accounts are made on it",
    )
    parser.add_argument("--nats-binary", default="", metavar="PATH", help="the nats-server to run")
    parser.add_argument(
        "--no-fork", action="store_true", help="execute each process on its own: slower, and takes more memory"
    )


def _port(text: str) -> int:
    return _whole_number(text, 0, MAX_PORT)


def _size(text: str) -> int:
    return _whole_number(text, MIN_SIZE_MIB, MAX_SIZE_MIB)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not all(name.isascii() for name in names):
        raise argparse.ArgumentTypeError("host names or addresses, separated by commas")
    return names


def _whole_number(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a whole number") from None
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"must be {least} to {most}")
    return number


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text}: there is no such user") from None


def _document(text: str) -> Path:
    """A rendezvous document that can be read; members of it that cannot be used are left out later, with a reason."""
    from shared.settings.rendezvous import load_document  # not every command line names one

    path = _file(text)
    try:
        load_document(str(path))
    except ConfigError as error:
        reason = "; ".join(error.problems).removeprefix(f"rendezvous.document: {path}: ")
        raise argparse.ArgumentTypeError(f"{text} is no rendezvous document: {reason}") from None
    return path


def _file(text: str) -> Path:
    path = _path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is no file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from None
    return path.resolve()


def _member(text: str) -> str:
    try:
        if token_key(text) is not None:
            return text
    except SwarmbridgeError:
        pass
    raise argparse.ArgumentTypeError("is no member's peer token (k and 52 letters)")
