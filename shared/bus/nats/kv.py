"""JetStream KV buckets behind `contract.KeyValue`.

A bucket `b` is the stream `KV_b` over `$KV.b.>`, one message a key; compare-and-set is JetStream's expected last
sequence of the subject, a deletion a message with `KV-Operation: DEL` (ADR-8). Reads are direct gets.

Expiry (per-key TTL) is silent: no marker is left, because with markers a new `create` keeps failing until the
marker itself expires (docs/nats.md). A watch therefore tells changes and deletions, not expiries.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from datetime import datetime

from shared.bus.contract import KvEntry, Subscription
from shared.bus.nats.connection import NatsConnection, header
from shared.bus.nats.jetstream import (
    API_TIMEOUT_S,
    EXPECTED_LAST,
    TTL,
    WRONG_LAST_SEQUENCE,
    JetStreamError,
    OrderedReader,
    Record,
    append,
)
from shared.errors import BusUnavailable, NoResponders

MIN_TTL_S = 1
"""NATS counts a message's TTL in whole seconds, at least one (ADR-43)."""

DELETION_KEPT_S = 7 * 86_400
"""What says that a key was deleted goes away after this long, so that a bucket is not filled by what is no longer in
it. A watch that was away for longer misses the deletion."""

OPERATION = "KV-Operation"
MARKER = "Nats-Marker-Reason"

log = logging.getLogger(__name__)


class NatsKeyValue:
    """One bucket, opened."""

    def __init__(self, connection: NatsConnection, bucket: str) -> None:
        self._connection = connection
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."

    async def get(self, key: str) -> KvEntry | None:
        entry = await self._stored(key)
        return entry if entry is not None and entry.value is not None else None

    async def put(self, key: str, value: bytes) -> int:
        return await append(self._connection, self._prefix + key, value)

    async def create(self, key: str, value: bytes, ttl_s: float = 0.0) -> int | None:
        revision = await self._write(key, value, 0, ttl_s)
        if revision is not None:
            return revision
        # There is a message: a live value, or what a deletion left.
        entry = await self._stored(key)
        if entry is not None and entry.value is not None:
            return None
        return await self._write(key, value, entry.revision if entry is not None else 0, ttl_s)

    async def update(self, key: str, value: bytes, revision: int, ttl_s: float = 0.0) -> int | None:
        return await self._write(key, value, revision, ttl_s)

    async def delete(self, key: str) -> None:
        await append(self._connection, self._prefix + key, b"", {OPERATION: "DEL", TTL: f"{DELETION_KEPT_S}s"})

    async def keys(self) -> list[str]:
        live: dict[str, bool] = {}

        def on_record(record: Record) -> None:
            live[record.subject.removeprefix(self._prefix)] = not _is_deletion(record.headers)

        reader = OrderedReader(self._connection, self._stream, on_record, last_per_subject=True, headers_only=True)
        await reader.start()
        await reader.close()
        return sorted(key for key, is_live in live.items() if is_live)

    async def watch(self, on_entry: Callable[[KvEntry], None]) -> Subscription:
        seen: dict[str, tuple[int, int]] = {}
        starting = True

        def on_record(record: Record) -> None:
            key = record.subject.removeprefix(self._prefix)
            # After a reconnect the last entry of every key comes again. The time is compared too: a bucket
            # that was made anew counts its revisions from 1.
            if seen.get(key) == (record.sequence, record.stored_ms):
                return
            seen[key] = (record.sequence, record.stored_ms)
            deleted = _is_deletion(record.headers)
            if deleted and starting:
                return
            on_entry(KvEntry(key, None if deleted else record.data, record.sequence, record.stored_ms))

        reader = OrderedReader(self._connection, self._stream, on_record, last_per_subject=True)
        await reader.start()
        starting = False
        return reader

    async def _stored(self, key: str) -> KvEntry | None:
        """What the server holds for a key; value None where that is a deletion."""
        subject = f"$JS.API.DIRECT.GET.{self._stream}.{self._prefix}{key}"
        try:
            message = await self._connection.request(subject, b"", API_TIMEOUT_S)
        except NoResponders:
            raise BusUnavailable("no such bucket, or no JetStream") from None
        status = header(message.headers, "Status")
        if status == "404":
            return None
        if status:
            raise JetStreamError(int(status), 0)
        return _entry(key, message.data, message.headers)

    async def _write(self, key: str, value: bytes, expected: int, ttl_s: float) -> int | None:
        """Store where the key's last message is `expected` (0 = none). Returns: the revision, None where not."""
        headers = {EXPECTED_LAST: str(expected)}
        if ttl_s:
            headers[TTL] = f"{max(MIN_TTL_S, math.ceil(ttl_s))}s"
        try:
            return await append(self._connection, self._prefix + key, value, headers)
        except JetStreamError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                return None
            raise


def _entry(key: str, data: bytes, headers: Mapping[str, str] | None) -> KvEntry:
    deleted = _is_deletion(headers)
    stored_at = datetime.fromisoformat(_microseconds(header(headers, "Nats-Time-Stamp")))
    revision = int(header(headers, "Nats-Sequence"))
    return KvEntry(key, None if deleted else data, revision, round(stored_at.timestamp() * 1000))


def _microseconds(stamp: str) -> str:
    """RFC 3339 with nanoseconds, as the server writes it, cut to what `datetime` reads."""
    whole, dot, rest = stamp.partition(".")
    digits = rest.rstrip("Zz")
    return f"{whole.rstrip('Zz')}{dot}{digits[:6].ljust(6, '0') if dot else ''}+00:00"


def _is_deletion(headers: Mapping[str, str] | None) -> bool:
    return header(headers, OPERATION) in ("DEL", "PURGE") or bool(header(headers, MARKER))
