"""The node's sealed record in the DHT: published while the DHT works, looked up for a peer whose key is wanted.

Only where the mesh secret is configured: without it a record would tell anybody who knows the key where the node is.
A node's workers share one record, and the last to publish is in it; who links with one of them has the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from services.webtorrent.dht import Dht
from services.webtorrent.limits import REFUSED_RECORD
from shared.clock import Clock, unix_ms
from shared.errors import LocalProtocolError, RemoteProtocolError, SwarmbridgeError
from shared.wire.dhtrecord.record import (
    MESH_SECRET_BYTES,
    NONCE_BYTES,
    DhtRecord,
    RecordKeys,
    encode_body,
    open_record,
    record_keys,
    seal_record,
)

PUBLISH_EVERY_S = 1_800.0
"""A quarter of a record's life; DHT nodes drop an item after two hours (BEP 44)."""
RETRY_S = 15.0
"""After nobody signed it, or while the DHT is not joined."""
MAX_LOOKED_UP = 256
"""Peers whose answers are waited for; the oldest are forgotten first."""

SignRecord = Callable[[bytes], Awaitable[bytes]]
"""The identity's signature over a record's body. Raises: SwarmbridgeError: nobody can sign now."""
Found = Callable[[Sequence[str], bytes], None]
"""endpoints of the owner of this key"""

log = logging.getLogger(__name__)


def read_mesh_secret(path: str) -> bytes:
    """64 hexadecimal digits in a file. Raises: LocalProtocolError: there are none; it says what to do."""
    try:
        with open(path, encoding="ascii") as file:
            secret = bytes.fromhex(file.read().strip())
    except (OSError, ValueError):
        secret = b""
    if len(secret) != MESH_SECRET_BYTES:
        raise LocalProtocolError("trust.mesh_secret_file must name a file with 64 hexadecimal digits")
    return secret


class Beacon:
    """sign: see SignRecord. endpoints: our wire as others reach it, now. found: see Found. refused: the worker's.

    Cancellation: nothing is left of `run`; what is in the DHT ages there.
    """

    def __init__(
        self,
        mesh_secret: bytes,
        identity: bytes,
        dht: Dht,
        sign: SignRecord,
        endpoints: Callable[[], list[str]],
        found: Found,
        refused: Counter[str],
        clock: Clock,
    ) -> None:
        self._secret, self._own = mesh_secret, record_keys(mesh_secret, identity)
        self._dht, self._sign, self._endpoints, self._found = dht, sign, endpoints, found
        self._refused, self._clock = refused, clock
        self._wanted: OrderedDict[bytes, RecordKeys] = OrderedDict()
        self._newest_s: dict[bytes, int] = {}
        self._wake = asyncio.Event()
        self.published_count = 0
        dht.on_item = self._item

    def look_up(self, key: bytes) -> None:
        """Ask the DHT where the owner of this identity key is; `found` hears of it."""
        keys = record_keys(self._secret, key)
        self._wanted[keys.public] = keys
        self._wanted.move_to_end(keys.public)
        if len(self._wanted) > MAX_LOOKED_UP:
            public, _ = self._wanted.popitem(last=False)
            self._newest_s.pop(public, None)
        self._dht.get_item(keys.public)

    def dht_changed(self) -> None:
        """It may have joined just now."""
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        published_at = float("-inf")
        while True:
            self._wake.clear()
            now = self._clock()
            due_s = published_at + PUBLISH_EVERY_S - now
            if due_s <= 0 and self._dht.joined and await self._publish():
                published_at, due_s = now, PUBLISH_EVERY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(due_s, RETRY_S)):
                    await self._wake.wait()

    async def _publish(self) -> bool:
        endpoints = self._endpoints()
        if not endpoints:
            return False  # we listen on all addresses, and nobody said which of them others reach
        body = encode_body(DhtRecord(unix_ms() // 1000, tuple(endpoints)))
        try:
            signature = await self._sign(body)
        except SwarmbridgeError as error:
            log.info("the DHT record is not signed: %s", error.cause.value)
            return False
        self._dht.put_item(
            self._own.private, self._own.public, seal_record(self._own, body, signature, os.urandom(NONCE_BYTES))
        )
        self.published_count += 1
        return True

    def _item(self, public: bytes, value: bytes) -> None:
        keys = self._wanted.get(public)
        if keys is None:
            return
        try:
            record = open_record(keys, value, unix_ms() / 1000)
        except RemoteProtocolError:
            self._refused[REFUSED_RECORD] += 1
            return
        if record.issued_at_s < self._newest_s.get(public, 0):
            self._refused[REFUSED_RECORD] += 1  # an older one, replayed
            return
        self._newest_s[public] = record.issued_at_s
        self._found(record.endpoints, keys.identity)
