"""Chunks and manifests as objects: a directory, or S3, GCS or Azure by URL, through one API (obstore).

    c/<2 hex>/<64 hex>   length:u16 big-endian | msgpack header of that length | cipher
    m/<64 hex>           a manifest's canonical JSON, named by its digest
    p/<instance>         this chunk instance has puts in flight (services.chunk.sweep)

Writes are atomic (obstore writes beside and renames), so all chunk instances of a node may share one store.
A read is checked against the name, unless its reader checks it: what does not fit is as good as absent and is removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec
import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from services.chunk.holdings import Holdings
from shared.content.chunks import TAG_BYTES
from shared.content.manifest import Manifest, parse_manifest, verify_manifest
from shared.content.messages import ChunkData
from shared.content.refs import REF_PREFIX, chunk_ref, refs_in
from shared.errors import Cause, ConfigError, RemoteProtocolError, SwarmbridgeError
from shared.undecodable import UNDECODABLE

HEADER_LENGTH_BYTES = 2
LIST_PAGE_OBJECTS = 1000
"""Objects of a listing that are taken at a time: S3's own page, and about 2 ms of the event loop."""
DELETE_PAGE_OBJECTS = 1000
"""Objects of one delete: S3's own limit."""
WRITE_GRACE_S = 5.0
"""How long a write whose caller was cancelled is waited for: of a chunk, on a slow disk."""
DRAFT_AGE_S = 3600.0
"""A write takes milliseconds; nobody is at work on a draft that is older."""
LARGE_MANIFEST_BYTES = 64 * 1024
"""From here on a manifest is read in a thread: one of 16,384 chunks takes 80 ms."""

log = logging.getLogger(__name__)


class StoredChunk(msgspec.Struct, array_like=True, frozen=True):
    """A stored chunk's header: all of ChunkData but the ref, which is the object's name."""

    seq: int
    total: int
    size: int
    iv: bytes
    mime: str
    name: str


@dataclass
class Listing:
    """Everything in the store, listed in the order of its fields, with the times of last writing, by its own clock."""

    chunks: dict[str, datetime] = field(default_factory=dict)
    marks: dict[str, datetime] = field(default_factory=dict)
    manifests: dict[str, datetime] = field(default_factory=dict)


