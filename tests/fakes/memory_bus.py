"""A bus in memory with the semantics of the real one, for tests of services: no server, no sockets.

One `MemoryHub` is one NATS account; each process under test gets a `MemoryBus(hub, instance)`. Messages are
really encoded and decoded, so that a type mistake shows here and not in production. Processes can be killed,
frozen and cut off: `hub.kill("webrtc-1")`, `hub.freeze(…)` / `hub.thaw(…)`, `hub.disconnect(…)` / `hub.reconnect(…)`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, TypeVar

import msgspec

from shared.bus.contract import Handler, KeyValue, KvEntry, Subscription
from shared.bus.messages.codec import decode_envelope, decode_reply, encode_envelope
from shared.bus.messages.conversations import matches
from shared.bus.messages.subjects import STREAM_HOPS
from shared.bus.serving import BusCounts, Respond, Serving, send_span
from shared.clock import unix_ms
from shared.errors import BusTimeout, BusUnavailable, Cause, NoResponders, SwarmbridgeError
from shared.telemetry.propagation import current_traceparent

T = TypeVar("T")
R = TypeVar("R")

MAX_PAYLOAD_BYTES = 2_000_000
"""As the real server is configured (docs/limits.md)."""

DEDUPE_WINDOW_MS = 120_000
MAX_RECORDS = 100_000


@dataclass(eq=False)
class _Interest:
    """One subscription."""

    bus: MemoryBus
    pattern: str
    queue: str
    serving: Serving[Any]

    async def close(self) -> None:
        self.bus.hub.interests.discard(self)


@dataclass(eq=False)
class _Listener:
    """A KV watch or a follower of the stream; `on_item` takes (revision or sequence, item)."""

    bus: MemoryBus
    source: _Bucket | _Stream
    on_item: Callable[[Any], None]
    seen: dict[str, int] = field(default_factory=dict)
    last: int = 0

    async def close(self) -> None:
        self.source.listeners.discard(self)


@dataclass(eq=False)
class _Stored:
    value: bytes | None
    revision: int
    expires_ms: int

    def live(self) -> bool:
        return not self.expires_ms or unix_ms() < self.expires_ms


class _Bucket:
    def __init__(self) -> None:
        self.entries: dict[str, _Stored] = {}
        self.listeners: set[_Listener] = set()
        self._revisions = itertools.count(1)

    def stored(self, key: str) -> _Stored | None:
        """What the server holds for a key: a live value or a delete marker. An expired one leaves nothing."""
        stored = self.entries.get(key)
        if stored is not None and not stored.live():
            del self.entries[key]
            return None
        return stored

    def write(self, key: str, value: bytes | None, ttl_s: float) -> int:
        now_ms = unix_ms()
        stored = _Stored(value, next(self._revisions), now_ms + round(ttl_s * 1000) if ttl_s else 0)
        self.entries[key] = stored
        for listener in list(self.listeners):
            self.tell(listener, key, stored)
        return stored.revision

    def tell(self, listener: _Listener, key: str, stored: _Stored) -> None:
        if listener.bus.reachable and listener.seen.get(key) != stored.revision:
            listener.seen[key] = stored.revision
            listener.bus.call_soon(listener.on_item, KvEntry(key, stored.value, stored.revision))

    def catch_up(self, listener: _Listener) -> None:
        for key in list(self.entries):
            stored = self.stored(key)
            if stored is not None:
                self.tell(listener, key, stored)


class _Stream:
    def __init__(self) -> None:
        self.records: list[tuple[int, bytes, int]] = []
        self.listeners: set[_Listener] = set()
        self._ids: dict[str, int] = {}
        self._sequences = itertools.count(1)

    def append(self, data: bytes, message_id: str) -> None:
        now_ms = unix_ms()
        self._ids = {key: at for key, at in self._ids.items() if at > now_ms - DEDUPE_WINDOW_MS}
        if message_id in self._ids:
            return
        self._ids[message_id] = now_ms
        self.records.append((next(self._sequences), data, now_ms))
        del self.records[:-MAX_RECORDS]
        for listener in list(self.listeners):
            self.catch_up(listener)

    def catch_up(self, listener: _Listener) -> None:
        if not listener.bus.reachable:
            return
        for sequence, data, stored_ms in self.records:
            if sequence > listener.last:
                listener.last = sequence
                listener.bus.call_soon(listener.on_item, (data, stored_ms))


class MemoryHub:
    """One account: whatever its buses share."""

    def __init__(self) -> None:
        self.interests: set[_Interest] = set()
        self.buckets: dict[str, _Bucket] = {}
        self.streams: dict[str, _Stream] = {STREAM_HOPS: _Stream()}
        self.buses: dict[str, MemoryBus] = {}

    def bus(self, instance: str) -> MemoryBus:
        return MemoryBus(self, instance)

    def kill(self, instance: str) -> None:
        """As SIGKILL does: its subscriptions are gone, what it was doing stops, its requests never return."""
        bus = self.buses.pop(instance)
        bus.reachable = bus.alive = False
        mine = {interest for interest in self.interests if interest.bus is bus}
        self.interests -= mine
        for interest in mine:
            interest.serving.cancel()
        sources: list[_Bucket | _Stream] = [*self.buckets.values(), *self.streams.values()]
        for source in sources:
            source.listeners = {listener for listener in source.listeners if listener.bus is not bus}

    def freeze(self, instance: str) -> None:
        """As SIGSTOP does: interest stays, nothing is handled or sent until `thaw`."""
        self.buses[instance].running.clear()

    def thaw(self, instance: str) -> None:
        bus = self.buses[instance]
        bus.running.set()
        backlog, bus.backlog = bus.backlog, []
        for call in backlog:
            bus.call_soon(*call)

    def disconnect(self, instance: str) -> None:
        """Cut one process off: its interest is gone, its publishes and requests fail."""
        self.buses[instance].reachable = False

    def reconnect(self, instance: str) -> None:
        bus = self.buses[instance]
        bus.reachable = True
        bus.counts.reconnects += 1
        for bucket in self.buckets.values():
            for listener in list(bucket.listeners):
                if listener.bus is bus:
                    bucket.catch_up(listener)
        for stream in self.streams.values():
            for listener in list(stream.listeners):
                if listener.bus is bus:
                    stream.catch_up(listener)
        for callback in bus.reconnect_callbacks:
            bus.call_soon(callback)

    def post(self, subject: str, data: bytes, respond: Respond | None) -> int:
        """Hand a message to every interested process, to one of each queue group. Returns: how many."""
        if len(data) > MAX_PAYLOAD_BYTES:
            raise SwarmbridgeError(Cause.TOO_LARGE, "over the bus's message size")
        chosen: list[_Interest] = []
        groups: dict[tuple[str, str], list[_Interest]] = {}
        for interest in self.interests:
            if interest.bus.reachable and matches(interest.pattern, subject):
                if interest.queue:
                    groups.setdefault((interest.pattern, interest.queue), []).append(interest)
                else:
                    chosen.append(interest)
        chosen += [random.choice(members) for members in groups.values()]
        for interest in chosen:
            interest.bus.call_soon(interest.serving.receive, subject, data, interest.bus.sender(respond))
        return len(chosen)


class MemoryBus:
    """One process's bus: implements shared.bus.contract.Bus."""

    def __init__(self, hub: MemoryHub, instance: str) -> None:
        self.hub = hub
        self.instance = instance
        self.counts = BusCounts()
        self.alive = True
        self.reachable = True
        self.running = asyncio.Event()
        self.running.set()
        self.backlog: list[tuple[Any, ...]] = []
        self.reconnect_callbacks: list[Callable[[], None]] = []
        hub.buses[instance] = self

    @property
    def connected(self) -> bool:
        return self.reachable

    def call_soon(self, function: Callable[..., None], *args: Any) -> None:
        """Run in this process: later when it is frozen, never when it is dead."""
        if self.running.is_set():
            asyncio.get_running_loop().call_soon(self._run, function, *args)
        else:
            self.backlog.append((function, *args))

    def _run(self, function: Callable[..., None], *args: Any) -> None:
        if self.alive:
            function(*args)

    def sender(self, respond: Respond | None) -> Respond | None:
        """`respond` as this process would call it: a frozen one waits, a dead or cut off one reaches nobody."""
        if respond is None:
            return None

        async def send(data: bytes) -> None:
            await self.ready()
            await respond(data)

        return send

    async def ready(self) -> None:
        """Wait while frozen. Raises: BusUnavailable when cut off or dead."""
        await self.running.wait()
        if not self.reachable:
            raise BusUnavailable("not connected")

    async def publish(self, subject: str, body: msgspec.Struct) -> None:
        await self.ready()
        self.hub.post(subject, encode_envelope(body, 0, current_traceparent()), None)

    async def request(self, subject: str, body: msgspec.Struct, reply_type: type[R] | UnionType, timeout_s: float) -> R:
        with send_span(subject) as traceparent:
            await self.ready()
            answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

            async def respond(data: bytes) -> None:
                if len(data) > MAX_PAYLOAD_BYTES:
                    raise SwarmbridgeError(Cause.TOO_LARGE, "over the bus's message size")
                if not answer.done():
                    answer.set_result(data)

            data = encode_envelope(body, unix_ms() + round(timeout_s * 1000), traceparent)
            if not self.hub.post(subject, data, respond):
                await asyncio.sleep(0)
                raise NoResponders("nobody serves this")
            try:
                async with asyncio.timeout(timeout_s):
                    data = await answer
            except TimeoutError:
                raise BusTimeout("no answer in time") from None
            return decode_reply(data, reply_type)

    async def serve(
        self,
        subject: str,
        body_type: type[T] | UnionType,
        handler: Handler[T],
        *,
        queue: str = "",
        max_concurrent: int = 256,
    ) -> Subscription:
        await self.ready()
        interest = _Interest(self, subject, queue, Serving(body_type, handler, max_concurrent, self.counts))
        self.hub.interests.add(interest)
        return interest

    async def kv(self, bucket: str) -> KeyValue:
        await self.ready()
        return MemoryKeyValue(self, self.hub.buckets.setdefault(bucket, _Bucket()))

    async def append(self, subject: str, body: msgspec.Struct, message_id: str) -> None:
        await self.ready()
        # Through bytes, as on the wire.
        self.hub.streams[STREAM_HOPS].append(encode_envelope(body, 0, current_traceparent()), message_id)

    async def follow(
        self, stream: str, body_type: type[T] | UnionType, on_record: Callable[[T, int], None]
    ) -> Subscription:
        await self.ready()

        def on_item(item: tuple[bytes, int]) -> None:
            on_record(decode_envelope(item[0], body_type).body, item[1])

        source = self.hub.streams[stream]
        listener = _Listener(self, source, on_item)
        source.listeners.add(listener)
        source.catch_up(listener)
        return listener

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self.reconnect_callbacks.append(callback)

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Nothing is lost in memory."""

    def on_crash(self, callback: Callable[[str], None]) -> None:
        """Nothing keeps a bus in memory."""

    async def close(self) -> None:
        mine = {interest for interest in self.hub.interests if interest.bus is self}
        self.hub.interests -= mine
        for interest in mine:
            await interest.serving.finish()
        if self.alive:
            self.hub.kill(self.instance)


class MemoryKeyValue:
    """A bucket as one process sees it."""

    def __init__(self, bus: MemoryBus, bucket: _Bucket) -> None:
        self._bus = bus
        self._bucket = bucket

    async def get(self, key: str) -> KvEntry | None:
        await self._bus.ready()
        stored = self._bucket.stored(key)
        if stored is None or stored.value is None:
            return None
        return KvEntry(key, stored.value, stored.revision)

    async def put(self, key: str, value: bytes) -> int:
        await self._bus.ready()
        return self._bucket.write(key, value, 0.0)

    async def create(self, key: str, value: bytes, ttl_s: float = 0.0) -> int | None:
        await self._bus.ready()
        stored = self._bucket.stored(key)
        if stored is not None and stored.value is not None:
            return None
        return self._bucket.write(key, value, ttl_s)

    async def update(self, key: str, value: bytes, revision: int, ttl_s: float = 0.0) -> int | None:
        await self._bus.ready()
        stored = self._bucket.stored(key)
        if stored is None or stored.revision != revision:
            return None
        return self._bucket.write(key, value, ttl_s)

    async def delete(self, key: str) -> None:
        await self._bus.ready()
        self._bucket.write(key, None, 0.0)

    async def keys(self) -> list[str]:
        await self._bus.ready()
        found = {key: self._bucket.stored(key) for key in list(self._bucket.entries)}
        return sorted(key for key, stored in found.items() if stored is not None and stored.value is not None)

    async def watch(self, on_entry: Callable[[KvEntry], None], *, restore: bool = False) -> Subscription:
        await self._bus.ready()
        listener = _Listener(self._bus, self._bucket, on_entry)
        for key in await self.keys():
            entry = await self.get(key)
            if entry is not None:
                listener.seen[key] = entry.revision
                on_entry(entry)
        self._bucket.listeners.add(listener)
        return listener
