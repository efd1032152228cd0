"""What the gateway asks for: the files that are here, their plaintext chunk by chunk, removing one, how full it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from services.chunk.index import FileSummary, ManifestIndex
from services.chunk.quota import Quota
from services.chunk.store import ChunkStore
from shared.bus.bodies import BodyHolder
from shared.bus.chunk_api import (
    FileList,
    FileQuery,
    FileStatus,
    GetChunk,
    GotChunk,
    Removed,
    RemoveFile,
    Usage,
    UsageQuery,
)
from shared.bus.contract import Incoming
from shared.bus.messages.conversations import GATEWAY
from shared.content.chunks import decrypt_chunk
from shared.content.manifest import Manifest
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError

MAX_CACHED_MANIFESTS = 16
"""Parsed manifests kept for files that are being read chunk by chunk."""
MAX_LISTED_FILES = 1000
MAX_LISTED_TEXT_BYTES = 1024 * 1024
"""Names, types and ids of one page: with the rest of the entries well below a message's 2 MB on the bus."""


class LocalApi:
    """Serves `chunk.get`, `chunk.status`, `chunk.remove` and `chunk.usage`.

    identity: this node's own peer token. in_use: whether a transfer of this digest runs here.
    """

    def __init__(
        self,
        store: ChunkStore,
        index: ManifestIndex,
        quota: Quota,
        bodies: BodyHolder,
        identity: str,
        in_use: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._index = index
        self._quota = quota
        self._bodies = bodies
        self._identity = identity
        self._in_use = in_use
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()

    async def status(self, query: FileQuery, incoming: Incoming) -> FileList:
        """One file by digest or fileId (an empty list where it is not here), or a page of all of them."""
        if query.manifest:
            found = await self._index.find(query.manifest)
            page = [found] if found is not None else []
        else:
            page = _page(self._index.files(), query)
        return FileList([await self._status(summary) for summary in page], self._identity, len(self._index))

    async def get(self, request: GetChunk, incoming: Incoming) -> GotChunk:
        """Plaintext of one chunk, held until it is released.

        Raises: SwarmbridgeError: NO_LINK where it is not stored here, UNAUTHENTICATED where the key is missing
            or wrong, INVALID for a position outside the file, BUSY where no body can be held.
        """
        manifest = await self._manifest(request.manifest)
        if not 0 <= request.seq < len(manifest.chunks):
            raise SwarmbridgeError(Cause.INVALID, "no such chunk in the file")
        ref = manifest.chunks[request.seq]
        # Opening it proves every byte; its hash is needed only to tell a wrong key from a damaged chunk.
        chunk = await self._store.get_chunk(ref, verify=False)
        if chunk is None:
            raise SwarmbridgeError(Cause.NO_LINK, "the chunk is not here")
        header, cipher = chunk
        key = manifest.file_key or request.key
        iv = manifest.ivs[request.seq] if manifest.ivs is not None else header.iv
        try:
            plain = decrypt_chunk(cipher, key=key, iv=iv)
        except RemoteProtocolError:
            if await self._store.get_chunk(ref) is None:
                raise SwarmbridgeError(Cause.NO_LINK, "the chunk was damaged") from None
            raise SwarmbridgeError(Cause.UNAUTHENTICATED, "the key is missing or wrong") from None
        return GotChunk(self._bodies.hold(plain, GATEWAY))

    async def remove(self, request: RemoveFile, incoming: Incoming) -> Removed:
        """Forget a file, and its chunks as far as no other file names them.

        In this order whatever ends us between two steps leaves either the whole file, or chunks that the sweep finds.
        Raises: SwarmbridgeError: NO_LINK where it is not here; BUSY while it is fetched; STORE_FAILED or BusError
            where it could not be done.
        """
        summary = await self._index.find(request.manifest)
        if summary is None:
            raise SwarmbridgeError(Cause.NO_LINK, "the file is not here")
        if self._in_use(summary.digest):
            raise SwarmbridgeError(Cause.BUSY, "a transfer of it runs: wait for it, or cancel it")
        orphans = await self._index.remove(summary)
        try:
            await self._store.delete_manifest(summary.digest)
        finally:
            self._index.removed(summary.digest)
        freed_bytes = await self._store.delete_chunks(orphans)
        self._manifests.pop(summary.digest, None)
        return Removed(summary.digest, summary.name, len(orphans), freed_bytes)

    async def usage(self, query: UsageQuery, incoming: Incoming) -> Usage:
        quota = self._quota
        return Usage(quota.used_bytes, quota.promised_bytes, quota.quota_bytes, len(self._index))

    async def _manifest(self, manifest_id: str) -> Manifest:
        summary = await self._index.find(manifest_id)
        if summary is None:
            raise SwarmbridgeError(Cause.NO_LINK, "the file is not here")
        manifest = self._manifests.get(summary.digest) or await self._store.get_manifest(summary.digest)
        if manifest is None:
            raise SwarmbridgeError(Cause.NO_LINK, "the manifest is not here")
        self._manifests[summary.digest] = manifest
        self._manifests.move_to_end(summary.digest)
        if len(self._manifests) > MAX_CACHED_MANIFESTS:
            self._manifests.popitem(last=False)
        return manifest

    async def _status(self, summary: FileSummary) -> FileStatus:
        stored = summary.chunks_total
        if not summary.complete:
            manifest = await self._store.get_manifest(summary.digest)
            stored = len(self._store.holdings.among(manifest.chunks)) if manifest is not None else 0
        return FileStatus(
            summary.digest,
            summary.file_id,
            summary.name,
            summary.mime,
            summary.size,
            summary.chunks_total,
            stored,
            summary.content_class,
            summary.stored_ms,
        )


def _page(summaries: list[FileSummary], query: FileQuery) -> list[FileSummary]:
    count = min(query.limit or MAX_LISTED_FILES, MAX_LISTED_FILES)
    page: list[FileSummary] = []
    text_bytes = 0
    for summary in summaries[max(0, query.offset) :][: max(0, count)]:
        text_bytes += sum(len(text.encode(errors="replace")) for text in (summary.name, summary.mime, summary.file_id))
        if page and text_bytes > MAX_LISTED_TEXT_BYTES:
            break
        page.append(summary)
    return page
