"""`swarmbridge`: put and get files, and see why they went the way they did. Exit codes: services/cli/exit_codes.py."""

from __future__ import annotations

import sys

import click

from services.cli import exit_codes
from services.cli.blocklist_command import blocklist
from services.cli.failures import CliFailure, failure_of
from services.cli.file_commands import get, put
from services.cli.node_commands import demo, up, version
from services.cli.trace_command import trace
from services.cli.view_commands import flags, peers, stats
from services.cli.why_command import why


@click.group(invoke_without_command=True)
@click.pass_context
def swarmbridge(context: click.Context) -> None:
    """Move content-addressed files between nodes over whichever transport works, and see why.

    \b
    Examples:
      swarmbridge demo                       two nodes, three real transports, real faults
      swarmbridge up                         run a node here until Ctrl-C
      swarmbridge put photo.jpg              store a file, print its link
      swarmbridge get 'swarmbridge:3f2a…'    fetch a link's file into this folder
      swarmbridge trace                      the last fallback as a waterfall
      swarmbridge why 9c41d2                 why a transfer goes the way it goes
      swarmbridge blocklist add peer-3f2a…   have nothing to do with a peer

    \b
    Exit codes:
      0 done   1 it failed   2 wrong usage   3 cannot start (a taken port)
      4 no node answers      5 token refused 130 interrupted
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (up, demo, put, get, peers, blocklist, stats, flags, trace, why, version):
    swarmbridge.add_command(_command)


def run(arguments: list[str]) -> int:
    """One command line. Returns: its exit code; whatever goes wrong is said in one line."""
    try:
        swarmbridge.main(args=arguments, prog_name="swarmbridge", standalone_mode=False)
    except BrokenPipeError:
        return exit_codes.OK  # `| head` has seen enough
    except (Exception, KeyboardInterrupt) as error:
        failure: CliFailure = failure_of(error)
        failure.show(as_json="--json" in arguments)
        return failure.exit_code
    return exit_codes.OK


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
