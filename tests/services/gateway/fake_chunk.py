"""A small chunk service: takes puts and fetches on the bus, keeps plain files in memory, answers pings."""

from __future__ import annotations

import asyncio
import hashlib

from shared.bus.bodies import BodyHolder, pull
from shared.bus.chunk_api import (
    CancelCall,
    ChunkCommand,
    FetchFile,
    FileList,
    FileQuery,
    FileStatus,
    GetChunk,
    GotChunk,
    PutFile,
    Removed,
    RemoveFile,
    Usage,
    UsageQuery,
)
from shared.bus.contract import Incoming, Subscription
from shared.bus.messages.envelopes import Done, Ping, Pong, Taken, TransferUpdate
from shared.bus.messages.subjects import QUEUE_CHUNK, Subjects
from shared.content.link import ContentLink, format_link
from shared.errors import Cause, SwarmbridgeError
from shared.ids import PeerToken, member_token
from tests.fakes.memory_bus import MemoryHub

CHUNK_BYTES = 1 << 20
IDENTITY = member_token(bytes(range(32)))
PRIVATE_KEY = bytes(32)


class FakeChunk:
    """hold_calls: while set, calls are taken and never finished. fail_with: how every call ends instead.

    page_size: files of one answer to a query.
    """

    def __init__(self, hub: MemoryHub, subjects: Subjects, instance: str = "chunk-1") -> None:
        self.bus = hub.bus(instance)
        self.subjects = subjects
        self.bodies = BodyHolder(self.bus, subjects, max_total_bytes=64 << 20)
        self.files: dict[str, tuple[PutFile, bytes]] = {}
        self.fetches: list[FetchFile] = []
        self.cancelled: list[bytes] = []
        self.lost_chunks: set[int] = set()
        self.hold_calls = False
        self.page_size = 100
        self.pinged = False
        self.fail_with: Cause | None = None
        self._working: dict[bytes, asyncio.Task[None]] = {}
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        serve, subjects = self.bus.serve, self.subjects
        self._subscriptions = [
            await serve(subjects.chunk("put"), PutFile, self._put, queue=QUEUE_CHUNK),
            await serve(subjects.chunk("fetch"), FetchFile, self._fetch, queue=QUEUE_CHUNK),
            await serve(subjects.chunk("get"), GetChunk, self._get, queue=QUEUE_CHUNK),
            await serve(subjects.chunk("status"), FileQuery, self._status, queue=QUEUE_CHUNK),
            await serve(subjects.chunk("remove"), RemoveFile, self._remove, queue=QUEUE_CHUNK),
            await serve(subjects.chunk("usage"), UsageQuery, self._usage, queue=QUEUE_CHUNK),
            await serve(subjects.chunk_instance(self.bus.instance), ChunkCommand, self._command),
        ]
        await self.bodies.start()

    async def close(self) -> None:
        for task in self._working.values():
            task.cancel()
        await self.bodies.close()
        for subscription in self._subscriptions:
            await subscription.close()

    def add(self, name: str, data: bytes, content_class: str = "shared") -> str:
        digest = hashlib.sha256(data).hexdigest()
        put = PutFile(b"", "", None, name, "text/plain", content_class)  # type: ignore[arg-type]
        self.files[digest] = (put, data)
        return digest

    async def _put(self, put: PutFile, incoming: Incoming) -> Taken:
        self._work(put.call_id, self._store(put))
        return Taken(self.bus.instance)

    async def _fetch(self, fetch: FetchFile, incoming: Incoming) -> Taken:
        self.fetches.append(fetch)
        self._work(fetch.call_id, self._find(fetch))
        return Taken(self.bus.instance)

    def _work(self, call_id: bytes, work: object) -> None:
        if call_id not in self._working:
            self._working[call_id] = asyncio.create_task(work)  # type: ignore[arg-type]

    async def _store(self, put: PutFile) -> None:
        total = put.source.length
        await self._tell(put.reply_to, TransferUpdate(put.call_id, "put", "running", put.name, 0, 1, 0, total, {}))
        if self.hold_calls:
            await asyncio.Event().wait()
        data = await pull(self.bus, self.subjects, put.source, timeout_s=10)
        if self.fail_with:
            await self._fail(put.reply_to, put.call_id, "put", put.name)
            return
        digest = hashlib.sha256(data).hexdigest()
        self.files[digest] = (put, data)
        key = PRIVATE_KEY if put.content_class == "private" else b""
        link = format_link(ContentLink(digest, (PeerToken(IDENTITY),), key))
        done = TransferUpdate(
            put.call_id, "put", "done", put.name, 1, 1, total, total, {}, None, link, digest, started_ms=1000
        )
        await self._tell(put.reply_to, done)

    async def _find(self, fetch: FetchFile) -> None:
        if self.hold_calls:
            await asyncio.Event().wait()
        found = self.files.get(fetch.manifest)
        if self.fail_with or found is None:
            await self._fail(fetch.reply_to, fetch.call_id, "get", "")
            return
        put, data = found
        size = len(data)
        for part in (size // 2, size):
            state = "done" if part == size else "running"
            await self._tell(
                fetch.reply_to,
                TransferUpdate(
                    fetch.call_id, "get", state, put.name, 1, 1, part, size, {"webrtc": part}, None, "", fetch.manifest
                ),
            )

    async def _fail(self, reply_to: str, call_id: bytes, kind: str, name: str) -> None:
        cause = self.fail_with or Cause.PEER_UNKNOWN
        await self._tell(reply_to, TransferUpdate(call_id, kind, "failed", name, 0, 0, 0, 0, {}, cause))

    async def _tell(self, reply_to: str, update: TransferUpdate) -> None:
        await self.bus.publish(self.subjects.reply(reply_to), update)

    async def _get(self, get: GetChunk, incoming: Incoming) -> GotChunk:
        put, data = self.files[get.manifest]
        if get.seq in self.lost_chunks:
            raise SwarmbridgeError(Cause.NO_LINK)
        if put.content_class == "private" and get.key != PRIVATE_KEY:
            raise SwarmbridgeError(Cause.UNAUTHENTICATED)
        return GotChunk(self.bodies.hold(data[get.seq * CHUNK_BYTES : (get.seq + 1) * CHUNK_BYTES], "gateway"))

    async def _status(self, query: FileQuery, incoming: Incoming) -> FileList:
        wanted = (
            [query.manifest]
            if query.manifest
            else list(self.files)[query.offset :][: min(query.limit or self.page_size, self.page_size)]
        )
        files = []
        for digest in wanted:
            if digest in self.files:
                put, data = self.files[digest]
                chunks = -(-len(data) // CHUNK_BYTES)
                files.append(
                    FileStatus(digest, "id", put.name, put.mime, len(data), chunks, chunks, put.content_class, 5)
                )
        return FileList(files, IDENTITY, len(self.files))

    async def _remove(self, wanted: RemoveFile, incoming: Incoming) -> Removed:
        if wanted.manifest not in self.files:
            raise SwarmbridgeError(Cause.NO_LINK)
        if self.hold_calls:
            raise SwarmbridgeError(Cause.BUSY)
        put, data = self.files.pop(wanted.manifest)
        return Removed(wanted.manifest, put.name, 1, len(data))

    async def _usage(self, query: UsageQuery, incoming: Incoming) -> Usage:
        return Usage(sum(len(data) for _, data in self.files.values()), 0, 10**9, len(self.files))

    async def _command(self, command: ChunkCommand, incoming: Incoming) -> Pong | Done:
        if isinstance(command, Ping):
            self.pinged = True
            return Pong([call for call in command.calls if call not in self._working])
        assert isinstance(command, CancelCall)
        self.cancelled.append(command.call_id)
        return Done()
