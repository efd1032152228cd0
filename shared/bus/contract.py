"""The bus as the services see it; `nats.bus` is the real one, tests/fakes has one in memory.

Requests and events carry msgspec structs; the bus wraps them in envelopes, propagates the deadline and the
trace context, and drops and counts what is expired or does not decode.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import UnionType
from typing import Protocol, TypeVar

import msgspec

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Incoming:
    """What came with a message beside its body. deadline_ms: wall clock, 0 = none. traceparent: W3C or ""."""

    subject: str
    deadline_ms: int
    traceparent: str

    def remaining_s(self, now_ms: int, default_s: float) -> float:
        """Seconds until the deadline, never negative; `default_s` where there is none."""
        return max(0.0, (self.deadline_ms - now_ms) / 1000) if self.deadline_ms else default_s


Handler = Callable[[T, Incoming], Awaitable[msgspec.Struct | None]]
"""Runs in its own task, with the sender's trace context current.

A returned struct is the reply; None replies Done where a reply is wanted. A raised SwarmbridgeError becomes
the reply's cause (RemoteFailure at the caller); anything else is logged and becomes Cause.OTHER.
"""


class Subscription(Protocol):
    async def close(self) -> None:
        """End interest; when it returns, a new request no longer reaches us. Handlers in flight go on."""


@dataclass(frozen=True, slots=True)
class KvEntry:
    """value None: deleted or expired. revision: for compare-and-set."""

    key: str
    value: bytes | None
    revision: int


class KeyValue(Protocol):
    """A JetStream KV bucket. All methods raise BusUnavailable or BusTimeout when the bus cannot answer."""

    async def get(self, key: str) -> KvEntry | None: ...
    async def put(self, key: str, value: bytes) -> int: ...
    async def create(self, key: str, value: bytes, ttl_s: float = 0.0) -> int | None:
        """Write only if there is no live value; None if there is. ttl_s 0 = it never expires."""

    async def update(self, key: str, value: bytes, revision: int, ttl_s: float = 0.0) -> int | None:
        """Compare-and-set; None when the revision has moved on."""

    async def delete(self, key: str) -> None: ...
    async def keys(self) -> list[str]: ...
    async def watch(self, on_entry: Callable[[KvEntry], None], *, restore: bool = False) -> Subscription:
        """Call for every live entry (before this returns) and each later change, also over reconnects.

        restore: put back what was there, where the bucket was lost and made again; for those who may write it.
        """


class Bus(Protocol):
    """instance: this process's name in subjects and NATS micro."""

    instance: str

    @property
    def connected(self) -> bool: ...

    async def publish(self, subject: str, body: msgspec.Struct) -> None:
        """Fire and forget. Raises BusUnavailable while disconnected (NATS would drop it in silence)."""

    async def request(self, subject: str, body: msgspec.Struct, reply_type: type[R] | UnionType, timeout_s: float) -> R:
        """Ask and wait. The envelope's deadline is now + timeout_s.

        Raises: NoResponders at once; BusTimeout; BusUnavailable; RemoteFailure with the server's cause.
        """

    async def serve(
        self,
        subject: str,
        body_type: type[T] | UnionType,
        handler: Handler[T],
        *,
        queue: str = "",
        max_concurrent: int = 256,
    ) -> Subscription:
        """Handle messages; when this returns, a request from any client reaches us (no false 503).

        Back-pressure: at most max_concurrent handlers run; one more is answered BUSY and counted.
        """

    async def kv(self, bucket: str) -> KeyValue:
        """Open a bucket, made with this project's settings where it does not exist."""

    async def append(self, subject: str, body: msgspec.Struct, message_id: str) -> None:
        """Append to the hops stream; the same message_id within its window is stored once."""

    async def follow(
        self, stream: str, body_type: type[T] | UnionType, on_record: Callable[[T, int], None]
    ) -> Subscription:
        """Every stored record in order (body, stored_at_ms), then new ones, also over reconnects, none twice."""

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Called on the loop after each reconnect."""

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Called with the name of a bucket or stream that this process reads, when it was lost and made again."""

    def on_crash(self, callback: Callable[[str], None]) -> None:
        """Called with the name of a task without which the bus does nothing any more, when it has died: end."""

    async def close(self) -> None:
        """Finish handlers in flight (bounded), then disconnect."""
