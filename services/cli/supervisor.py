"""`up`, `demo` and `init` are the supervisor's: its command line is read there, its signals and exit codes are its own.

Standard library alone: these commands become another program, and need nothing of this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

SUPERVISOR = "services.supervisor"
COMMANDS = {
    "up": "Run one node on this machine until Ctrl-C.",
    "demo": "Two nodes, three real transports, real faults.",
    "init": "Prepare a home that something else runs.",
}
"""Command -> what the list of all commands says of it."""


def become(arguments: Sequence[str]) -> None:
    """Replace this process by the supervisor; arguments: its command line, the command first. Does not return."""
    sys.stdout.flush()
    # -P: never import from whatever directory we were started in.
    os.execv(sys.executable, [sys.executable, "-P", "-m", SUPERVISOR, *arguments])  # noqa: S606 - ourselves
