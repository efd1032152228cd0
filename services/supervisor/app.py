"""The supervisor's command line wired to what it does, and every ending to one line and an exit code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import msgspec

from services.supervisor.init import InitOptions, init, prepared_text
from services.supervisor.keep import keep
from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.interrupts import Interrupted, run
from services.supervisor.nursery.client import Nursery
from services.supervisor.up import UpOptions, up
from shared import exit_codes
from shared.errors import ConfigError
from shared.settings.config import load


class _Problem(msgspec.Struct, frozen=True):
    """As every command tells of what went wrong."""

    code: str
    message: str
    hint: str = ""


class _Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """`--json` for what could not even start. ok, reason: of a demo's document."""

    error: _Problem
    ok: bool | None = None
    reason: str | None = None


def main(options: argparse.Namespace, nursery: Nursery | None = None) -> int:
    """Do what the command line says; nursery: one that is loading already, for `up` and `demo`.

    Returns: the exit code: 0, 1 (demo: it did not hold), 2 bad settings, 3 could not start, 130 interrupted.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return _COMMANDS[options.command](options, nursery)
    except CannotStart as error:
        _complain(options, _Problem("cannot_start", error.line), [error.line], error.details)
        return exit_codes.CANNOT_START
    except ConfigError as error:
        problem = _Problem(error.cause.value, "; ".join(error.problems), "correct these settings")
        _complain(options, problem, error.problems)
        return exit_codes.USAGE


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
    return exit_codes.OK


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
        message = "interrupted; everything is cleaned up"
        _complain(options, _Problem("interrupted", message), [message])
        return exit_codes.INTERRUPTED


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
        return exit_codes.INTERRUPTED
    print(msgspec.json.encode(where).decode() if options.json else prepared_text(where), flush=True)
    return exit_codes.OK


def _keep(options: argparse.Namespace, nursery: Nursery | None) -> int:
    try:
        run(keep(load(), once=options.once))
    except Interrupted:
        pass  # a signal is how it ends
    return exit_codes.OK


_COMMANDS = {"up": _up, "demo": _demo, "init": _init, "keep": _keep}


def _complain(
    options: argparse.Namespace, problem: _Problem, lines: Sequence[str], details: Sequence[str] = ()
) -> None:
    """In lines on stderr, or with --json as one object on stdout; details: a log's last lines, for people alone."""
    if getattr(options, "json", False):
        of_demo = options.command == "demo"
        failure = _Failure(problem, *((False, problem.message) if of_demo else ()))
        print(msgspec.json.encode(failure).decode(), flush=True)
    else:
        for line in lines:
            print(f"error: {line}", file=sys.stderr)
    for line in details:
        print(f"  | {line}", file=sys.stderr)
