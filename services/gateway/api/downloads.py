"""GET /api/files: what the node holds, with its links, and the plain bytes of it; DELETE; how full the store is.

The bytes are a stranger's: always an attachment of an opaque type, never rendered (docs/trust.md). The first chunk
is fetched before the status line, so that a wrong key is a clear answer; a failure later cuts the connection,
which every client sees as a short body against Content-Length.

*Back-pressure*: one chunk is fetched ahead of the caller, so a download holds two chunks (2 MiB).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

from aiohttp import web

from services.gateway.http.answers import json_answer
from services.gateway.http.problems import ApiProblem, not_found
from services.gateway.http.queries import whole_number
from shared.bus.bodies import pull, release
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
from shared.bus.contract import Bus
from shared.bus.messages.subjects import Subjects
from shared.content.link import ContentLink, decode_key, format_link
from shared.content.names import safe_file_name
from shared.errors import Cause, SwarmbridgeError
from shared.gateway_api.calls import KEY_HEADER
from shared.gateway_api.structs import FileView, RemovedView, UsageView
from shared.ids import PeerToken

STATUS_TIMEOUT_S = 5.0
CHUNK_TIMEOUT_S = 30.0
REMOVE_TIMEOUT_S = 60.0
"""A file of 100,000 chunks is as many objects to delete."""
MAX_LISTED_FILES = 1000
MAX_OFFSET = 10**9
PRIVATE = "private"

log = logging.getLogger(__name__)


class FileRoutes:
    """Files of the chunk service, by its bus API."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self._identity = ""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/files", self._list),
            web.get("/api/files/{digest}", self._get),
            web.get("/api/files/{digest}/content", self._content),
            web.delete("/api/files/{digest}", self._remove),
            web.get("/api/usage", self._usage),
        ]

    async def identity(self) -> str:
        """The node's own peer token; asked once, it never changes. Raises: BusError."""
        if not self._identity:
            self._identity = (await self._query("")).identity
        return self._identity

    async def _query(self, manifest: str, offset: int = 0, limit: int = 0) -> FileList:
        query = FileQuery(manifest, offset, limit)
        return await self._bus.request(self._subjects.chunk("status"), query, FileList, STATUS_TIMEOUT_S)

    async def _status(self, request: web.Request) -> FileStatus:
        files = (await self._query(request.match_info["digest"])).files
        if not files:
            raise not_found("the node does not hold this file", "fetch it first: `swarmbridge get LINK`")
        return files[0]

    async def _list(self, request: web.Request) -> web.Response:
        """Newest first. The bus has pages of its own, as large as a message may be: we go on until ours is full."""
        offset = whole_number(request, "offset", 0, 0, MAX_OFFSET)
        limit = whole_number(request, "limit", MAX_LISTED_FILES, 1, MAX_LISTED_FILES)
        files: list[FileView] = []
        while len(files) < limit:
            page = await self._query("", offset + len(files), limit - len(files))
            files += [_view(file, page.identity) for file in page.files]
            if not page.files:
                break
        return json_answer(files)

    async def _get(self, request: web.Request) -> web.Response:
        return json_answer(_view(await self._status(request), await self.identity()))

    async def _remove(self, request: web.Request) -> web.Response:
        wanted = RemoveFile(request.match_info["digest"])
        try:
            gone = await self._bus.request(self._subjects.chunk("remove"), wanted, Removed, REMOVE_TIMEOUT_S)
        except SwarmbridgeError as error:
            if error.cause is Cause.NO_LINK:
                raise not_found("the node does not hold this file", "see `GET /api/files`") from None
            if error.cause is Cause.BUSY:
                raise ApiProblem(
                    409, error.cause.value, "a transfer of this file runs", "wait for it, or cancel it"
                ) from None
            raise
        return json_answer(RemovedView(gone.manifest, gone.name, gone.chunks_removed, gone.freed_bytes))

    async def _usage(self, request: web.Request) -> web.Response:
        now = await self._bus.request(self._subjects.chunk("usage"), UsageQuery(), Usage, STATUS_TIMEOUT_S)
        return json_answer(UsageView(now.used_bytes, now.promised_bytes, now.quota_bytes, now.files))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        file = await self._status(request)
        if file.chunks_stored < file.chunks_total:
            raise ApiProblem(409, "incomplete", "not all chunks of this file are here yet", "wait for its transfer")
        key_text = request.headers.get(KEY_HEADER, "")
        key = decode_key(key_text) if key_text else b""
        async with aclosing(self._chunks(file, key)) as chunks:
            first = await anext(chunks, b"")
            response = web.StreamResponse(headers=_content_headers(file))
            response.content_length = file.size
            await response.prepare(request)
            try:
                await response.write(first)
                async for chunk in chunks:
                    await response.write(chunk)
                await response.write_eof()
            except SwarmbridgeError as error:
                log.warning("a download was cut short: %s", error.cause.value)
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def _chunks(self, file: FileStatus, key: bytes) -> AsyncGenerator[bytes, None]:
        """The plain chunks in order, the next one fetched while this one is written."""
        ahead: asyncio.Task[bytes] | None = None
        try:
            for seq in range(file.chunks_total):
                current = ahead or asyncio.create_task(self._chunk(file.manifest, seq, key))
                ahead = None
                if seq + 1 < file.chunks_total:
                    ahead = asyncio.create_task(self._chunk(file.manifest, seq + 1, key))
                yield await current  # our cancellation is its end too
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])
                _ = ahead.cancelled() or ahead.exception()  # read, so that asyncio does not report it

    async def _chunk(self, manifest: str, seq: int, key: bytes) -> bytes:
        got = await self._bus.request(
            self._subjects.chunk("get"), GetChunk(manifest, seq, key), GotChunk, CHUNK_TIMEOUT_S
        )
        try:
            return await pull(self._bus, self._subjects, got.body, timeout_s=CHUNK_TIMEOUT_S)
        finally:
            await release(self._bus, self._subjects, got.body)


def _content_headers(file: FileStatus) -> dict[str, str]:
    name = safe_file_name(file.name, file.manifest)
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_. ") else "_" for char in name)
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _link(file: FileStatus, identity: str) -> str:
    """What another node fetches it by; private content opens with the key alone, which nobody keeps but its link."""
    if file.content_class == PRIVATE or not identity:
        return ""
    return format_link(ContentLink(file.manifest, (PeerToken(identity),)))


def _view(file: FileStatus, identity: str) -> FileView:
    return FileView(
        manifest=file.manifest,
        file_id=file.file_id,
        name=file.name,
        mime=file.mime,
        size=file.size,
        chunks_total=file.chunks_total,
        chunks_stored=file.chunks_stored,
        content_class=file.content_class,
        stored_at=file.stored_ms,
        link=_link(file, identity),
    )
