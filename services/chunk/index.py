"""The manifest index in JetStream KV: what the node holds, the same in every chunk instance.

    m.<digest>            -> FileSummary, msgpack
    f.<base32 of fileId>  -> the digest that the alias stands for

The store is the truth and the index can be made again from it. Each instance also learns, from a watch of the
bucket, which refs the manifests name: that is what a peer's request for a chunk is authorised by.

Peers are answered from memory alone: nothing that a peer asks for makes this process ask the bus.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import msgspec

from services.chunk.classes import RefClasses
from services.chunk.quota import STORED_OVERHEAD_BYTES
from services.chunk.store import ChunkStore
from shared.backoff import delays_s
from shared.bus.contract import KeyValue, KvEntry, Subscription
from shared.clock import monotonic
from shared.content.manifest import ContentClass, Manifest, is_manifest_id
from shared.content.refs import is_digest
from shared.errors import BusError, BusTimeout, BusUnavailable, Cause, SwarmbridgeError
from shared.undecodable import UNDECODABLE

MANIFEST_PREFIX = "m."
ALIAS_PREFIX = "f."
MAX_FILES = 50_000
"""Files of one node. A summary, an alias and their copies in memory take up to 4 KiB; the bucket holds 64 MiB."""
LOAD_WAIT_S = 1.0
"""How long a request for an unknown ref waits for manifests that are being read: they may have just come."""
LOOK_UP_TIMEOUT_S = 1.0
"""How long our own user waits for the bucket, where the watch has not reported a file; then it is not known here."""
BUS_STALL_S = 60.0
"""How long an entry is written again while the bus is away: as long as a fetch may stand still."""
RETRY_FIRST_S = 0.05
RETRY_CAP_S = 2.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class FileSummary(msgspec.Struct, array_like=True, frozen=True):
    """One file. complete: every chunk has been stored here. signer: Ed25519, 32 bytes."""

    digest: str
    file_id: str
    name: str
    mime: str
    size: int
    chunks_total: int
    content_class: str
    stored_ms: int
    complete: bool
    signer: bytes


class ManifestIndex:
    """Files by digest and by alias, and classes of refs. own_signer: the key that signs this node's manifests.

    Driven by: the bucket's watch; `run` loads the manifests that it names, in the background.
    """

    def __init__(self, bucket: KeyValue, store: ChunkStore, own_signer: bytes) -> None:
        self._bucket = bucket
        self._store = store
        self._summaries: dict[str, FileSummary] = {}
        self._aliases: dict[str, str] = {}
        self._classes = RefClasses(own_signer)
        self._removing: set[str] = set()
        self.changes = 0
        """Grows with every change of a summary: whoever lists them looks again."""
        # Distinct digests of entries, so never more than there are files.
        self._to_load: dict[str, None] = {}
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._watch: Subscription | None = None

    async def start(self) -> None:
        """Watch the bucket, and index again whatever the store has and the bucket lost."""
        self._watch = await self._bucket.watch(self._on_entry, restore=True)
        for digest in (await self._store.list_all()).manifests:
            if digest not in self._summaries:
                await self._restore(digest)

    async def run(self) -> None:
        """Load manifests for the classes of their refs, until cancelled."""
        while True:
            while not self._to_load:  # one that came may be removed again before we run
                self._idle.set()
                self._wanted.clear()
                await self._wanted.wait()
            digest = next(iter(self._to_load))
            try:
                await self.load(digest)
            except SwarmbridgeError as error:
                log.warning("a manifest could not be read: %s", error.cause)  # the sweep reads it again
            finally:
                self._to_load.pop(digest, None)

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()

    async def add(self, manifest: Manifest, *, complete: bool, stored_ms: int) -> None:
        """Index a stored manifest, or note that it is complete now. A bus that is away is waited for.

        Raises: SwarmbridgeError: REFUSED where another signer's manifest already has this fileId, STORE_FULL over
            MAX_FILES; BusError where the bus was away for BUS_STALL_S.
        """
        if manifest.digest not in self._summaries:
            self.check_room()
        await self._claim_alias(manifest)
        # Before the entry is written: its own watch finds it learnt, and reads no manifest for it.
        self._classes.learn(manifest, stored_ms)
        summary = FileSummary(
            manifest.digest,
            manifest.file_id,
            manifest.original_name,
            manifest.mime,
            manifest.size,
            len(manifest.chunks),
            manifest.content_class,
            stored_ms,
            complete,
            manifest.signer,
        )
        self._note(summary)
        entry = msgspec.msgpack.encode(summary)
        await _patiently(lambda: self._bucket.put(MANIFEST_PREFIX + manifest.digest, entry))

    def check_room(self) -> None:
        """Raises: SwarmbridgeError(STORE_FULL) where the node has as many files as it may have."""
        if len(self._summaries) >= MAX_FILES:
            raise SwarmbridgeError(Cause.STORE_FULL, "the node has too many files")

    async def remove(self, summary: FileSummary) -> list[str]:
        """Forget a file. Returns: the refs that nobody names now.

        The store still has its manifest and chunks: the caller removes both, then says `removed`.

        Raises: BusError where the bus was away for BUS_STALL_S.
        """
        alias, digest = _alias_key(summary.file_id), summary.digest
        if digest not in self._classes:
            await self.load(digest)
        self._removing.add(digest)
        # First, so that the watch, which reports our own entry too, finds nothing left to forget.
        orphans = self._classes.forget(digest)
        try:
            # Only where it still stands for this file: the same signer may have given it to a newer one.
            if await self._read_alias(summary.file_id) == digest:
                await _patiently(lambda: self._bucket.delete(alias))
            await _patiently(lambda: self._bucket.delete(MANIFEST_PREFIX + digest))
        except BusError:
            # The file is still there for everybody else: what was forgotten of it is learnt again.
            self._load_soon(digest)
            self._removing.discard(digest)
            raise
        self._drop(digest)
        return orphans

    def removed(self, digest: str) -> None:
        """The store no longer has this manifest."""
        self._removing.discard(digest)

    def __len__(self) -> int:
        return len(self._summaries)

    def __iter__(self) -> Iterator[FileSummary]:
        """Every file, in no order; not to be kept over an await."""
        return iter(self._summaries.values())

    def files(self) -> list[FileSummary]:
        """Every file, newest first."""
        return sorted(self._summaries.values(), key=lambda summary: summary.stored_ms, reverse=True)

    def known(self, manifest_id: str) -> FileSummary | None:
        """The file of a digest or a fileId, as far as the watch has reported: at once."""
        if not is_manifest_id(manifest_id):
            return None
        digest = manifest_id if is_digest(manifest_id) else self._aliases.get(_alias_key(manifest_id), "")
        return self._summaries.get(digest)

    async def find(self, manifest_id: str) -> FileSummary | None:
        """As `known`, and asks the bucket for LOOK_UP_TIMEOUT_S where the watch may be behind: of a file that
        another instance has added, or has completed. For our own user.
        """
        known = self.known(manifest_id)
        if (known is not None and known.complete) or not is_manifest_id(manifest_id):
            return known
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                return await self._look_up(manifest_id)
        except (TimeoutError, BusError):
            return known

    async def class_of(self, ref: str) -> ContentClass | None:
        """Who may have this chunk; None where no indexed manifest lists it."""
        if not self._classes.is_named(ref) and self._to_load:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOAD_WAIT_S):
                    # As long as anything is being read: the ref may be in any of it.
                    await self._idle.wait()
        return self._classes.of(ref)

    def is_named(self, ref: str) -> bool:
        """Whether a manifest that has been loaded names this chunk."""
        return self._classes.is_named(ref)

    def is_loaded(self, digest: str) -> bool:
        return digest in self._classes

    async def learn(self, digest: str) -> None:
        """Index a manifest that stands in the store, unless it is, and learn its refs.

        Raises: SwarmbridgeError where the store cannot be used; BusError.
        """
        if digest in self._classes or digest in self._removing:
            return
        if digest in self._summaries:
            await self.load(digest)
        else:
            await self._restore(digest)

    async def load(self, digest: str) -> None:
        """Learn the refs of an indexed manifest, and that its chunks are stored where it is complete.

        Raises: SwarmbridgeError where the store cannot be used.
        """
        manifest = await self._store.get_manifest(digest)
        summary = self._summaries.get(digest)
        if manifest is None or summary is None or digest in self._removing:  # removed while it was read
            return
        if digest not in self._classes:
            self._classes.learn(manifest, summary.stored_ms)
        if summary.complete:
            for seq, ref in enumerate(manifest.chunks):
                self._store.holdings.expect(ref, manifest.chunk_size(seq) + STORED_OVERHEAD_BYTES)

    async def _look_up(self, manifest_id: str) -> FileSummary | None:
        digest = manifest_id if is_digest(manifest_id) else await self._read_alias(manifest_id)
        if digest is None or not is_digest(digest):
            return None
        entry = await self._bucket.get(MANIFEST_PREFIX + digest)
        return _decode_summary(entry.value) if entry is not None and entry.value is not None else None

    def _on_entry(self, entry: KvEntry) -> None:
        if entry.key.startswith(ALIAS_PREFIX):
            if entry.value is None:
                self._aliases.pop(entry.key, None)
            else:
                self._aliases[entry.key] = entry.value.decode(errors="replace")
            return
        digest = entry.key.removeprefix(MANIFEST_PREFIX)
        summary = _decode_summary(entry.value) if entry.value is not None else None
        if summary is None:
            self._forget(digest)
            return
        before = self._summaries.get(digest)
        self._note(summary)
        # Completed elsewhere: its chunks are in the store, and nothing else would tell of them.
        completed = summary.complete and before is not None and not before.complete
        if completed or digest not in self._classes:
            self._load_soon(digest)

    def _note(self, summary: FileSummary) -> None:
        if self._summaries.get(summary.digest) != summary:
            self.changes += 1
        self._summaries[summary.digest] = summary

    def _drop(self, digest: str) -> None:
        if self._summaries.pop(digest, None) is not None:
            self.changes += 1

    def _load_soon(self, digest: str) -> None:
        self._to_load[digest] = None
        self._idle.clear()
        self._wanted.set()

    def _forget(self, digest: str) -> None:
        """It was removed, here or by another instance, which has removed the chunks too."""
        self._drop(digest)
        self._to_load.pop(digest, None)
        self._store.holdings.remove(digest)
        for ref in self._classes.forget(digest):
            self._store.holdings.remove(ref)

    async def _claim_alias(self, manifest: Manifest) -> None:
        key, value = _alias_key(manifest.file_id), manifest.digest.encode()
        # Where an answer was lost and the entry is ours after all, it is read as such below.
        if await _patiently(lambda: self._bucket.create(key, value)) is not None:
            return
        digest = await self._read_alias(manifest.file_id)
        # None: it was removed in this moment, and whoever removes a file takes its alias along.
        if digest == manifest.digest or digest is None:
            return
        other = await self.find(digest)
        if other is not None and other.signer != manifest.signer:
            raise SwarmbridgeError(Cause.REFUSED, "two signers for one fileId")
        # The same signer wrote a newer manifest of its file.
        await _patiently(lambda: self._bucket.put(key, value))

    async def _read_alias(self, file_id: str) -> str | None:
        entry = await _patiently(lambda: self._bucket.get(_alias_key(file_id)))
        return entry.value.decode(errors="replace") if entry is not None and entry.value is not None else None

    async def _restore(self, digest: str) -> None:
        manifest = await self._store.get_manifest(digest)
        if manifest is None:
            return
        stored = self._store.holdings.among(manifest.chunks)
        stored_ms = await self._store.manifest_stored_ms(digest)
        try:
            await self.add(manifest, complete=len(stored) == len(manifest.chunks), stored_ms=stored_ms)
        except SwarmbridgeError as error:
            if error.cause not in (Cause.REFUSED, Cause.STORE_FULL):
                raise
            log.warning("a stored manifest has another signer's fileId, or is one too many: not indexed")


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the bus, again while it is away. What is asked must be right to do twice."""
    give_up_s = monotonic() + BUS_STALL_S
    for delay_s in delays_s(RETRY_FIRST_S, RETRY_CAP_S):
        try:
            return await ask()
        except (BusUnavailable, BusTimeout):
            if monotonic() + delay_s > give_up_s:
                raise
        await asyncio.sleep(delay_s)
    raise AssertionError("delays never end")


def _alias_key(file_id: str) -> str:
    return ALIAS_PREFIX + base64.b32encode(file_id.encode()).decode().rstrip("=").lower()


def _decode_summary(value: bytes) -> FileSummary | None:
    try:
        return msgspec.msgpack.decode(value, type=FileSummary)
    except UNDECODABLE:
        log.warning("an index entry does not decode")
        return None
