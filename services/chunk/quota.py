"""Room in the store: a put or fetch that would not fit is refused before its first chunk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.chunk.store import ChunkStore
from shared.content.chunks import TAG_BYTES
from shared.content.manifest import chunk_count
from shared.errors import Cause, SwarmbridgeError

STORED_OVERHEAD_BYTES = TAG_BYTES + 2048
"""A chunk's tag and header at their longest, beside its plaintext."""


class Quota:
    """quota_bytes: for everything that the store holds.

    Room promised to transfers under way counts as used. Instances do not know each other's promises, so
    several that start large transfers at once may pass the quota by as much as those transfers hold.
    """

    def __init__(self, store: ChunkStore, quota_bytes: int) -> None:
        self._store = store
        self._quota_bytes = quota_bytes
        self._promised_bytes = 0

    @asynccontextmanager
    async def room_for(self, plain_bytes: int) -> AsyncIterator[None]:
        """Keep room for a file while the block runs.

        Raises: SwarmbridgeError(TOO_LARGE): it does not fit.
        """
        needed = plain_bytes + chunk_count(plain_bytes) * STORED_OVERHEAD_BYTES
        self._promised_bytes += needed
        try:
            used = await self._store.used_bytes()
            if used + self._promised_bytes > self._quota_bytes:
                raise SwarmbridgeError(Cause.TOO_LARGE, "the store has no room for it")
            yield
        finally:
            self._promised_bytes -= needed
