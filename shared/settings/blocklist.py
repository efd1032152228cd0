"""The blocklist: peers that this node will have nothing, or half of nothing, to do with. In the KV bucket `blocklist`.

People change it through the gateway; every manager and worker follows it, so that a change is in force on every
transport and on open links within 100 ms, and in a process that was cut off when it is connected again.

    direction   the peer's requests   new links of the peer   our requests   our dials   its open links
    inbound     refused               closed                  go on          go on       stay
    outbound    served                taken                   refused        refused     stay
    all         refused               closed                  refused        refused     closed

Every refusal has the cause `blocked`. Peers are peer *names*, as people and telemetry see them: a member's is made
of its key, which the seal proves. A value is JSON `{"direction", "note", "since_ms"}`; one that cannot be read is
logged, counted, and blocks everything: a block must not be lifted by an accident.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum

import msgspec

from shared.bus.contract import Bus, KeyValue, KvEntry, Subscription
from shared.bus.messages.subjects import BUCKET_BLOCKLIST
from shared.clock import unix_ms
from shared.errors import BusError, Cause, SwarmbridgeError
from shared.ids import is_peer_name
from shared.undecodable import UNDECODABLE

MAX_BLOCKED = 4_096
"""Peers on the list; one more is refused as TOO_LARGE. With the longest note each the bucket holds them all."""

MAX_NOTE_CHARS = 120

IN_FORCE_TIMEOUT_S = 1.0
"""How long a change waits to hear of itself. It is stored by then, and comes into force when the watch is back."""

log = logging.getLogger(__name__)


class Direction(StrEnum):
    """INBOUND: what the peer asks of us. OUTBOUND: what we ask of it."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    ALL = "all"


class Block(msgspec.Struct, frozen=True):
    """One peer's block. note: why, in the words of whoever set it. since_ms: wall clock."""

    direction: Direction = Direction.ALL
    note: str = ""
    since_ms: int = 0

    def covers(self, direction: Direction) -> bool:
        return self.direction in (Direction.ALL, direction)


_DECODER = msgspec.json.Decoder(Block)


class Blocklist:
    """The list as this process knows it; reads are look-ups. malformed: stored values that could not be read."""

    def __init__(self) -> None:
        self._blocks: dict[str, Block] = {}
        self._revision = 0
        self._news = asyncio.Event()
        self._callbacks: list[Callable[[str], None]] = []
        self._bucket: KeyValue | None = None
        self._watch: Subscription | None = None
        self.malformed = 0

    async def start(self, bus: Bus, *, keep: bool = False) -> None:
        """Follow the list; what is stored is in force when this returns.

        keep: put it back where the bus has lost it; for a process that may write it. Raises: BusError.
        """
        self._bucket = await bus.kv(BUCKET_BLOCKLIST)
        self._watch = await self._bucket.watch(self._receive, restore=keep)

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()
            self._watch = None

    def blocks(self, peer: str, direction: Direction) -> bool:
        """Whether the peer (a name) is blocked in that direction; ALL: in both."""
        block = self._blocks.get(peer)
        return block is not None and block.covers(direction)

    def snapshot(self) -> dict[str, Block]:
        """Every block by peer name."""
        return dict(sorted(self._blocks.items()))

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Called on the loop with the name of a peer whose block was set, changed or lifted."""
        self._callbacks.append(callback)

    async def block(self, peer: str, direction: Direction, note: str = "") -> None:
        """Set a peer's block for the whole node; in force here when this returns.

        Raises: SwarmbridgeError: INVALID for what is no peer name or too long a note, TOO_LARGE where the list is
        full; BusError where it could not be stored.
        """
        if not is_peer_name(peer) or len(note) > MAX_NOTE_CHARS:
            raise SwarmbridgeError(Cause.INVALID, f"a peer's name, and a note of {MAX_NOTE_CHARS} characters at most")
        if peer not in self._blocks and len(self._blocks) >= MAX_BLOCKED:
            raise SwarmbridgeError(Cause.TOO_LARGE, "the blocklist is full")
        revision = await self._opened().put(peer, msgspec.json.encode(Block(direction, note, unix_ms())))
        await self._heard(lambda: self._revision >= revision)

    async def unblock(self, peer: str) -> bool:
        """Lift a peer's block; in force here when this returns. Returns: whether there was one. Raises: BusError."""
        if peer not in self._blocks:
            return False
        await self._opened().delete(peer)
        await self._heard(lambda: peer not in self._blocks)
        return True

    def _opened(self) -> KeyValue:
        if self._bucket is None:
            raise BusError(Cause.OTHER, "the blocklist is not started")
        return self._bucket

    async def _heard(self, in_force: Callable[[], bool]) -> None:
        """Wait for the watch, the only one that applies changes: two people at once end up with one order."""
        try:
            async with asyncio.timeout(IN_FORCE_TIMEOUT_S):
                while not in_force():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            log.warning("a change of the blocklist is stored and not in force here yet")

    def _receive(self, entry: KvEntry) -> None:
        self._revision = entry.revision
        self._news.set()
        if is_peer_name(entry.key):
            self._apply(entry.key, self._decode(entry))

    def _decode(self, entry: KvEntry) -> Block | None:
        if entry.value is None:
            return None
        try:
            return _DECODER.decode(entry.value)
        except UNDECODABLE:
            self.malformed += 1
            log.error(
                "blocklist: the entry of %s cannot be read and blocks everything, %d so far", entry.key, self.malformed
            )
            return Block(note="the stored entry cannot be read")

    def _apply(self, peer: str, block: Block | None) -> None:
        before = self._blocks.pop(peer, None)
        if block is not None:
            self._blocks[peer] = block
        if before != block:
            for callback in self._callbacks:
                callback(peer)
