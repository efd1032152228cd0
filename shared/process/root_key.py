"""`root.key`: the node's one secret, in a file that the chunk service alone reads (docs/trust.md#keys).

Several chunk instances may start at the same moment on an empty home: each writes a key of its own beside the
file and links it into place; the first link wins and everybody reads that one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from shared.content.keys import ROOT_BYTES
from shared.errors import ConfigError

ROOT_FILE = "root.key"
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


def load_or_create_root(home: Path) -> bytes:
    """The 32-byte root, made at the first start.

    Raises: ConfigError: the file has another length, others may read it, or the home cannot be written.
    """
    path = home / ROOT_FILE
    try:
        home.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        if path.stat().st_mode & 0o077:
            raise ConfigError([f"{path}: others may read it; run `chmod 600` on it"])
        root = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    if len(root) != ROOT_BYTES:
        raise ConfigError([f"{path}: must hold {ROOT_BYTES} bytes; restore it from a backup"])
    return root


def _create(path: Path) -> None:
    mine = path.with_name(f".{ROOT_FILE}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(ROOT_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces a key that another instance is already using.
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
        _sync_directory(path.parent)
    finally:
        mine.unlink()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
