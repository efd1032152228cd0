"""The chunk service: the node's store, its identity, and every transfer. Wiring only."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from services.chunk.deliver import Deliveries
from services.chunk.fetch import Fetching
from services.chunk.identity import Identity
from services.chunk.index import ManifestIndex
from services.chunk.local_api import LocalApi
from services.chunk.put import Putting
from services.chunk.quota import Quota
from services.chunk.serve_peers import HELD_BODIES_BYTES, HELD_BODY_TTL_S, PeerServing
from services.chunk.store import ChunkStore
from services.chunk.sweep import PutsInFlight, Sweep
from services.chunk.transfers import Transfers
from shared.bus.bodies import BodyHolder
from shared.bus.calls import Calls
from shared.bus.chunk_api import ChunkCommand, FetchFile, FileQuery, GetChunk, PutFile, RemoveFile, UsageQuery
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import Certify, Inbound, PeerjsTokenRequest, Taken
from shared.bus.messages.subjects import BUCKET_MANIFESTS, QUEUE_CHUNK, Subjects
from shared.clock import monotonic
from shared.content.keys import public_key, publish_seed
from shared.errors import ConfigError
from shared.process.home_schema import ensure_home_schema
from shared.process.root_key import load_or_create_root
from shared.process.run import CannotStart, Process
from shared.settings.config import Config
from shared.tasks.owned import Tasks

DRAIN_S = 2.0
"""How long a stopping instance lets workers pull the bodies that they were promised."""
DRAIN_POLL_S = 0.02

log = logging.getLogger(__name__)


async def app(process: Process) -> None:
    """Serve until the process is asked to stop; transfers in flight go to another instance."""
    try:
        service = ChunkService(process.bus, process.subjects, process.config, process.tasks)
    except ConfigError as error:
        raise CannotStart("; ".join(error.problems)) from error
    try:
        await service.start()
        process.serves()
        await process.stopping.wait()
    finally:
        await service.close()


class ChunkService:
    """One chunk instance. identity: its keys and token.

    Raises: ConfigError from the constructor where the root key or the store cannot be used.
    """

    def __init__(self, bus: Bus, subjects: Subjects, config: Config, tasks: Tasks) -> None:
        ensure_home_schema(config.home)
        root = load_or_create_root(config.home)
        self._bus = bus
        self._subjects = subjects
        self._config = config
        self._tasks = tasks
        self._publish_seed = publish_seed(root)
        self._store = ChunkStore.open(config.chunk.store, config.home / "store")
        self._quota = Quota(self._store.holdings, config.chunk.quota_bytes)
        self._bodies = BodyHolder(bus, subjects, max_total_bytes=HELD_BODIES_BYTES, ttl_s=HELD_BODY_TTL_S)
        self._calls = Calls(bus, subjects, subjects.manager)
        self._transfers = Transfers(bus, subjects)
        self._ending = AsyncExitStack()
        self.identity = Identity(root)

    async def start(self) -> None:
        """Serve every subject; returns when a request from anyone reaches us."""
        own_signer = public_key(self._publish_seed)
        index = ManifestIndex(await self._bus.kv(BUCKET_MANIFESTS), self._store, own_signer)
        puts = PutsInFlight()
        sweep = Sweep(self._store, index, puts, self._bus.instance)
        self._putting = Putting(
            self._bus,
            self._subjects,
            self._store,
            index,
            self._quota,
            puts,
            sweep,
            self._publish_seed,
            self.identity.token,
        )
        deliveries = Deliveries(self._bus, self._subjects, self._calls)
        window = self._config.chunk.request_window
        self._fetching = Fetching(self._store, index, self._quota, deliveries, self.identity.token, window)
        # Closed in the opposite order: first no new work, then no transfers, then bodies and the index.
        self._tasks.start(index.run(), name="index")
        await index.start()
        self._ending.push_async_callback(index.close)
        await self._bodies.start()
        self._ending.push_async_callback(self._bodies.close)
        self._ending.push_async_callback(self._drain_bodies)
        await self._calls.start()
        self._ending.push_async_callback(self._calls.close)
        sweep.start(self._tasks)
        self._transfers.start()
        self._ending.push_async_callback(self._transfers.close)
        await self._serve(PeerServing(self._store, index, self._bodies), self._local_api(index))

    async def close(self) -> None:
        await self._ending.aclose()

    def _local_api(self, index: ManifestIndex) -> LocalApi:
        in_use = self._fetching.is_at_work_on
        return LocalApi(self._store, index, self._quota, self._bodies, self.identity.token, in_use)

    async def _serve(self, peers: PeerServing, local: LocalApi) -> None:
        bus, subjects, queue = self._bus, self._subjects, QUEUE_CHUNK
        instance = subjects.chunk_instance(bus.instance)
        for subscription in (
            await bus.serve(instance, ChunkCommand, self._transfers.command),
            await bus.serve(subjects.certify, Certify, self.identity.certify, queue=queue),
            await bus.serve(subjects.peerjs_token, PeerjsTokenRequest, self.identity.peerjs_token, queue=queue),
            await bus.serve(subjects.chunk("status"), FileQuery, local.status, queue=queue),
            await bus.serve(subjects.chunk("get"), GetChunk, local.get, queue=queue),
            await bus.serve(subjects.chunk("remove"), RemoveFile, local.remove, queue=queue),
            await bus.serve(subjects.chunk("usage"), UsageQuery, local.usage, queue=queue),
            await bus.serve(subjects.chunk("put"), PutFile, self._put, queue=queue),
            await bus.serve(subjects.chunk("fetch"), FetchFile, self._fetch, queue=queue),
            await bus.serve(subjects.chunk_message, Inbound, peers.answer, queue=queue),
        ):
            self._ending.push_async_callback(subscription.close)

    async def _put(self, request: PutFile, incoming: Incoming) -> Taken:
        return self._transfers.take(
            "put", request.call_id, request.reply_to, lambda progress: self._putting.put(request, progress)
        )

    async def _fetch(self, request: FetchFile, incoming: Incoming) -> Taken:
        return self._transfers.take(
            "get", request.call_id, request.reply_to, lambda progress: self._fetching.fetch(request, progress)
        )

    async def _drain_bodies(self) -> None:
        until_s = monotonic() + DRAIN_S
        while self._bodies.count and monotonic() < until_s:  # noqa: ASYNC110 - pullers are other processes
            await asyncio.sleep(DRAIN_POLL_S)
