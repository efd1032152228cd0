"""Putting a file: pulled from the gateway by ranges, encrypted chunk by chunk, stored, signed, indexed.

A file that is here already, under the same name, type and class, is recognised by comparing it with what is stored,
and keeps its link. Private content is not: its key is in its link alone, so nobody here could read it, or print the
link again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry.trace import Status, StatusCode

from services.chunk.index import ManifestIndex
from services.chunk.progress import Progress
from services.chunk.quota import Quota, Room
from services.chunk.store import ChunkStore
from services.chunk.sweep import PutsInFlight, Sweep
from shared.bus.bodies import HOLDER_RETURNS_WITH_BUS_S, pull_ranges
from shared.bus.chunk_api import PutFile
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import BodyRef
from shared.bus.messages.subjects import Subjects
from shared.clock import unix_ms
from shared.content.chunks import decrypt_chunk, encrypt_chunk
from shared.content.keys import public_key
from shared.content.link import ContentLink, format_link
from shared.content.manifest import (
    CHUNK_BYTES,
    IV_BYTES,
    KEY_BYTES,
    MAX_CHUNKS,
    MAX_MIME_CHARS,
    MAX_NAME_CHARS,
    PRIVATE_MIME,
    ContentClass,
    Manifest,
    ManifestDraft,
    chunk_count,
    new_file_id,
    sign_manifest,
)
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError
from shared.ids import PeerToken
from shared.telemetry import names, tracer
from shared.text import is_safe_text

PUT_TIMEOUT_S = 3600.0
"""For pulling one whole file; the gateway gives its transfers no longer."""
FILE_ID_RANDOM_BYTES = 8
MAX_COMPARED = 4
"""Stored files of the same name and size that a put is compared with, the newest first."""


@dataclass(frozen=True)
class Putting:
    """What every put needs. publish_seed: signs manifests. holder: our own peer token, for the link."""

    bus: Bus
    subjects: Subjects
    store: ChunkStore
    index: ManifestIndex
    quota: Quota
    puts: PutsInFlight
    sweep: Sweep
    publish_seed: bytes
    holder: PeerToken

    async def put(self, request: PutFile, progress: Progress) -> str:
        """Store the file and return its link.

        A put that fails or is cancelled leaves no chunk behind; one whose process is killed leaves chunks
        that no manifest names: the sweep removes them, and the put starts again elsewhere with another key.
        Raises: SwarmbridgeError: INVALID, TOO_LARGE or STORE_FULL before anything is stored, DISK_FULL or STORE_FAILED
            where the store cannot take it, what the pull raises.
        """
        content_class = _checked(request)
        counts = progress.counts
        counts.name = request.name
        counts.bytes_total = request.source.length
        counts.chunks_total = chunk_count(request.source.length)
        with tracer().start_as_current_span(
            names.SPAN_CHUNK_PUT, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute(names.TRANSFER, request.call_id.hex())
            span.set_attribute(names.BODY_BYTES, request.source.length)
            try:
                manifest = None if request.again else await self._same(request, content_class, progress)
                if manifest is not None:
                    counts.manifest = manifest.digest
                    return format_link(ContentLink(manifest.digest, (self.holder,)))
                self.index.check_room()
                async with self.quota.room_for(request.source.length) as room:
                    return await self._put(request, content_class, progress, room)
            except SwarmbridgeError as error:
                span.set_attribute(names.ERROR_TYPE, error.cause.value)
                span.set_status(Status(StatusCode.ERROR))
                raise

    async def _put(self, request: PutFile, content_class: ContentClass, progress: Progress, room: Room) -> str:
        private = content_class is ContentClass.PRIVATE
        key = os.urandom(KEY_BYTES)
        refs: list[str] = []
        ivs: list[bytes] = []
        with self.puts.begin() as unnamed:
            # Within `begin` and before the first chunk: from then on no other instance takes what is stored for left
            # over.
            await self.sweep.mark()
            try:
                async with aclosing(self._plain_chunks(request.source)) as chunks:
                    async for plain in chunks:
                        header, cipher = encrypt_chunk(
                            plain,
                            key=key,
                            iv=os.urandom(IV_BYTES),
                            seq=len(refs),
                            total=progress.counts.chunks_total,
                            mime=PRIVATE_MIME if private else request.mime,
                            original_name="" if private else request.name,
                        )
                        # Before it is stored: a sweep of ours between the two would find a chunk that nobody has.
                        unnamed.add(header.ref)
                        refs.append(header.ref)
                        ivs.append(header.iv)
                        await self.store.put_chunk(header, cipher)
                        room.stored(len(plain))
                        progress.counts.add_chunk(len(plain))
                manifest = self._signed(request, content_class, key, refs, ivs)
                await self.store.put_manifest(manifest)
                # Named by the manifest now: it is not removed below, whatever comes.
                unnamed.clear()
            finally:
                if unnamed:
                    await self.store.delete_chunks(refs)
        # From here on the file is stored: were we killed now, the next start would index it.
        await self.index.add(manifest, complete=True, stored_ms=unix_ms())
        progress.counts.manifest = manifest.digest
        return format_link(ContentLink(manifest.digest, (self.holder,), key if private else b""))

    async def _same(self, request: PutFile, content_class: ContentClass, progress: Progress) -> Manifest | None:
        """The file of ours that is this very one; None where there is none, or where it must not be recognised."""
        if content_class is ContentClass.PRIVATE:
            return None
        wanted = (request.name, request.mime, request.source.length, content_class.value, public_key(self.publish_seed))
        alike = [
            file
            for file in self.index.files()
            if file.complete and (file.name, file.mime, file.size, file.content_class, file.signer) == wanted
        ]
        for file in alike[:MAX_COMPARED]:
            manifest = await self.store.get_manifest(file.digest)
            if manifest is not None and await self._is_stored_as(request.source, manifest, progress):
                return manifest
            # Compared and found another: it begins from zero.
            progress.counts.chunks_done = progress.counts.bytes_done = 0
        return None

    async def _is_stored_as(self, source: BodyRef, manifest: Manifest, progress: Progress) -> bool:
        """Whether every chunk is here and opens as this source's. A damaged one is not, and so is stored again."""
        if manifest.file_key is None or manifest.ivs is None:
            return False
        seq = 0
        async with aclosing(self._plain_chunks(source)) as chunks:
            async for plain in chunks:
                # Opening it proves every byte, so its hash is not needed.
                stored = await self.store.get_chunk(manifest.chunks[seq], verify=False)
                if stored is None:
                    return False
                try:
                    if decrypt_chunk(stored[1], key=manifest.file_key, iv=manifest.ivs[seq]) != plain:
                        return False
                except RemoteProtocolError:
                    return False
                progress.counts.add_chunk(len(plain))
                seq += 1
        return seq == len(manifest.chunks)

    def _signed(
        self, request: PutFile, content_class: ContentClass, key: bytes, refs: list[str], ivs: list[bytes]
    ) -> Manifest:
        now_ms = unix_ms()
        draft = ManifestDraft(
            file_id=new_file_id(now_ms, os.urandom(FILE_ID_RANDOM_BYTES)),
            refs=refs,
            ivs=ivs,
            size=request.source.length,
            mime=request.mime,
            name=request.name,
            key=key,
            content_class=content_class,
            created_ms=now_ms,
        )
        return sign_manifest(draft, self.publish_seed, now_ms)

    def _pulled(self, source: BodyRef) -> AsyncGenerator[memoryview, None]:
        # A gateway that is away for a moment still has the file; where it died, nobody waits for this put.
        return pull_ranges(
            self.bus, self.subjects, source, timeout_s=PUT_TIMEOUT_S, returns_s=HOLDER_RETURNS_WITH_BUS_S
        )

    async def _plain_chunks(self, source: BodyRef) -> AsyncGenerator[memoryview, None]:
        """The file in pieces of CHUNK_BYTES; a view is good until the next one is asked for."""
        buffer = bytearray(min(CHUNK_BYTES, source.length))
        filled = 0
        async with aclosing(self._pulled(source)) as ranges:
            async for part in ranges:
                while part:
                    taken = part[: len(buffer) - filled]
                    buffer[filled : filled + len(taken)] = taken
                    filled += len(taken)
                    part = part[len(taken) :]
                    if filled == len(buffer):
                        # The same buffer again and again: each piece is encrypted before the next is asked for.
                        yield memoryview(buffer)
                        filled = 0
        if filled:
            yield memoryview(buffer)[:filled]


def _checked(request: PutFile) -> ContentClass:
    try:
        content_class = ContentClass(request.content_class)
    except ValueError:
        raise SwarmbridgeError(Cause.INVALID, "no such content class") from None
    if len(request.name) > MAX_NAME_CHARS or len(request.mime) > MAX_MIME_CHARS:
        raise SwarmbridgeError(Cause.INVALID, "a name or type that is too long")
    if not is_safe_text(request.name) or not is_safe_text(request.mime):
        raise SwarmbridgeError(Cause.INVALID, "a name or type with characters that hide or rearrange the rest")
    if chunk_count(request.source.length) > MAX_CHUNKS:
        raise SwarmbridgeError(Cause.TOO_LARGE, "more chunks than a manifest may list")
    return content_class
