"""Chunks and manifests as objects: a directory, or S3, GCS or Azure by URL, through one API (obstore).

    c/<2 hex>/<64 hex>   length:u16 big-endian | msgpack header of that length | cipher
    m/<64 hex>           a manifest's canonical JSON, named by its digest

Writes are atomic (obstore writes beside and renames), so all chunk instances of a node may share one store.
Every read is checked against the name: what does not fit is as good as absent and is removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from shared.content.chunks import TAG_BYTES
from shared.content.manifest import Manifest, parse_manifest, verify_manifest
from shared.content.messages import ChunkData
from shared.content.refs import REF_PREFIX, chunk_ref
from shared.errors import Cause, ConfigError, RemoteProtocolError, SwarmbridgeError
from shared.undecodable import UNDECODABLE

HEADER_LENGTH_BYTES = 2
MAX_PARALLEL_HEADS = 32
"""Existence checks of one query at a time."""

log = logging.getLogger(__name__)


class StoredChunk(msgspec.Struct, array_like=True, frozen=True):
    """A stored chunk's header: all of ChunkData but the ref, which is the object's name."""

    seq: int
    total: int
    size: int
    iv: bytes
    mime: str
    name: str


class ChunkStore:
    """All objects of one node. Every method raises SwarmbridgeError(OTHER) when the store cannot be used."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    @classmethod
    def open(cls, location: str, default: Path) -> ChunkStore:
        """location: a directory, an obstore URL (`s3://…`), or "" for `default`.

        Raises: ConfigError: no such kind of store, or a directory that cannot be made.
        """
        try:
            if "://" in location:
                return cls(from_url(location))
            return cls(LocalStore(Path(location) if location else default, mkdir=True))
        except (BaseError, OSError, ValueError) as error:
            raise ConfigError([f"chunk.store: cannot be opened ({type(error).__name__})"]) from error

    async def put_chunk(self, header: ChunkData, cipher: bytes | memoryview) -> None:
        """Keep a chunk that was made here or has been verified."""
        stored = msgspec.msgpack.encode(
            StoredChunk(header.seq, header.total, header.size, header.iv, header.mime, header.original_name)
        )
        data = b"".join((len(stored).to_bytes(HEADER_LENGTH_BYTES, "big"), stored, cipher))
        async with _translated():
            await obstore.put_async(self._objects, _chunk_path(header.ref), data, use_multipart=False)

    async def get_chunk(self, ref: str) -> tuple[ChunkData, memoryview] | None:
        """Header and cipher, checked against the ref; None where it is not stored (or no longer whole)."""
        data = await self._get(_chunk_path(ref))
        if data is None:
            return None
        chunk = _decode_chunk(ref, data)
        if chunk is None:
            log.error("a stored chunk was damaged and is removed")
            await self.delete_chunks([ref])
        return chunk

    async def has_chunk(self, ref: str) -> bool:
        try:
            async with _translated():
                await obstore.head_async(self._objects, _chunk_path(ref))
        except FileNotFoundError:
            return False
        return True

    async def stored_among(self, refs: Iterable[str]) -> set[str]:
        """Those of the refs whose chunks are here."""
        room = asyncio.Semaphore(MAX_PARALLEL_HEADS)

        async def check(ref: str) -> str | None:
            async with room:
                return ref if await self.has_chunk(ref) else None

        return {ref for ref in await asyncio.gather(*map(check, refs)) if ref is not None}

    async def delete_chunks(self, refs: Iterable[str]) -> None:
        """Remove chunks; those that are absent are ignored."""
        for ref in refs:
            try:
                async with _translated():
                    await obstore.delete_async(self._objects, _chunk_path(ref))
            except FileNotFoundError:
                continue

    async def put_manifest(self, manifest: Manifest) -> None:
        async with _translated():
            await obstore.put_async(self._objects, _manifest_path(manifest.digest), manifest.canonical)

    async def get_manifest(self, digest: str) -> Manifest | None:
        """A stored manifest, its digest and signatures checked; None where it is absent or damaged."""
        data = await self._get(_manifest_path(digest))
        if data is None:
            return None
        try:
            manifest = parse_manifest(bytes(data))
            verify_manifest(manifest, digest)
        except RemoteProtocolError:
            log.error("a stored manifest is damaged")
            return None
        return manifest

    async def manifest_digests(self) -> list[str]:
        """The digests of all stored manifests."""
        digests: list[str] = []
        async with _translated():
            async for batch in obstore.list(self._objects, prefix="m"):
                digests += [meta["path"].rpartition("/")[2] for meta in batch]
        return digests

    async def manifest_stored_ms(self, digest: str) -> int:
        """When a manifest was stored: wall clock, ms; 0 where it is absent."""
        try:
            async with _translated():
                meta = await obstore.head_async(self._objects, _manifest_path(digest))
        except FileNotFoundError:
            return 0
        return round(meta["last_modified"].timestamp() * 1000)

    async def used_bytes(self) -> int:
        """The size of everything stored, by listing it: other instances write here too."""
        used = 0
        async with _translated():
            async for batch in obstore.list(self._objects):
                used += sum(meta["size"] for meta in batch)
        return used

    async def _get(self, path: str) -> memoryview | None:
        try:
            async with _translated():
                result = await obstore.get_async(self._objects, path)
                return memoryview(await result.bytes_async())
        except FileNotFoundError:
            return None


def _chunk_path(ref: str) -> str:
    name = ref.removeprefix(REF_PREFIX)
    return f"c/{name[:2]}/{name}"


def _manifest_path(digest: str) -> str:
    return f"m/{digest}"


def _decode_chunk(ref: str, data: memoryview) -> tuple[ChunkData, memoryview] | None:
    header_end = HEADER_LENGTH_BYTES + int.from_bytes(data[:HEADER_LENGTH_BYTES], "big")
    try:
        stored = msgspec.msgpack.decode(data[HEADER_LENGTH_BYTES:header_end], type=StoredChunk)
    except UNDECODABLE:
        return None
    cipher = data[header_end:]
    if len(cipher) != stored.size + TAG_BYTES or chunk_ref(cipher, stored.seq) != ref:
        return None
    return ChunkData(ref, stored.seq, stored.total, stored.size, stored.iv, stored.mime, stored.name), cipher


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """obstore's errors as ours; FileNotFoundError passes, because its callers expect it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        log.error("the store cannot be used: %s", type(error).__name__)
        raise SwarmbridgeError(Cause.OTHER, "the store cannot be used") from error
