"""The benchmarks' command line."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass

from rich.console import Console

from ops.bench import inbound
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
from services.supervisor.machine.interrupts import Interrupted, run
from shared import exit_codes
from shared.errors import BusError

WIDE_COLUMNS = 150
"""Where there is no terminal to measure: the tables' own width."""
MEASUREMENTS = len(MANAGER_COUNTS) + len(POLICIES) * (len(BUS_FAULTS) + len(NODE_FAULTS))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One subcommand. ends: its own exit codes, in words."""

    name: str
    help: str
    description: str
    ends: str
    quick: str
    json: str


BENCHMARKS = (
    Benchmark(
        "fallback",
        "latency that faults add, beside a 250 ms and a 2 s ladder; deliveries a second",
        "What a fault adds to a delivery's time, under swarmbridge's manager and under two plain ladders on the same "
        "workers; deliveries a second with 1, 2 and 4 managers.",
        "1 something could not be measured (it says what)",
        "few samples, under a minute (full: under ten)",
        "one JSON object on stdout",
    ),
    Benchmark(
        "inbound",
        "a peer's request to the chunk service, with the manager between and without",
        "What the manager costs between a worker and the chunk service, both ways in alternation.",
        "1 a request failed",
        f"{inbound.QUICK_ROUNDS} rounds (full: {inbound.ROUNDS})",
        "one JSON array on stdout",
    ),
    Benchmark(
        "start",
        "time, CPU and memory of a start, executed and forked",
        "What starting one node and two nodes costs, with every process executed on its own and with services forked "
        "by a nursery, in alternation.",
        "1 a node did not start",
        f"{QUICK_ROUNDS} round (full: {ROUNDS})",
        "one JSON array on stdout",
    ),
    Benchmark(
        "store",
        "throughput and CPU of put and get between two nodes; what the store's index takes",
        "Files put on one node and got on another, and what a full store is asked for each of them.",
        "1 a transfer failed",
        "small files and few of them",
        "one JSON object on stdout",
    ),
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench", description="Benchmarks of swarmbridge on this machine.", allow_abbrev=False
    )
    names = "|".join(one.name for one in BENCHMARKS)
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    for one in BENCHMARKS:
        command = commands.add_parser(
            one.name,
            help=one.help,
            description=f"{one.description} Loopback only; cleans up.",
            epilog=f"Exit codes: 0 measured, {one.ends}, 2 wrong argument, 3 could not start, 130 interrupted. Aims "
            "are printed, never asserted.",
            allow_abbrev=False,
        )
        command.add_argument("--quick", action="store_true", help=one.quick)
        command.add_argument("--json", action="store_true", help=one.json)
        command.add_argument(
            "--nats-binary", default="", metavar="PATH", help="nats-server to use (default: installed)"
        )
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
    if options.command == "inbound":
        return _inbound(options)
    view = choose_view(Console(stderr=True), MEASUREMENTS)
    try:
        report = run(
            bench(QUICK if options.quick else FULL, view, quick=options.quick, nats_binary=options.nats_binary)
        )
    except (CannotStart, BenchFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return exit_codes.CANNOT_START
    except Interrupted:
        print("bench: interrupted; everything is cleaned up", file=sys.stderr)
        return exit_codes.INTERRUPTED
    finally:
        view.close()
    if options.json:
        print(report.as_json())
    else:
        console = Console()
        show(report, console if console.is_terminal else Console(width=WIDE_COLUMNS))
    return exit_codes.FAILED if report.problems else exit_codes.OK


def _inbound(options: argparse.Namespace) -> int:
    rounds = inbound.QUICK_ROUNDS if options.quick else inbound.ROUNDS
    try:
        rows = run(inbound.bench(rounds, lambda: print(".", end="", file=sys.stderr, flush=True), options.nats_binary))
    except (CannotStart, BusError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return exit_codes.CANNOT_START if isinstance(error, CannotStart) else exit_codes.FAILED
    except Interrupted:
        return exit_codes.INTERRUPTED
    print(file=sys.stderr)
    if options.json:
        print(json.dumps(inbound.as_objects(rows), indent=2))
        return exit_codes.OK
    console = Console()
    for table in inbound.tables(rows):
        (console if console.is_terminal else Console(width=WIDE_COLUMNS)).print(table)
    return exit_codes.OK


def _start(options: argparse.Namespace) -> int:
    try:
        rows = run(measure(QUICK_ROUNDS if options.quick else ROUNDS, options.nats_binary))
    except (CannotStart, StartFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return exit_codes.CANNOT_START if isinstance(error, CannotStart) else exit_codes.FAILED
    except Interrupted:
        return exit_codes.INTERRUPTED
    show_starts(rows, as_json=options.json)
    return exit_codes.OK


def _store(options: argparse.Namespace) -> int:
    try:
        report = run(measure_store(quick=options.quick, nats_binary=options.nats_binary))
    except (CannotStart, StoreFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return exit_codes.CANNOT_START if isinstance(error, CannotStart) else exit_codes.FAILED
    except Interrupted:
        return exit_codes.INTERRUPTED
    show_store(report, as_json=options.json)
    return exit_codes.OK
