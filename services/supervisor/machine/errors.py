"""Why the supervisor gives up, as one clear line for a person."""

from __future__ import annotations

from collections.abc import Sequence

from services.supervisor.machine.processes import Child


class CannotStart(Exception):
    """One clear line, and the last words of the process that failed, if one did. The exit code is 3."""

    def __init__(self, line: str, details: Sequence[str] = ()) -> None:
        super().__init__(line)
        self.line = line
        self.details = list(details)


def failed_to_start(child: Child) -> CannotStart:
    """The error for a child that ended while it was being waited for."""
    tail = child.log_tail()
    return CannotStart(
        f"{child.program.name} ended with code {child.exit_code} while starting; its log: {child.program.log}", tail
    )
