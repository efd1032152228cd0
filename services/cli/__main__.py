"""`swarmbridge`: put and get files, and see why they went the way they did. Exit codes: shared/exit_codes.py."""

from __future__ import annotations

import os
import sys

from services.cli import supervisor


def run(arguments: list[str]) -> int:
    """One command line. Returns: its exit code; whatever goes wrong is said in one line."""
    from services.cli.commands import swarmbridge
    from services.cli.failures import failure_of
    from shared import exit_codes

    try:
        swarmbridge.main(args=arguments, prog_name="swarmbridge", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that is gone is no failure
    except (BrokenPipeError, SystemExit):  # the latter is click's way of saying EPIPE, and nothing else
        _silence_stdout()
        return exit_codes.OK  # `| head` has seen enough
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error)
        failure.show(as_json="--json" in arguments)
        return failure.exit_code
    return exit_codes.OK


def _silence_stdout() -> None:
    """What is still buffered has no reader: Python would complain of it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in supervisor.COMMANDS:
        supervisor.become(arguments)  # before click is loaded, which they do not use
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
