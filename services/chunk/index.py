"""The manifest index in JetStream KV: what the node holds, the same in every chunk instance.

    m.<digest>            -> FileSummary, msgpack
    f.<base32 of fileId>  -> the digest that the alias stands for

The store is the truth and the index can be made again from it. Each instance also keeps, from a watch of the
bucket, the content class of every ref: that is what a peer's request for a chunk is authorised by.

A ref that stands in two manifests has the stricter class: a stranger's manifest that lists our refs as
`shared` opens nothing.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging

import msgspec

from services.chunk.store import ChunkStore
from shared.bus.contract import KeyValue, KvEntry, Subscription
from shared.content.manifest import ContentClass, Manifest
from shared.content.refs import is_digest
from shared.errors import Cause, SwarmbridgeError
from shared.undecodable import UNDECODABLE

MANIFEST_PREFIX = "m."
ALIAS_PREFIX = "f."
LOAD_WAIT_S = 1.0
"""How long a request for an unknown ref waits for manifests that are being read: they may have just come."""

STRICTNESS = (ContentClass.SHARED, ContentClass.MESH, ContentClass.PRIVATE)

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
    """Files by digest and by alias, and classes of refs.

    Driven by: the bucket's watch; `run` loads the manifests that it names, in the background.
    """

    def __init__(self, bucket: KeyValue, store: ChunkStore) -> None:
        self._bucket = bucket
        self._store = store
        self._summaries: dict[str, FileSummary] = {}
        self._aliases: dict[str, str] = {}
        self._classes: dict[str, ContentClass] = {}
        self._loaded: set[str] = set()
        self._to_load: asyncio.Queue[str] = asyncio.Queue()
        self._watch: Subscription | None = None

    async def start(self) -> None:
        """Watch the bucket, and index again whatever the store has and the bucket lost."""
        self._watch = await self._bucket.watch(self._on_entry)
        for digest in await self._store.manifest_digests():
            if digest not in self._summaries:
                await self._restore(digest)

    async def run(self) -> None:
        """Load manifests for the classes of their refs, until cancelled."""
        while True:
            digest = await self._to_load.get()
            try:
                manifest = await self._store.get_manifest(digest)
                if manifest is not None:
                    self._learn(manifest)
            except SwarmbridgeError as error:
                log.warning("a manifest could not be read: %s", error.cause)
            finally:
                self._to_load.task_done()

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()

    async def add(self, manifest: Manifest, *, complete: bool, stored_ms: int) -> None:
        """Index a stored manifest, or note that it is complete now.

        Raises: SwarmbridgeError(REFUSED): another signer's manifest already has this fileId (TRUST 5).
        """
        await self._claim_alias(manifest)
        self._learn(manifest)
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
        self._summaries[manifest.digest] = summary
        await self._bucket.put(MANIFEST_PREFIX + manifest.digest, msgspec.msgpack.encode(summary))

    def files(self) -> list[FileSummary]:
        """Every file, newest first."""
        return sorted(self._summaries.values(), key=lambda summary: summary.stored_ms, reverse=True)

    async def find(self, manifest_id: str) -> FileSummary | None:
        """The file of a digest or a fileId; asks the bucket where the watch has not told yet."""
        digest = manifest_id
        if not is_digest(manifest_id):
            alias = self._aliases.get(_alias_key(manifest_id)) or await self._read_alias(manifest_id)
            if alias is None:
                return None
            digest = alias
        if digest in self._summaries:
            return self._summaries[digest]
        entry = await self._bucket.get(MANIFEST_PREFIX + digest)
        return _decode_summary(entry.value) if entry is not None and entry.value is not None else None

    async def class_of(self, ref: str) -> ContentClass | None:
        """Who may have this chunk; None where no indexed manifest lists it."""
        if ref not in self._classes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOAD_WAIT_S):
                    await self._to_load.join()
        return self._classes.get(ref)

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
            self._summaries.pop(digest, None)
            return
        self._summaries[digest] = summary
        if digest not in self._loaded:
            self._to_load.put_nowait(digest)

    def _learn(self, manifest: Manifest) -> None:
        if manifest.digest in self._loaded:
            return
        self._loaded.add(manifest.digest)
        for ref in manifest.chunks:
            known = self._classes.get(ref, ContentClass.SHARED)
            self._classes[ref] = max(known, manifest.content_class, key=STRICTNESS.index)

    async def _claim_alias(self, manifest: Manifest) -> None:
        key = _alias_key(manifest.file_id)
        if await self._bucket.create(key, manifest.digest.encode()) is not None:
            return
        digest = await self._read_alias(manifest.file_id)
        if digest == manifest.digest or digest is None:
            return
        other = await self.find(digest)
        if other is not None and other.signer != manifest.signer:
            raise SwarmbridgeError(Cause.REFUSED, "two signers for one fileId")
        # The same signer wrote a newer manifest of its file.
        await self._bucket.put(key, manifest.digest.encode())

    async def _read_alias(self, file_id: str) -> str | None:
        entry = await self._bucket.get(_alias_key(file_id))
        return entry.value.decode(errors="replace") if entry is not None and entry.value is not None else None

    async def _restore(self, digest: str) -> None:
        manifest = await self._store.get_manifest(digest)
        if manifest is None:
            return
        stored = await self._store.stored_among(manifest.chunks)
        stored_ms = await self._store.manifest_stored_ms(digest)
        try:
            await self.add(manifest, complete=len(stored) == len(manifest.chunks), stored_ms=stored_ms)
        except SwarmbridgeError as error:
            if error.cause is not Cause.REFUSED:
                raise
            log.warning("a stored manifest has the fileId of another signer's: not indexed")


def _alias_key(file_id: str) -> str:
    return ALIAS_PREFIX + base64.b32encode(file_id.encode()).decode().rstrip("=").lower()


def _decode_summary(value: bytes) -> FileSummary | None:
    try:
        return msgspec.msgpack.decode(value, type=FileSummary)
    except UNDECODABLE:
        log.warning("an index entry does not decode")
        return None
