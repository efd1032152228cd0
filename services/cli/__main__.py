"""`swarmbridge`: put and get files, and see why they went the way they did. Exit codes: services/cli/exit_codes.py."""

from __future__ import annotations

import sys

from services.cli import supervisor


def run(arguments: list[str]) -> int:
    """One command line. Returns: its exit code; whatever goes wrong is said in one line."""
    from services.cli import exit_codes
    from services.cli.commands import swarmbridge
    from services.cli.failures import failure_of

    try:
        swarmbridge.main(args=arguments, prog_name="swarmbridge", standalone_mode=False)
    except BrokenPipeError:
        return exit_codes.OK  # `| head` has seen enough
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error)
        failure.show(as_json="--json" in arguments)
        return failure.exit_code
    return exit_codes.OK


def main() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in supervisor.COMMANDS:
        supervisor.become(arguments)  # before click is loaded, which they do not use
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
