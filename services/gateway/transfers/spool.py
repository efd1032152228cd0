"""Uploads on disk for the time it takes to store them.

A spool file loses its name as soon as it is open: whatever ends this process, SIGKILL included, the disk
gets the space back. Only a crash between the two leaves a (still empty) file, which `sweep` removes at the
next start; a second gateway on the same home keeps its open files.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from services.gateway.transfers import limits
from shared.errors import Cause, SwarmbridgeError

# Disk writes are handed to a thread in pieces of about this size: fewer hops than one a network read.
WRITE_BYTES = 1 * limits.MIB
DIRECTORY_MODE = 0o700
PREFIX = "upload-"

T = TypeVar("T")


class Spool:
    """The folder `<home>/spool`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def sweep(self) -> None:
        """Make the folder, private, and remove what an earlier process left in it."""
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        # A folder that was there already, or a umask, may have left it open to others.
        self._directory.chmod(DIRECTORY_MODE)
        for path in self._directory.glob(PREFIX + "*"):
            with suppress(FileNotFoundError):
                path.unlink()

    def open(self) -> SpoolFile:
        """A new file, readable by this process alone. Raises: OSError."""
        descriptor, name = tempfile.mkstemp(prefix=PREFIX, dir=self._directory)  # 0600
        with suppress(FileNotFoundError):  # another gateway's sweep was quicker
            Path(name).unlink()
        return SpoolFile(descriptor)


class SpoolFile:
    """One upload: written once, then read by ranges until it is closed.

    *Cancellation*: a thread at work on the file keeps it open until it is done, whoever has given up waiting;
    otherwise it could write to another file that got the same descriptor.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._threads_at_work = 0
        self._closing = False
        self.length = 0

    async def write_all(self, parts: AsyncIterator[bytes], max_bytes: int) -> None:
        """Take everything that comes.

        Raises: SwarmbridgeError(TOO_LARGE) after max_bytes, (TIMEOUT) when nothing comes for
            limits.UPLOAD_STALL_S, (DISK_FULL) when it is, (BUSY) when the disk takes nothing; what `parts` raises.
            Close the file then.
        """
        waiting = bytearray()
        while (part := await _next_part(parts)) is not None:
            waiting += part
            if self.length + len(waiting) > max_bytes:
                raise SwarmbridgeError(Cause.TOO_LARGE, "the upload is larger than gateway.max_upload_bytes")
            # The next part is read when the disk has taken this one: that is the back-pressure on the socket.
            if len(waiting) >= WRITE_BYTES:
                await self._append(bytes(waiting))
                waiting.clear()
        if waiting:
            await self._append(bytes(waiting))

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises: SwarmbridgeError(SOURCE_LOST), also once closed."""
        try:
            data = await self._in_thread(lambda: os.pread(self._descriptor, length, offset))
        except OSError as error:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the spool cannot be read") from error
        if len(data) != length:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the spool is shorter than it was")
        return data

    def close(self) -> None:
        """Give the space back, now or when the last thread is done with it. Idempotent."""
        if not self._closing:
            self._closing = True
            self._close_if_idle()

    async def _append(self, data: bytes) -> None:
        try:
            await self._in_thread(lambda: _write_fully(self._descriptor, data))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise SwarmbridgeError(Cause.DISK_FULL if full else Cause.BUSY, "the spool cannot be written") from error
        self.length += len(data)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._closing:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "the upload is gone")
        self._threads_at_work += 1
        future = asyncio.get_running_loop().run_in_executor(None, work)
        future.add_done_callback(self._thread_done)
        # The thread cannot be stopped: cancelled, we stop waiting for it, and `close` waits in our stead.
        return await asyncio.shield(future)

    def _thread_done(self, future: asyncio.Future[T]) -> None:
        _ = future.cancelled() or future.exception()  # read, so that asyncio does not report it
        self._threads_at_work -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._closing and not self._threads_at_work and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def _next_part(parts: AsyncIterator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(limits.UPLOAD_STALL_S):
            return await anext(parts, None)
    except TimeoutError:
        raise SwarmbridgeError(Cause.TIMEOUT, "the upload stood still") from None


def _write_fully(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        # `os.write` may take a part only: at 2 GiB, or on a disk that is nearly full.
        view = view[os.write(descriptor, view) :]
