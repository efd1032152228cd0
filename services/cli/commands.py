"""Every command by name, each loaded when it is called: what one command draws with is no cost of another."""

from __future__ import annotations

import importlib
from typing import Any

import click

from services.cli import supervisor
from shared.version import VERSION

MODULES = {
    "put": "services.cli.put_command",
    "get": "services.cli.get_command",
    "ls": "services.cli.store_commands",
    "rm": "services.cli.store_commands",
    "peers": "services.cli.view_commands",
    "blocklist": "services.cli.blocklist_command",
    "stats": "services.cli.view_commands",
    "flags": "services.cli.view_commands",
    "trace": "services.cli.trace_command",
    "why": "services.cli.why_command",
    "version": "services.cli.version_command",
}
"""Command -> the module that has it, under its own name; in the order in which they are listed."""


class Commands(click.Group):
    """The group of them all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*supervisor.COMMANDS, *MODULES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in supervisor.COMMANDS:
            return _of_supervisor(cmd_name)
        if cmd_name not in MODULES:
            return None
        command: click.Command = getattr(importlib.import_module(MODULES[cmd_name]), cmd_name)
        return command


def _of_supervisor(name: str) -> click.Command:
    """A command that hands everything on as it is, `--help` too."""

    def become(rest: tuple[str, ...]) -> None:
        supervisor.become([name, *rest])

    return click.Command(
        name,
        callback=become,
        params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        add_help_option=False,
        short_help=supervisor.COMMANDS[name],
    )


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(VERSION, message="%(prog)s %(version)s")
@click.pass_context
def swarmbridge(context: click.Context) -> Any:
    """Move content-addressed files between nodes over whichever transport works, and see why.

    \b
    Examples:
      swarmbridge demo                       two nodes, three real transports, real faults
      swarmbridge up                         run a node here until Ctrl-C
      swarmbridge put photo.jpg              store a file, print its link
      swarmbridge get 'swarmbridge:3f2a…'    fetch a link's file into this folder
      swarmbridge ls                         the files that are stored, and their links
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
