"""`version`: this program's."""

from __future__ import annotations

import click

from services.cli.output import print_json
from shared.version import VERSION


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def version(as_json: bool) -> None:
    """Print this program's version.

    \b
    Examples:
      swarmbridge version
      swarmbridge version --json
    """
    if as_json:
        print_json({"version": VERSION})
    else:
        print(f"swarmbridge {VERSION}")
