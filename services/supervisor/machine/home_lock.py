"""One node a home: a lock that the kernel gives back however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.supervisor.machine.errors import CannotStart
from shared.gateway_api.address import read_address

LOCK_NAME = "lock"


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the home. Raises: CannotStart where another node runs in it, or it cannot be made."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(home / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"cannot use {home} as a home: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotStart(f"a node already runs in {home}{_whereabouts(home)}") from None
        yield
    finally:
        os.close(descriptor)


def _whereabouts(home: Path) -> str:
    address = read_address(home)
    return f", at {address.url}" if address is not None else ""