class ChunkStore:
    """All objects of one node.

    Every method raises SwarmbridgeError where the store cannot be used: DISK_FULL, or STORE_FAILED.
    holdings: what is in it, as far as this instance knows; `list_all` brings it up to date.
    """

    def __init__(self, objects: ObjectStore, folder: Path | None = None) -> None:
        self._objects = objects
        self._folder = folder
        self._listing = asyncio.Lock()
        self._listings_begun = 0
        self._listings_done = 0
        self._last_listing = Listing()
        self.holdings = Holdings()

    @classmethod
    def open(cls, location: str, default: Path) -> ChunkStore:
        """location: a directory, an obstore URL (`s3://…`), or "" for `default`.

        Raises: ConfigError: no such kind of store, or a directory that cannot be made.
        """
        try:
            if "://" in location:
                return cls(from_url(location))
            folder = Path(location) if location else default
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # its files have the umask's modes
            return cls(LocalStore(folder, mkdir=True), folder)
        except (BaseError, OSError, ValueError) as error:
            raise ConfigError([f"chunk.store: cannot be opened ({type(error).__name__})"]) from error

    async def put_chunk(self, header: ChunkData, cipher: bytes | memoryview) -> None:
        """Keep a chunk that was made here or has been verified."""
        stored = msgspec.msgpack.encode(
            StoredChunk(header.seq, header.total, header.size, header.iv, header.mime, header.original_name)
        )
        # Joined: obstore takes one object's bytes at once.
        data = b"".join((len(stored).to_bytes(HEADER_LENGTH_BYTES, "big"), stored, cipher))
        await self._put(_chunk_path(header.ref), data)
        self.holdings.add(header.ref, len(data))

    async def get_chunk(self, ref: str, *, verify: bool = True) -> tuple[ChunkData, memoryview] | None:
        """Header and cipher; None where it is not stored, or no longer whole.

        verify: hash the cipher. Without it only the form is checked: for readers that check the bytes themselves.
        """
        data = await self._get(_chunk_path(ref))
        if data is None:
            self.holdings.remove(ref)  # removed behind our back: the next fetch may bring it again
            return None
        chunk = _decode_chunk(ref, data, verify=verify)
        if chunk is None:
            log.error("a stored chunk was damaged and is removed")
            await self.delete_chunks([ref])
        return chunk

    async def delete_chunks(self, refs: Iterable[str]) -> int:
        """Remove chunks; those that are absent are ignored. Returns: the bytes that they took."""
        freed_bytes = 0
        for page in _batched(refs, DELETE_PAGE_OBJECTS):
            try:
                async with _translated():
                    await obstore.delete_async(self._objects, [_chunk_path(ref) for ref in page])
            except FileNotFoundError:
                # Which one is absent is not said, nor whether the others are gone.
                for ref in page:
                    await self._delete(_chunk_path(ref))
            freed_bytes += sum(map(self.holdings.remove, page))
        return freed_bytes

    async def put_manifest(self, manifest: Manifest) -> None:
        await self._put(_manifest_path(manifest.digest), manifest.canonical)
        self.holdings.add(manifest.digest, len(manifest.canonical))

    async def get_manifest(self, digest: str) -> Manifest | None:
        """A stored manifest, its digest and signatures checked; None where it is absent or damaged."""
        data = await self._get(_manifest_path(digest))
        if data is None:
            return None
        try:
            # Checked at every read: it is what chunks are verified against.
            return await open_manifest(bytes(data), digest)
        except RemoteProtocolError:
            log.error("a stored manifest is damaged")
            return None

    async def refs_in_manifest(self, digest: str) -> set[str]:
        """Every ref that stands anywhere in a stored manifest, damaged or not."""
        data = await self._get(_manifest_path(digest))
        return refs_in(bytes(data)) if data is not None else set()

    async def delete_manifest(self, digest: str) -> None:
        await self._delete(_manifest_path(digest))
        self.holdings.remove(digest)

    async def manifest_stored_ms(self, digest: str) -> int:
        """When a manifest was stored: wall clock, ms; 0 where it is absent."""
        try:
            async with _translated():
                meta = await obstore.head_async(self._objects, _manifest_path(digest))
        except FileNotFoundError:
            return 0
        return round(meta["last_modified"].timestamp() * 1000)

    async def put_mark(self, instance: str) -> None:
        """Say that this instance has puts in flight, as of now."""
        await self._put(_mark_path(instance), b"")

    async def delete_mark(self, instance: str) -> None:
        await self._delete(_mark_path(instance))

    async def remove_drafts(self) -> int:
        """Remove what writes left that were killed: obstore writes `<name>#<number>` first, and lists no such file.

        Returns: how many. Stores behind a URL keep no half-written objects.
        """
        if self._folder is None:
            return 0
        async with _translated():
            return await asyncio.to_thread(_remove_drafts, self._folder)

    async def list_all(self) -> Listing:
        """List the store and bring `holdings` up to date: other instances write here too.

        Callers that come while a listing runs share the next one.
        """
        # Read before the lock: one that runs already may have passed what its caller has just written.
        wanted = self._listings_begun + 1
        async with self._listing:
            if self._listings_done < wanted:
                self._listings_begun += 1
                # Before the first page: what is written from here on may be in the listing or not.
                self.holdings.listing_begins()
                try:
                    self._last_listing = await self._list()
                except BaseException:
                    self.holdings.listing_failed()
                    raise
                self._listings_done = self._listings_begun
            return self._last_listing

    async def _list(self) -> Listing:
        """Chunks, then marks, then manifests: whoever made a listed chunk is seen by its mark, or has ended."""
        listing, sizes = Listing(), dict[str, int]()
        for prefix, found in (("c", listing.chunks), ("p", listing.marks), ("m", listing.manifests)):
            async with _translated():
                # A page at a time, so that the loop gets its turn between a thousand objects and the next.
                async for page in obstore.list(self._objects, prefix=prefix, chunk_size=LIST_PAGE_OBJECTS):
                    for meta in page:
                        name = meta["path"].rpartition("/")[2]
                        name = REF_PREFIX + name if prefix == "c" else name
                        found[name] = meta["last_modified"]
                        if prefix != "p":
                            sizes[name] = meta["size"]
        self.holdings.listed(sizes)
        return listing

    async def _put(self, path: str, data: bytes) -> None:
        async with _translated():
            writing = asyncio.ensure_future(obstore.put_async(self._objects, path, data, use_multipart=False))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                # The store goes on with a write that nobody waits for: what we remove next must not appear again.
                await asyncio.wait([writing], timeout=WRITE_GRACE_S)
                raise

    async def _get(self, path: str) -> memoryview | None:
        try:
            async with _translated():
                result = await obstore.get_async(self._objects, path)
                return memoryview(await result.bytes_async())
        except FileNotFoundError:
            return None

    async def _delete(self, path: str) -> None:
        try:
            async with _translated():
                await obstore.delete_async(self._objects, path)
        except FileNotFoundError:
            return


