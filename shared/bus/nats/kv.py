"""JetStream KV buckets behind `contract.KeyValue`.

A bucket `b` is the stream `KV_b` over `$KV.b.>`, one message a key; compare-and-set is JetStream's expected last
sequence of the subject, a deletion a message with `KV-Operation: DEL` (ADR-8). Reads are direct gets.

Expiry (per-key TTL) is silent: no marker is left, because with markers a new `create` keeps failing until the
marker itself expires (docs/nats.md). A watch therefore tells changes and deletions, not expiries.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping

from shared.backoff import delays_s
from shared.bus.contract import KvEntry, Subscription
from shared.bus.nats.connection import NatsConnection, header
from shared.bus.nats.jetstream import (
    EXPECTED_LAST,
    TTL,
    WRONG_LAST_SEQUENCE,
    JetStreamError,
    Record,
    append,
    get_last,
    read_after,
)
from shared.bus.nats.layout import Place
from shared.bus.nats.reader import OrderedReader
from shared.errors import BusError
from shared.tasks.owned import Tasks

MIN_TTL_S = 1
"""NATS counts a message's TTL in whole seconds, at least one (ADR-43)."""

DELETION_KEPT_S = 7 * 86_400
"""What says that a key was deleted goes away after this long, so that a bucket is not filled by what is no longer in
it. A watch that was away for longer misses the deletion."""

RESTORE_FIRST_S = 0.1
RESTORE_CAP_S = 2.0

OPERATION = "KV-Operation"
MARKER = "Nats-Marker-Reason"

log = logging.getLogger(__name__)


class NatsKeyValue:
    """One bucket, opened."""

    def __init__(self, connection: NatsConnection, place: Place) -> None:
        self._connection = connection
        self._place = place
        self._prefix = place.prefix

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
        # Over what the deletion left, by its own revision: another that creates it meanwhile wins.
        return await self._write(key, value, entry.revision if entry is not None else 0, ttl_s)

    async def update(self, key: str, value: bytes, revision: int, ttl_s: float = 0.0) -> int | None:
        return await self._write(key, value, revision, ttl_s)

    async def delete(self, key: str) -> None:
        await append(self._connection, self._prefix + key, b"", {OPERATION: "DEL", TTL: f"{DELETION_KEPT_S}s"})

    async def keys(self) -> list[str]:
        live: dict[str, bool] = {}
        sequence, more = 0, True
        while more:
            records, more = await read_after(self._connection, self._place.stream, sequence)
            for record in records:
                sequence = record.sequence
                live[record.subject.removeprefix(self._prefix)] = not _is_deletion(record.headers)
        return sorted(key for key, is_live in live.items() if is_live)

    async def watch(self, on_entry: Callable[[KvEntry], None], *, restore: bool = False) -> Subscription:
        watch = _Watch(self, self._connection, self._place, on_entry, restore)
        await watch.start()
        return watch

    async def _stored(self, key: str) -> KvEntry | None:
        """What the server holds for a key; value None where that is a deletion."""
        record = await get_last(self._connection, self._place.stream, self._prefix + key)
        return _entry(key, record) if record is not None else None

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


class _Watch:
    """A watch; with `restore`, the memory of what the bucket held, put back into one that was lost and made again."""

    def __init__(
        self,
        bucket: NatsKeyValue,
        connection: NatsConnection,
        place: Place,
        on_entry: Callable[[KvEntry], None],
        restore: bool,
    ) -> None:
        self._bucket = bucket
        self._prefix = place.prefix
        self._on_entry = on_entry
        self._restore = restore
        self._held: dict[str, bytes] = {}
        self._starting = True
        self._reader = OrderedReader(connection, place, self._on_record, on_recreated=self._on_recreated)
        self._tasks = Tasks()

    async def start(self) -> None:
        await self._reader.start()
        self._starting = False

    async def close(self) -> None:
        await self._reader.close()
        await self._tasks.close()

    def _on_record(self, record: Record) -> None:
        entry = _entry(record.subject.removeprefix(self._prefix), record)
        if self._restore:
            if entry.value is None:
                self._held.pop(entry.key, None)
            else:
                self._held[entry.key] = entry.value
        # While it starts there is nothing yet that a deletion could take away.
        if entry.value is not None or not self._starting:
            self._on_entry(entry)

    def _on_recreated(self) -> None:
        if self._held:
            self._tasks.start(self._put_back(dict(self._held)), name="restoring a bucket")

    async def _put_back(self, held: dict[str, bytes]) -> None:
        """Everything that is not there again already, tried until the bus takes it; what was written since wins."""
        delays = delays_s(RESTORE_FIRST_S, RESTORE_CAP_S)
        while held:
            key, value = next(iter(held.items()))
            try:
                await self._bucket.create(key, value)
                del held[key]
            except BusError as error:
                log.debug("restoring a bucket: %s", error.cause)
                await asyncio.sleep(next(delays))


def _entry(key: str, record: Record) -> KvEntry:
    deleted = _is_deletion(record.headers)
    return KvEntry(key, None if deleted else record.data, record.sequence)


def _is_deletion(headers: Mapping[str, str] | None) -> bool:
    return header(headers, OPERATION) in ("DEL", "PURGE") or bool(header(headers, MARKER))
