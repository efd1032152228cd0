"""What is put: a file, a pipe, standard input. It is read as it comes; a fault in it is its own and not the node's."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.cli.failures import CliFailure, unusable
from services.cli.progress import Step
from shared.terminal.text import printable

READ_BYTES = 1024 * 1024
STDIN = "-"
STDIN_NAME = "stdin"
"""What is called so has no name of its own; --name gives it one."""
_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")


@dataclass(frozen=True, slots=True)
class PutSource:
    """An open source. length: in bytes, None where only the end will tell. shown: for people."""

    descriptor: int
    length: int | None
    shown: str

    def parts(self, step: Step) -> Iterator[bytes]:
        """Its bytes, in order. Raises: CliFailure where it changes meanwhile, or cannot be read."""
        sent = 0
        while part := self._read():
            sent += len(part)
            if self.length is not None and sent > self.length:
                raise self._changed("grew")
            yield part
            step(sent, self.length or 0, {})
        if self.length is not None and sent < self.length:
            raise self._changed("shrank")

    def _read(self) -> bytes:
        try:
            # What there is, not a whole part: a slow pipe is sent as it comes.
            return os.read(self.descriptor, READ_BYTES)
        except OSError as error:
            raise _unreadable(self.shown, error) from None

    def _changed(self, how: str) -> CliFailure:
        return CliFailure("invalid", f"{self.shown} {how} while it was sent", "put it again when it is whole")


@contextmanager
def opened(file: str) -> Iterator[PutSource]:
    """Open what a command line names; a pipe is waited for. Raises: CliFailure."""
    if file == STDIN:
        if sys.stdin is None:
            raise unusable("standard input is closed", "name a file")
        yield _described(sys.stdin.fileno(), "standard input")
        return
    shown = printable(file)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(shown, error) from None
    try:
        yield _described(descriptor, shown)
    finally:
        os.close(descriptor)


def can_be_read_again(file: str) -> bool:
    """Whether it can be sent twice: what a pipe gave is gone."""
    return file != STDIN and Path(file).is_file()


def name_of(file: str) -> str:
    """The name that a file is stored under. Names are bytes; one that is no UTF-8 could only be stored as another.

    Raises: CliFailure for such a one.
    """
    if file == STDIN or file.startswith(_DESCRIPTORS):
        return STDIN_NAME
    name = Path(file).name
    try:
        name.encode()
    except UnicodeEncodeError:
        raise unusable(
            f"the name of {printable(file)} is not UTF-8, and would lose some of its bytes",
            "give the file another name with --name",
        ) from None
    return name


def _described(descriptor: int, shown: str) -> PutSource:
    about = os.fstat(descriptor)
    # Files of /proc say 0 whatever they hold, and an empty file can be sent without a length as well.
    known = stat.S_ISREG(about.st_mode) and about.st_size > 0
    # What was read of it before (a shell's `{ read line; swarmbridge put -; } <file`) is not sent.
    read_before = os.lseek(descriptor, 0, os.SEEK_CUR) if known else 0
    return PutSource(descriptor, max(0, about.st_size - read_before) if known else None, shown)


def _unreadable(shown: str, error: OSError) -> CliFailure:
    return CliFailure("failed", f"{shown} cannot be read: {error.strerror or type(error).__name__}", "see what it is")
