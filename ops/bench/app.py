"""The benchmarks' command line."""

from __future__ import annotations

import argparse
import logging
import sys

from rich.console import Console

from ops.bench.fallback import bench
from ops.bench.nodes import BenchFailed
from ops.bench.plan import BUS_FAULTS, FULL, MANAGER_COUNTS, NODE_FAULTS, QUICK
from ops.bench.policies import POLICIES
from ops.bench.report import show
from ops.bench.start import QUICK_ROUNDS, ROUNDS, StartFailed, measure
from ops.bench.start import show as show_starts
from ops.bench.store import StoreFailed
from ops.bench.store import measure as measure_store
from ops.bench.store import show as show_store
from ops.bench.view import choose_view
from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.interrupts import EXIT_INTERRUPTED, Interrupted, run

EXIT_OK = 0
EXIT_INCOMPLETE = 1
EXIT_CANNOT_START = 3
WIDE_COLUMNS = 150
"""Where there is no terminal to measure: the tables' own width."""
MEASUREMENTS = len(MANAGER_COUNTS) + len(POLICIES) * (len(BUS_FAULTS) + len(NODE_FAULTS))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench", description="Benchmarks of swarmbridge on this machine.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="fallback|start|store")
    fallback = commands.add_parser(
        "fallback",
        help="latency that faults add, beside a 250 ms and a 2 s ladder; deliveries a second",
        description="What a fault adds to a delivery's time, under swarmbridge's manager and under two plain ladders "
        "on the same workers; deliveries a second with 1, 2 and 4 managers. Loopback only; cleans up.",
        epilog="Exit codes: 0 measured, 1 something could not be measured (it says what), 2 wrong argument, 3 could "
        "not start, 130 interrupted. Aims are printed, never asserted.",
        allow_abbrev=False,
    )
    fallback.add_argument("--quick", action="store_true", help="few samples, under a minute (full: under ten)")
    fallback.add_argument("--json", action="store_true", help="one JSON object on stdout")
    fallback.add_argument("--nats-binary", default="", metavar="PATH", help="nats-server to use (default: installed)")
    start = commands.add_parser(
        "start",
        help="time, CPU and memory of a start, executed and forked",
        description="What starting one node and two nodes costs, with every process executed on its own and with "
        "services forked by a nursery, in alternation. Loopback only; cleans up.",
        epilog="Exit codes: 0 measured, 1 a node did not start, 2 wrong argument, 3 could not start, 130 interrupted.",
        allow_abbrev=False,
    )
    start.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} round (full: {ROUNDS})")
    start.add_argument("--json", action="store_true", help="one JSON array on stdout")
    start.add_argument("--nats-binary", default="", metavar="PATH", help="nats-server to use (default: installed)")
    store = commands.add_parser(
        "store",
        help="throughput and CPU of put and get between two nodes; what the store's index takes",
        description="Files put on one node and got on another, and what a full store is asked for each of them. "
        "Loopback only; cleans up.",
        epilog="Exit codes: 0 measured, 1 a transfer failed, 2 wrong argument, 3 could not start, 130 interrupted.",
        allow_abbrev=False,
    )
    store.add_argument("--quick", action="store_true", help="small files and few of them")
    store.add_argument("--json", action="store_true", help="one JSON object on stdout")
    store.add_argument("--nats-binary", default="", metavar="PATH", help="nats-server to use (default: installed)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Returns: the exit code."""
    options = parse(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    # A killed worker is our own doing, and deliveries that lose their manager are what is measured.
    logging.getLogger("services.supervisor.machine.processes").setLevel(logging.CRITICAL)
    if options.command == "start":
        return _start(options)
    if options.command == "store":
        return _store(options)
    view = choose_view(Console(stderr=True), MEASUREMENTS)
    try:
        report = run(
            bench(QUICK if options.quick else FULL, view, quick=options.quick, nats_binary=options.nats_binary)
        )
    except (CannotStart, BenchFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_CANNOT_START
    except Interrupted:
        print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        view.close()
    if options.json:
        print(report.as_json())
    else:
        console = Console()
        show(report, console if console.is_terminal else Console(width=WIDE_COLUMNS))
    return EXIT_INCOMPLETE if report.problems else EXIT_OK


def _start(options: argparse.Namespace) -> int:
    try:
        rows = run(measure(QUICK_ROUNDS if options.quick else ROUNDS, options.nats_binary))
    except (CannotStart, StartFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_CANNOT_START if isinstance(error, CannotStart) else EXIT_INCOMPLETE
    except Interrupted:
        return EXIT_INTERRUPTED
    show_starts(rows, as_json=options.json)
    return EXIT_OK


def _store(options: argparse.Namespace) -> int:
    try:
        report = run(measure_store(quick=options.quick, nats_binary=options.nats_binary))
    except (CannotStart, StoreFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_CANNOT_START if isinstance(error, CannotStart) else EXIT_INCOMPLETE
    except Interrupted:
        return EXIT_INTERRUPTED
    show_store(report, as_json=options.json)
    return EXIT_OK
