"""The command line of bench-webtorrent."""

from __future__ import annotations

import argparse
import logging
import sys

import msgspec
from rich.console import Console

from ops.bench.webtorrent.ends import LegFailed
from ops.bench.webtorrent.legs import node_binary
from ops.bench.webtorrent.report import tables
from ops.bench.webtorrent.run import ALL_LEGS, measure
from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.interrupts import Interrupted, run
from shared import exit_codes

EXIT_OK = 0
EXIT_INCOMPLETE = 1
EXIT_CANNOT_START = 3
SIZES_MIB = (64, 1024)
ROUNDS = 3
WIDE_COLUMNS = 150
"""Where there is no terminal to measure: the tables' own width."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench.webtorrent",
        description="Our BitTorrent wire beside webtorrent's, libtorrent's, a loopback socket and a hop over NATS; and "
        "a file through the whole system. Loopback only; cleans up.",
        epilog="Exit codes: 0 measured, 1 a leg failed, 2 wrong argument, 3 could not start, 130 interrupted. Aims are "
        "printed, never asserted.",
        allow_abbrev=False,
    )
    parser.add_argument("--sizes", type=_sizes, default=list(SIZES_MIB), metavar="MIB,MIB", help="default: 64,1024")
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help=f"transfers of each leg (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="64 MiB, one round")
    parser.add_argument("--legs", nargs="+", choices=ALL_LEGS, default=list(ALL_LEGS), metavar="LEG", help="some alone")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--nats-binary", default="", metavar="PATH", help="nats-server to use (default: installed)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.rounds = [SIZES_MIB[0]], 1
    return options


def main(arguments: list[str] | None = None) -> int:
    """Returns: the exit code."""
    options = parse(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    try:
        node_binary()
        found = run(measure(options.sizes, options.rounds, options.legs, options.nats_binary))
    except (CannotStart, LegFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_CANNOT_START
    except Interrupted:
        print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        return exit_codes.INTERRUPTED
    for problem in found.problems:
        print(f"bench: {problem}", file=sys.stderr)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        console = Console()
        for table in tables(found):
            (console if console.is_terminal else Console(width=WIDE_COLUMNS)).print(table)
    return EXIT_INCOMPLETE if found.problems else EXIT_OK


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _sizes(text: str) -> list[int]:
    return [_positive(each) for each in text.split(",")]
