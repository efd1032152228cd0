"""The log of one supervised program: what a crashed process said last is still there when the next one runs.

A run begins with an empty file; the run before is `<name>.1`. A restart goes on in the same file, under a line
that says so. A file that has grown too long moves to `<name>.1` as well, so a program never has more than two.
"""

from __future__ import annotations

import logging
import os
import shutil
from datetime import datetime
from pathlib import Path

MAX_LOG_BYTES = 8 * 2**20
"""So a program has 16 MiB of logs at most, and what it writes in LOG_CHECK_INTERVAL_S."""
LOG_MODE = 0o600
TAIL_LINES = 12
TAIL_BYTES = 8192

log = logging.getLogger(__name__)


class ProcessLog:
    """path: where the program's stdout and stderr go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._older = path.with_name(f"{path.name}.1")

    def begin_run(self) -> int:
        """Open it empty. Returns: a descriptor to append with, which the caller closes. Raises: OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            self.path.replace(self._older)
        return self._open(os.O_TRUNC)

    def go_on(self, remark: str) -> int:
        """Open it for another process of the same run. Returns: as `begin_run`. Raises: OSError."""
        descriptor = self._open()
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        os.write(descriptor, f"-- {now} {remark}\n".encode())
        return descriptor

    def bound(self) -> None:
        """Keep it from growing beyond its limit; what a process writes meanwhile may be lost."""
        try:
            if self.path.stat().st_size > MAX_LOG_BYTES:
                # Copied, not renamed: the running process holds the file open, and appends to it wherever it is.
                shutil.copyfile(self.path, self._older)
                self._older.chmod(LOG_MODE)
                os.truncate(self.path, 0)
        except OSError as error:
            log.debug("a log could not be bounded: %s", type(error).__name__)

    def tail(self) -> list[str]:
        """Its last lines, for a person who wants to know why a process failed."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if line.strip()][-TAIL_LINES:]

    def _open(self, flags: int = 0) -> int:
        # Appending, so that a process whose file is truncated goes on at its beginning and leaves no hole.
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags, LOG_MODE)
