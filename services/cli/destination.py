"""Where a fetched file goes.

A name is taken in one step, by a call that fails where it is taken already: what was looked at before a transfer may be
somebody else's file when it ends. Until then the bytes are in a draft beside it.

    Stream      standard output, a pipe, a device: written into as it is, never replaced
    NewFile     a name that must be free, or whose file gives way
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.cli.failures import CliFailure, unusable
from shared.terminal.text import printable

STDOUT = "-"
PRIVATE_MODE = 0o600
SHARED_MODE = 0o666
"""Before the umask takes its part."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems answer that have no hard links: FAT, exFAT, some over the network."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Stream:
    """path: None for standard output."""

    path: Path | None


@dataclass(frozen=True, slots=True)
class NewFile:
    """path: as it was asked for. replaces: what is there under that name gives way."""

    path: Path
    replaces: bool


Destination = Stream | NewFile


def check(output: str | None, *, force: bool) -> None:
    """Say what can be said before anything is fetched. Raises: as `destination`."""
    if output is not None and not _is_folder(output):
        destination(output, "", force=force)


def destination(output: str | None, name: str, *, force: bool) -> Destination:
    """Where to write.

    Args:     output: what -o says, None for this folder. name: the file's own, for a folder.
    Raises:   CliFailure where the name is taken (and not to be replaced), or there is no folder for it.
    """
    if output == STDOUT:
        if sys.stdout is None:
            raise unusable("standard output is closed", "name a file with -o")
        return Stream(None)
    path = Path(output).expanduser() if output else Path(name)
    if output and _is_folder(output):
        path /= name
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not path.parent.is_dir():
            raise CliFailure(
                "not_found", f"there is no folder {printable(str(path.parent))}", "make it, or name another with -o"
            ) from None
    else:
        if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
            return Stream(path)
        if not stat.S_ISREG(mode):
            raise CliFailure("exists", f"{printable(str(path))} is no file", "name another with -o")
    if not force and os.path.lexists(path):  # a symbolic link that leads nowhere is there too
        raise _taken(path)
    return NewFile(path, replaces=force)


@contextmanager
def written(target: Destination) -> Iterator[BinaryIO]:
    """A file to write to. What was written is under its name when this ends, and nowhere when it is left by an error.

    Raises: CliFailure where it cannot be written, or its name was taken in the meantime; BrokenPipeError where whoever
        read standard output has seen enough.
    """
    if isinstance(target, NewFile):
        with _translated(target.path), _draft(target) as file:
            yield file
    elif target.path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with _translated(target.path), open(target.path, "wb", opener=_never_made) as file:
            yield file


@contextmanager
def _draft(target: NewFile) -> Iterator[BinaryIO]:
    # To replace what a symbolic link leads to is to leave the link as it is.
    path = Path(os.path.realpath(target.path)) if target.replaces else target.path
    # Named before it is made: an interrupt between the two must not leave it behind.
    draft = path.parent / f".swarmbridge-{secrets.token_hex(8)}.part"
    try:
        with open(draft, "xb", opener=_private) as file:
            yield file
        os.chmod(draft, _mode(path))
        if target.replaces:
            os.replace(draft, path)
        else:
            _take_name(draft, path)
    finally:
        with suppress(OSError):
            os.unlink(draft)


def _take_name(draft: Path, path: Path) -> None:
    """Give the draft's content a name that must be free. Raises: FileExistsError."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy_to(draft, path)


def _copy_to(draft: Path, path: Path) -> None:
    """Without links a name can be taken by making it. Half a file has it for as long as copying takes, if we are killed
    for good; nothing is ever overwritten."""
    with open(draft, "rb") as source, open(path, "xb") as file:
        try:
            shutil.copyfileobj(source, file)
            file.flush()
        except BaseException:
            os.unlink(path)
            raise


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What the file system refuses, in words. The node and the network raise other errors."""
    try:
        yield
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        full = error.errno in _FULL
        raise CliFailure(
            "disk_full" if full else "failed",
            f"{printable(str(path))} cannot be written: {error.strerror or type(error).__name__}",
            "free some space, or name another place with -o" if full else "name another place with -o",
        ) from None


def _taken(path: Path) -> CliFailure:
    return CliFailure("exists", f"{printable(str(path))} is already there", "name another with -o, or add --force")


def _is_folder(output: str) -> bool:
    return output.endswith(os.sep) or Path(output).expanduser().is_dir()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_MODE)


def _never_made(path: str, flags: int) -> int:
    """A device or a pipe that has gone must not become a file."""
    return os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC))


def _mode(path: Path) -> int:
    """Of the file that gives way, or what a new one gets."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return SHARED_MODE & ~mask
