"""The supervisor's command line wired to what it does, and every ending to one line and an exit code."""

from __future__ import annotations

import argparse
import logging
import sys

import msgspec

from services.supervisor.init import InitOptions, init, prepared_text
from services.supervisor.keep import keep
from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.interrupts import EXIT_INTERRUPTED, Interrupted, run
from services.supervisor.nursery.client import Nursery
from services.supervisor.up import UpOptions, up
from shared.errors import ConfigError
from shared.settings.config import load

EXIT_OK = 0
EXIT_BAD_SETTINGS = 2
EXIT_CANNOT_START = 3


class _Failure(msgspec.Struct, frozen=True):
    """`--json` for a demo that could not even start."""

    ok: bool
    reason: str


def main(options: argparse.Namespace, nursery: Nursery | None = None) -> int:
    """Do what the command line says; nursery: one that is loading already, for `up` and `demo`.

    Returns: the exit code: 0, 1 (demo: it did not hold), 2 bad settings, 3 could not start, 130 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return _COMMANDS[options.command](options, nursery)
    except CannotStart as error:
        if options.command == "demo" and options.json:
            print(msgspec.json.encode(_Failure(False, error.line)).decode())
        _complain(error.line, *(f"  | {line}" for line in error.details))
        return EXIT_CANNOT_START
    except ConfigError as error:
        _complain(*error.problems)
        return EXIT_BAD_SETTINGS


def _up(options: argparse.Namespace, nursery: Nursery | None) -> int:
    config = load()
    try:
        run(
            up(
                config,
                UpOptions(
                    home=options.home,
                    name=options.name or "",
                    port=options.port,
                    nats_url=options.nats_url,
                    nats_binary=options.nats_binary,
                    rendezvous=options.rendezvous,
                    members=options.member,
                    forgotten=options.forget,
                    json=options.json,
                ),
                nursery,
            )
        )
    except Interrupted:
        pass  # Ctrl-C is how one ends it
    return EXIT_OK


def _demo(options: argparse.Namespace, nursery: Nursery | None) -> int:
    from services.supervisor.demo.run import DemoOptions, demo  # here: `up` draws nothing

    # A killed worker is the demo's own doing; its log line would tear the bars.
    logging.getLogger("services.supervisor.machine.processes").setLevel(logging.ERROR)
    try:
        return run(
            demo(
                DemoOptions(
                    size_mib=options.size_mib,
                    files=options.file,
                    json=options.json,
                    keep=options.keep,
                    nats_binary=options.nats_binary,
                    nats_url=options.nats_url,
                ),
                nursery,
            )
        )
    except Interrupted:
        _complain("interrupted; everything is cleaned up")
        return EXIT_INTERRUPTED


def _init(options: argparse.Namespace, nursery: Nursery | None) -> int:
    wanted = InitOptions(
        home=options.home,
        name=options.name or "",
        nats_host=options.nats_host,
        nats_port=options.nats_port,
        nats_store=options.nats_store,
        nats_tls=options.nats_tls,
        nats_tls_files=options.nats_tls_files,
        nats_url=options.nats_url,
        json=options.json,
    )
    try:
        where = run(init(load(), wanted))
    except Interrupted:
        return EXIT_INTERRUPTED
    print(msgspec.json.encode(where).decode() if options.json else prepared_text(where), flush=True)
    return EXIT_OK


def _keep(options: argparse.Namespace, nursery: Nursery | None) -> int:
    try:
        run(keep(load(), once=options.once))
    except Interrupted:
        pass  # a signal is how it ends
    return EXIT_OK


_COMMANDS = {"up": _up, "demo": _demo, "init": _init, "keep": _keep}


def _complain(*lines: str) -> None:
    for line in lines:
        print(f"swarmbridge: {line}", file=sys.stderr)
