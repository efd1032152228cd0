"""How a command fails: one line on stderr, `error: …; do …`, or with --json `{"error": {…}}` on stdout.

    CliFailure      code (a word), what happened, what to do, and the exit code

Everything else is translated into it here, once; no traceback reaches the person at the terminal.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from shared import exit_codes
from shared.errors import ConfigError, SwarmbridgeError
from shared.gateway_api.errors import GatewayError, NotOurs, NotRunning, Refused


class CliFailure(Exception):
    """A command that cannot go on. code: a cause, or a word of the API's; hint: what to do, as an imperative.

    beside: what had been done by then, which `--json` prints beside the error.
    """

    def __init__(self, code: str, message: str, hint: str = "", exit_code: int = exit_codes.FAILED) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.beside: dict[str, Any] = {}

    def show(self, *, as_json: bool) -> None:
        if as_json:
            error = {"code": self.code, "message": self.message, "hint": self.hint}
            print(json.dumps({**self.beside, "error": error}))
        else:
            line = f"error: {self.message}" + (f"; {self.hint}" if self.hint else "")
            print(" ".join(line.split()), file=sys.stderr)


def failure_of(error: BaseException) -> CliFailure:
    """Any exception that ended a command, in words."""
    match error:
        case CliFailure():
            return error
        case GatewayError():
            return _of_gateway(error)
        case click.UsageError():
            return _usage(error)
        case click.ClickException():
            return CliFailure("failed", error.format_message().rstrip("."))
        case click.Abort() | KeyboardInterrupt():
            return CliFailure("interrupted", "interrupted", exit_code=exit_codes.INTERRUPTED)
        case ConfigError():
            return CliFailure(error.cause.value, "; ".join(error.problems), "correct these settings", exit_codes.USAGE)
        case SwarmbridgeError():
            return CliFailure(error.cause.value, str(error))
        case OSError():
            where = f" {error.filename}" if error.filename else ""
            return CliFailure("failed", f"{error.strerror or type(error).__name__}{where}".strip())
        case _:
            return CliFailure("other", f"swarmbridge itself failed ({type(error).__name__})", "please report this")


def unusable(message: str, hint: str = "") -> CliFailure:
    """Wrong usage that click could not see."""
    return CliFailure("usage", message, hint, exit_codes.USAGE)


def _of_gateway(error: GatewayError) -> CliFailure:
    match error:
        case NotRunning():
            exit_code = exit_codes.NOT_RUNNING
        case NotOurs():
            exit_code = exit_codes.REFUSED
        case Refused() if error.is_about_the_token:
            exit_code = exit_codes.REFUSED
        case _:
            exit_code = exit_codes.FAILED
    return CliFailure(error.code, error.message, error.hint, exit_code)


def _usage(error: click.UsageError) -> CliFailure:
    path = error.ctx.command_path if error.ctx is not None else "swarmbridge"
    return unusable(error.format_message().rstrip("."), f"see `{path} --help`")
