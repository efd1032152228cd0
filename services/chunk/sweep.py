"""Chunks that no manifest names: what a put left whose process was killed. They are found by listing the store, and
removed once nobody can be writing the manifest that will name them.

A put names its chunks last. So while an instance has puts in flight it keeps a mark in the store and writes it again
every MARK_INTERVAL_S; chunks that nobody names are left alone while another instance's mark is fresh, or else
until they are older than any put may last. All ages are differences of times that the store itself wrote.
A fetch names its chunks first, and needs no mark.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from services.chunk.index import ManifestIndex
from services.chunk.store import ChunkStore, Listing
from shared.errors import SwarmbridgeError
from shared.tasks.owned import Tasks

MARK_INTERVAL_S = 30.0
MARK_STALE_S = 180.0
"""A mark that is older belongs to an instance that is gone; six writes of it would have failed."""
ORPHAN_AGE_S = 2 * 3600.0
"""No put lasts longer (put.PUT_TIMEOUT_S is half of it)."""
SWEEP_INTERVAL_S = 600.0
"""Listing 40,000 objects takes 0.3 s of a disk, 40 requests of S3."""
SWEEP_SOON_S = 60.0
"""When a round had to leave something for another instance's sake."""

log = logging.getLogger(__name__)


class PutsInFlight:
    """The chunks that puts of this instance have stored and not named yet."""

    def __init__(self) -> None:
        self._puts: list[set[str]] = []

    def __len__(self) -> int:
        return len(self._puts)

    def __contains__(self, ref: str) -> bool:
        return any(ref in refs for refs in self._puts)

    @contextmanager
    def begin(self) -> Iterator[set[str]]:
        """Gives a set to add each ref to before its chunk is stored."""
        refs: set[str] = set()
        self._puts.append(refs)
        try:
            yield refs
        finally:
            # By identity: two puts that have stored nothing are equal sets.
            self._puts[:] = [other for other in self._puts if other is not refs]


class Sweep:
    """Driven by: its own tasks, `run` for rounds and marks. instance: this one's name."""

    def __init__(self, store: ChunkStore, index: ManifestIndex, puts: PutsInFlight, instance: str) -> None:
        self._store = store
        self._index = index
        self._puts = puts
        self._instance = instance
        self._marked = False
        self._marking = asyncio.Lock()

    def start(self, tasks: Tasks) -> None:
        tasks.start(self._mark_forever(), name="put marks")
        tasks.start(self._sweep_forever(), name="orphan sweep")

    async def mark(self) -> None:
        """Once a put is in `PutsInFlight`, before its first chunk is stored.

        Raises: SwarmbridgeError where the store cannot be used.
        """
        async with self._marking:
            if not self._marked:
                await self._store.put_mark(self._instance)
                self._marked = True

    async def round(self) -> bool:
        """List the store, learn what other instances have written, and remove orphans.

        Returns: False where something was left because another instance may be at work on it.
        Raises: SwarmbridgeError where the store cannot be used; nothing is removed then that may be named.
        """
        await self._store.put_mark(self._instance)  # its time is the store's "now"
        # Behind the mark: its time is the store's now, and what is younger came since.
        listing = await self._store.list_all()
        named_elsewhere = await self._learn(listing)
        unnamed = {
            ref: at
            for ref, at in listing.chunks.items()
            if not self._index.is_named(ref) and ref not in named_elsewhere
        }
        # Asked now, after every await: a put may have begun while the manifests were learnt.
        orphans = [ref for ref, at in unnamed.items() if ref not in self._puts and self._may_go(at, listing)]
        if orphans:
            log.warning("%d chunks that no manifest names are removed", len(orphans))
            await self._store.delete_chunks(orphans)
        await self._store.remove_drafts()
        await self._forget_marks(listing)
        # What was left is looked at again soon: its reason is gone when another instance's mark is old.
        return len(orphans) == len(unnamed)

    async def _learn(self, listing: Listing) -> set[str]:
        """Have the index know every manifest of the store. Returns: what those name that it cannot take."""
        named: set[str] = set()
        for digest in listing.manifests:
            await self._index.learn(digest)
            if not self._index.is_loaded(digest):
                # Damaged, or a second signer's: whatever it is, nothing that stands in it is removed.
                named |= await self._store.refs_in_manifest(digest)
        return named

    def _may_go(self, at: datetime, listing: Listing) -> bool:
        now = listing.marks.get(self._instance)
        if now is None:  # another instance took our mark for that of a dead one; the next round knows the time
            return False
        # Strictly older than our mark: what was stored since may belong to a put that has begun since.
        return at < now and (not self._others(listing, now) or now - at > timedelta(seconds=ORPHAN_AGE_S))

    def _others(self, listing: Listing, now: datetime) -> bool:
        """Whether another instance has puts in flight."""
        oldest = now - timedelta(seconds=MARK_STALE_S)
        return any(name != self._instance and at >= oldest for name, at in listing.marks.items())

    async def _forget_marks(self, listing: Listing) -> None:
        now = listing.marks.get(self._instance)
        if now is None:
            return
        for name, at in listing.marks.items():
            if now - at > timedelta(seconds=MARK_STALE_S):
                await self._store.delete_mark(name)
        # The round wrote one for its time alone: with no puts in flight it says what is not so.
        await self._renew_mark()

    async def _renew_mark(self) -> None:
        """Write the mark again while there are puts, else remove it."""
        async with self._marking:
            # Set under the lock: a put that begins meanwhile waits in `mark`, and writes it again.
            self._marked = bool(self._puts)
            if self._marked:
                await self._store.put_mark(self._instance)
            else:
                await self._store.delete_mark(self._instance)

    async def _mark_forever(self) -> None:
        while True:
            await asyncio.sleep(MARK_INTERVAL_S)
            try:
                if self._marked:
                    await self._renew_mark()
            except SwarmbridgeError as error:
                log.warning("the mark of puts in flight could not be written: %s", error.cause)

    async def _sweep_forever(self) -> None:
        while True:
            clean = False
            try:
                clean = await self.round()
            except SwarmbridgeError as error:
                log.warning("orphans could not be swept: %s", error.cause)
            await asyncio.sleep(SWEEP_INTERVAL_S if clean else SWEEP_SOON_S)
