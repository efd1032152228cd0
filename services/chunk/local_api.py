"""What the gateway asks for: the files that are here, and their plaintext chunk by chunk."""

from __future__ import annotations

from collections import OrderedDict

from services.chunk.index import FileSummary, ManifestIndex
from services.chunk.store import ChunkStore
from shared.bus.bodies import BodyHolder
from shared.bus.chunk_api import FileList, FileQuery, FileStatus, GetChunk, GotChunk
from shared.bus.contract import Incoming
from shared.bus.messages.conversations import GATEWAY
from shared.content.chunks import decrypt_chunk
from shared.content.manifest import Manifest
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError

MAX_CACHED_MANIFESTS = 16
"""Parsed manifests kept for files that are being read chunk by chunk."""


class LocalApi:
    """Serves `chunk.get` and `chunk.status`. identity: this node's own peer token."""

    def __init__(self, store: ChunkStore, index: ManifestIndex, bodies: BodyHolder, identity: str) -> None:
        self._store = store
        self._index = index
        self._bodies = bodies
        self._identity = identity
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()

    async def status(self, query: FileQuery, incoming: Incoming) -> FileList:
        """One file by digest or fileId (an empty list where it is not here), or all of them."""
        if query.manifest:
            found = await self._index.find(query.manifest)
            summaries = [found] if found is not None else []
        else:
            summaries = self._index.files()
        return FileList([await self._status(summary) for summary in summaries], self._identity)

    async def get(self, request: GetChunk, incoming: Incoming) -> GotChunk:
        """Plaintext of one chunk, held until it is released.

        Raises: SwarmbridgeError: NO_LINK where it is not stored here, UNAUTHENTICATED where the key is missing
            or wrong, INVALID for a position outside the file, BUSY where no body can be held.
        """
        manifest = await self._manifest(request.manifest)
        if not 0 <= request.seq < len(manifest.chunks):
            raise SwarmbridgeError(Cause.INVALID, "no such chunk in the file")
        chunk = await self._store.get_chunk(manifest.chunks[request.seq])
        if chunk is None:
            raise SwarmbridgeError(Cause.NO_LINK, "the chunk is not here")
        header, cipher = chunk
        key = manifest.file_key or request.key
        iv = manifest.ivs[request.seq] if manifest.ivs is not None else header.iv
        try:
            plain = decrypt_chunk(cipher, key=key, iv=iv)
        except RemoteProtocolError:
            # The cipher fits its ref, so it is the key that does not.
            raise SwarmbridgeError(Cause.UNAUTHENTICATED, "the key is missing or wrong") from None
        return GotChunk(self._bodies.hold(plain, GATEWAY))

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
            stored = len(await self._store.stored_among(manifest.chunks)) if manifest is not None else 0
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
