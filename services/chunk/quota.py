"""Room in the store: a put or fetch that would not fit is refused before its first chunk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.chunk.holdings import Holdings
from shared.content.chunks import TAG_BYTES
from shared.content.manifest import chunk_count
from shared.errors import Cause, SwarmbridgeError

STORED_OVERHEAD_BYTES = TAG_BYTES + 2048
"""A chunk's tag and header at their longest, beside its plaintext."""


class Room:
    """What a running transfer still needs; it shrinks with each chunk that is stored, which then counts as used."""

    def __init__(self, plain_bytes: int) -> None:
        self.promised_bytes = plain_bytes + chunk_count(plain_bytes) * STORED_OVERHEAD_BYTES

    def stored(self, plain_bytes: int) -> None:
        """A chunk of so many bytes is in the store now."""
        # Not below 0: a chunk that came twice would give room that nobody has.
        self.promised_bytes = max(0, self.promised_bytes - plain_bytes - STORED_OVERHEAD_BYTES)


class Quota:
    """quota_bytes: for everything that the store holds.

    Room promised to running transfers counts as used. Instances do not know each other's promises, so several that
    start large transfers at once may pass the quota by as much as those transfers hold.
    """

    def __init__(self, holdings: Holdings, quota_bytes: int) -> None:
        self._holdings = holdings
        self._rooms: set[Room] = set()
        self.quota_bytes = quota_bytes

    @property
    def used_bytes(self) -> int:
        return self._holdings.used_bytes

    @property
    def promised_bytes(self) -> int:
        return sum(room.promised_bytes for room in self._rooms)

    @asynccontextmanager
    async def room_for(self, plain_bytes: int) -> AsyncIterator[Room]:
        """Keep room for a file while the block runs.

        Raises: SwarmbridgeError(STORE_FULL): it does not fit.
        """
        room = Room(plain_bytes)
        if self.used_bytes + self.promised_bytes + room.promised_bytes > self.quota_bytes:
            raise SwarmbridgeError(Cause.STORE_FULL, "the store has no room for it")
        self._rooms.add(room)
        try:
            yield room
        finally:
            self._rooms.remove(room)