async def open_manifest(raw: bytes, digest: str = "") -> Manifest:
    """Parse and verify a manifest, off the event loop where it is a large one.

    Raises: RemoteProtocolError, as `parse_manifest` and `verify_manifest`.
    """
    if len(raw) < LARGE_MANIFEST_BYTES:
        return _open_manifest(raw, digest)
    return await asyncio.to_thread(_open_manifest, raw, digest)


def _open_manifest(raw: bytes, digest: str) -> Manifest:
    manifest = parse_manifest(raw)
    verify_manifest(manifest, digest)
    return manifest


def _remove_drafts(folder: Path) -> int:
    count = 0
    for draft in folder.glob("[cmp]/**/*#*"):
        with suppress(FileNotFoundError):  # renamed or removed meanwhile
            # By one clock, ours: the store is a directory of this machine.
            if time.time() - draft.stat().st_mtime > DRAFT_AGE_S:
                draft.unlink()
                count += 1
    return count


def _chunk_path(ref: str) -> str:
    name = ref.removeprefix(REF_PREFIX)
    return f"c/{name[:2]}/{name}"


def _manifest_path(digest: str) -> str:
    return f"m/{digest}"


def _mark_path(instance: str) -> str:
    return f"p/{instance}"


def _decode_chunk(ref: str, data: memoryview, *, verify: bool) -> tuple[ChunkData, memoryview] | None:
    header_end = HEADER_LENGTH_BYTES + int.from_bytes(data[:HEADER_LENGTH_BYTES], "big")
    try:
        stored = msgspec.msgpack.decode(data[HEADER_LENGTH_BYTES:header_end], type=StoredChunk)
    except UNDECODABLE:
        return None
    cipher = data[header_end:]
    if len(cipher) != stored.size + TAG_BYTES or (verify and chunk_ref(cipher, stored.seq) != ref):
        return None
    return ChunkData(ref, stored.seq, stored.total, stored.size, stored.iv, stored.mime, stored.name), cipher


def _batched(refs: Iterable[str], count: int) -> Iterator[list[str]]:
    left = iter(refs)
    while page := list(islice(left, count)):
        yield page


NO_SPACE = ("StorageFull", "QuotaExceeded", "(os error 28)", "(os error 122)")
"""How ENOSPC, EDQUOT and a full S3-compatible store stand in the text of obstore's error, which has no code."""


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """obstore's errors as ours; FileNotFoundError passes, because its callers expect it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        text = str(error)
        cause = Cause.DISK_FULL if any(word in text for word in NO_SPACE) else Cause.STORE_FAILED
        log.error("the store cannot be used: %s (%s)", cause.value, type(error).__name__)
        raise SwarmbridgeError(cause, "the store cannot be used") from error
