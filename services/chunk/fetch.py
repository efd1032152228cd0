"""Fetching a file: its manifest, then every chunk that is not here yet, from several holders at once.

What is stored is never asked for again, so a fetch that was stopped, here or in another instance, goes on
where it was. Nothing is stored before it is verified.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from services.chunk.announcing import Heard
from services.chunk.deliver import Delivered, Deliveries
from services.chunk.fetch_plan import Assignment, FetchPlan
from services.chunk.index import ManifestIndex
from services.chunk.progress import Progress
from services.chunk.quota import Quota, Room
from services.chunk.store import ChunkStore, open_manifest
from shared.backoff import delays_s
from shared.bus.chunk_api import FetchFile
from shared.bus.serving import mark_failed
from shared.clock import Clock, monotonic, unix_ms
from shared.content.chunks import MAX_CIPHER_BYTES, verify_chunk
from shared.content.link import MAX_HOLDERS
from shared.content.manifest import MAX_MANIFEST_BYTES, Manifest, is_manifest_id
from shared.content.messages import ChunkData, ManifestData, PeerAnswer, RequestChunk, RequestManifest
from shared.content.refs import is_digest
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError
from shared.ids import PeerToken, token_key
from shared.telemetry import names, tracer

STALLED_AFTER_S = 60.0
"""A fetch without a new chunk for so long has failed, with the last cause."""
WAITS_AFTER_S = 2.0
"""A fetch without a new chunk for so long tells why: a single failure beside others that go well is no news."""
RETRY_FIRST_S = 0.25
RETRY_CAP_S = 5.0
DEFINITE_ROUNDS = 2
"""Rounds in which every holder answered, and none had a good manifest, after which it is given up."""
DEFINITE = frozenset(
    {
        Cause.INTEGRITY_MISMATCH,
        Cause.FORBIDDEN,
        Cause.BLOCKED,
        Cause.INVALID,
        Cause.TOO_LARGE,
        Cause.CLOCK_SKEW,
    }
)
"""Causes that another try does not change; not holding it counts as one too."""
MAX_OTHER_NAMES = 16
"""Manifests of a page that are looked at for one digest, those that it announced last."""
ABSENT_CAUSE = Cause.REFUSED
"""How "the peer does not hold it, or will not give it" is called where a cause is wanted."""


@dataclass(frozen=True)
class Fetching:
    """What every fetch needs. own: our peer token, never asked. max_window: requests a holder at a time. heard: by
    which other ids a holder may know the manifest."""

    store: ChunkStore
    index: ManifestIndex
    quota: Quota
    deliveries: Deliveries
    own: PeerToken
    max_window: int
    clock: Clock = monotonic
    heard: Heard = field(default_factory=Heard)
    at_work: Counter[str] = field(default_factory=Counter)

    async def fetch(self, request: FetchFile, progress: Progress) -> str:
        """Fetch until every chunk is stored. Returns "": a fetch makes no link.

        Raises: SwarmbridgeError: INVALID for a request that cannot be made sense of, PEER_UNKNOWN where
            there is nobody to ask, REFUSED where no holder has it or another signer claims its fileId,
            STORE_FULL over the quota, DISK_FULL or STORE_FAILED where the store cannot take it, else the last
            cause of the deliveries.
        """
        transfer = request.call_id.hex()
        with tracer().start_as_current_span(
            names.SPAN_CHUNK_TRANSFER, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute(names.TRANSFER, transfer)
            try:
                await self._fetch(request, transfer, progress)
            except SwarmbridgeError as error:
                mark_failed(span, error.cause)
                raise
        return ""

    async def _fetch(self, request: FetchFile, transfer: str, progress: Progress) -> None:
        holders = self._holders(request)
        manifest = await self._manifest(request.manifest, holders, transfer, progress)
        # Counted, as two callers may fetch the same file: `rm` keeps away while any of them does.
        self.at_work[manifest.digest] += 1
        try:
            await self._chunks(manifest, holders, transfer, progress)
        finally:
            self.at_work[manifest.digest] -= 1
            if not self.at_work[manifest.digest]:
                del self.at_work[manifest.digest]

    def is_at_work_on(self, digest: str) -> bool:
        return digest in self.at_work

    async def _chunks(self, manifest: Manifest, holders: list[str], transfer: str, progress: Progress) -> None:
        known = self.index.known(manifest.digest)
        if known is not None and not known.complete:
            await self.store.list_all()  # begun before, maybe by an instance that is gone: see what it has stored
        missing = self._missing(manifest)
        _start_counts(progress, manifest, missing)
        async with self.quota.room_for(sum(map(manifest.chunk_size, missing))) as room:
            await self._keep(manifest, complete=not missing)
            # Again: until the manifest was indexed, whoever removed another file might take a shared chunk along.
            missing = self._missing(manifest)
            if missing:
                await _ChunkFetch(self, manifest, holders, transfer, progress, room).run(missing)
                await self._keep(manifest, complete=True)

    def _missing(self, manifest: Manifest) -> list[int]:
        stored = self.store.holdings.among(manifest.chunks)
        return [seq for seq, ref in enumerate(manifest.chunks) if ref not in stored]

    def _holders(self, request: FetchFile) -> list[str]:
        if not is_manifest_id(request.manifest) or len(request.holders) > MAX_HOLDERS:
            raise SwarmbridgeError(Cause.INVALID, "no manifest named, or too many holders")
        for holder in request.holders:
            # Raises where it is no token at all, before anything is asked or stored.
            token_key(holder)
        # In the caller's order, each once: the plan prefers the first.
        return [holder for holder in dict.fromkeys(request.holders) if holder != self.own]

    async def _keep(self, manifest: Manifest, *, complete: bool) -> None:
        known = await self.index.find(manifest.digest)
        # Written again it would only be news to every instance's watch.
        if known is not None and known.complete and complete:
            return
        # Indexed first: another signer's fileId is refused before anything is stored.
        await self.index.add(manifest, complete=complete, stored_ms=known.stored_ms if known else unix_ms())
        if manifest.digest in self.store.holdings:
            return
        try:
            await self.store.put_manifest(manifest)
        except SwarmbridgeError:
            # An entry without its manifest would be a file that nobody can read.
            summary = self.index.known(manifest.digest)
            if known is None and summary is not None:
                await self.index.remove(summary)
                self.index.removed(manifest.digest)
            raise

    async def _manifest(self, manifest_id: str, holders: list[str], transfer: str, progress: Progress) -> Manifest:
        summary = await self.index.find(manifest_id)
        stored = await self.store.get_manifest(summary.digest) if summary is not None else None
        if stored is not None:
            return stored
        if not holders:
            raise SwarmbridgeError(Cause.PEER_UNKNOWN, "nobody to ask")
        give_up_s = self.clock() + STALLED_AFTER_S
        definite_rounds = 0
        cause = ABSENT_CAUSE
        for delay_s in delays_s(RETRY_FIRST_S, RETRY_CAP_S):
            answers = _ManifestAnswer(manifest_id)
            definite = True
            for holder in holders:
                result = await self.deliveries.ask(
                    holder, RequestManifest(manifest_id), MAX_MANIFEST_BYTES, answers.accept, transfer=transfer
                )
                # Only of a page that answered: one that is silent would be silent to every other name too.
                if answers.manifest is None and result.absent:
                    await self._by_other_names(holder, answers, transfer)
                if answers.manifest is not None:
                    progress.counts.waits(None)
                    return answers.manifest
                cause = result.cause or ABSENT_CAUSE
                # One holder that was only silent is worth another round of all.
                definite = definite and (result.absent or cause in DEFINITE)
            definite_rounds += definite
            if definite_rounds >= DEFINITE_ROUNDS or self.clock() + delay_s > give_up_s:
                raise SwarmbridgeError(cause, "no holder gave the manifest")
            progress.counts.waits(cause)
            await asyncio.sleep(delay_s)
        raise AssertionError("delays never end")

    async def _by_other_names(self, holder: str, answers: _ManifestAnswer, transfer: str) -> None:
        """Ask a page, which knows no digests, for what it has announced, until one of them is the one."""
        if token_key(holder) is not None or not is_digest(answers.id):
            return
        for name in self.heard.of(holder)[:MAX_OTHER_NAMES]:
            await self.deliveries.ask(
                holder,
                RequestManifest(name),
                MAX_MANIFEST_BYTES,
                lambda answer, body, name=name: answers.accept_named(name, answer, body),  # type: ignore[misc]
                transfer=transfer,
            )
            if answers.manifest is not None:
                return


class _ManifestAnswer:
    """Checks the answers to one request for a manifest."""

    def __init__(self, manifest_id: str) -> None:
        self.id = manifest_id
        self.manifest: Manifest | None = None

    async def accept(self, answer: PeerAnswer, body: bytes) -> None:
        by_digest = is_digest(self.id)
        self.manifest = await self._open(self.id, answer, body, self.id if by_digest else "")

    async def accept_named(self, name: str, answer: PeerAnswer, body: bytes) -> None:
        """The answer to a request by another name; a good manifest that is not the wanted one is no fault."""
        manifest = await self._open(name, answer, body, "")
        if manifest.digest == self.id:
            self.manifest = manifest

    async def _open(self, asked: str, answer: PeerAnswer, body: bytes, digest: str) -> Manifest:
        if not isinstance(answer, ManifestData) or answer.id != asked:
            raise RemoteProtocolError("another answer than asked for", Cause.INTEGRITY_MISMATCH)
        manifest = await open_manifest(body, digest)
        if not is_digest(asked) and manifest.file_id != asked:
            raise RemoteProtocolError("another file than asked for", Cause.INTEGRITY_MISMATCH)
        return manifest


class _ChunkFetch:
    """All chunks of one manifest: starts what the plan says, tells the plan what became of it.

    Cancellation: cancels every delivery in flight before it returns; each is over at its manager by its
    deadline. Back-pressure: the plan's windows.
    """

    def __init__(
        self,
        fetching: Fetching,
        manifest: Manifest,
        holders: list[str],
        transfer: str,
        progress: Progress,
        room: Room,
    ) -> None:
        self._fetching = fetching
        self._manifest = manifest
        self._holders = holders
        self._transfer = transfer
        self._counts = progress.counts
        self._room = room
        self._open: dict[asyncio.Task[Delivered], Assignment] = {}
        self._last_cause = ABSENT_CAUSE
        self._gained_s = 0.0

    async def run(self, missing: list[int]) -> None:
        """Raises: SwarmbridgeError: no progress for STALLED_AFTER_S, with the last cause."""
        if not self._holders:
            raise SwarmbridgeError(Cause.PEER_UNKNOWN, "nobody to ask")
        clock = self._fetching.clock
        plan = FetchPlan(missing, self._holders, self._fetching.max_window)
        stalled_at_s = clock() + STALLED_AFTER_S
        self._gained_s = clock()
        try:
            while not plan.finished:
                now_s = clock()
                if now_s >= stalled_at_s:
                    raise SwarmbridgeError(self._last_cause, "no chunk for a while")
                for assignment in plan.assign(now_s):
                    self._open[asyncio.create_task(self._ask(plan, assignment), name="delivery")] = assignment
                wake_s = min(plan.next_wake_s(now_s) or stalled_at_s, stalled_at_s)
                # The stall is counted from the last new chunk: answers that bring none, however many, do not put it
                # off.
                if await self._settle(plan, wake_s - now_s):
                    self._gained_s = clock()
                    stalled_at_s = self._gained_s + STALLED_AFTER_S
                    self._counts.waits(None)
        finally:
            await self._cancel_open()

    async def _settle(self, plan: FetchPlan, timeout_s: float) -> bool:
        """Wait for deliveries to end, or for the time. Returns: whether a new chunk was stored."""
        # Every holder rests, or lacks all that is missing.
        if not self._open:
            await asyncio.sleep(timeout_s)
            return False
        ended, _ = await asyncio.wait(self._open, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        gained = False
        for task in ended:
            assignment, result = self._open.pop(task), task.result()
            if result.found:
                # All that have ended, before the plan assigns again: it goes by windows that are up to date.
                gained |= self._gain(plan, assignment, result)
            elif result.ours and result.cause is not None:
                # Our own store cannot take it: no other holder, transport or time would help.
                raise SwarmbridgeError(result.cause, "a chunk that came could not be stored")
            elif result.absent:
                self._failed(ABSENT_CAUSE)
                plan.absent(assignment, self._fetching.clock())
            else:
                self._failed(result.cause or Cause.OTHER)
                plan.failed(assignment, self._last_cause, self._fetching.clock())
        return gained

    def _failed(self, cause: Cause) -> None:
        self._last_cause = cause
        if self._fetching.clock() - self._gained_s >= WAITS_AFTER_S:
            self._counts.waits(cause)

    def _gain(self, plan: FetchPlan, assignment: Assignment, result: Delivered) -> bool:
        # The slow one of two that were asked: its chunk was stored a second time, and is counted once.
        if not plan.delivered(assignment):
            return False
        self._room.stored(self._manifest.chunk_size(assignment.seq))
        self._counts.add_chunk(self._manifest.chunk_size(assignment.seq))
        self._counts.add_confirmed(result.transport, result.size_bytes)
        return True

    async def _ask(self, plan: FetchPlan, assignment: Assignment) -> Delivered:
        ref = self._manifest.chunks[assignment.seq]

        async def accept(answer: PeerAnswer, body: bytes) -> None:
            if not isinstance(answer, ChunkData):
                raise RemoteProtocolError("another answer than asked for", Cause.INTEGRITY_MISMATCH)
            # Against the manifest and not the peer's own header: a chunk of another file is no answer.
            verify_chunk(answer, body, self._manifest, ref)
            # Name and type are no part of what was checked: the manifest's are.
            header = msgspec.structs.replace(
                answer, mime=self._manifest.mime, original_name=self._manifest.original_name
            )
            await self._fetching.store.put_chunk(header, body)

        def slow(retry_after_s: float) -> None:
            plan.slowed(assignment.peer, retry_after_s, self._fetching.clock())

        return await self._fetching.deliveries.ask(
            assignment.peer, RequestChunk(ref), MAX_CIPHER_BYTES, accept, transfer=self._transfer, on_slow=slow
        )

    async def _cancel_open(self) -> None:
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)


def _start_counts(progress: Progress, manifest: Manifest, missing: list[int]) -> None:
    counts = progress.counts
    counts.name = manifest.original_name
    counts.manifest = manifest.digest
    counts.chunks_total = len(manifest.chunks)
    counts.bytes_total = manifest.size
    counts.chunks_done = len(manifest.chunks) - len(missing)
    counts.bytes_done = manifest.size - sum(map(manifest.chunk_size, missing))
    counts.changed()
