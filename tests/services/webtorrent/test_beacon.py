"""Records that the DHT gives for a peer that is looked for: whose they are, how old, and what is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.webtorrent.beacon import Beacon
from shared.clock import monotonic, unix_ms
from shared.wire.dhtrecord.record import (
    NONCE_BYTES,
    DhtRecord,
    encode_body,
    record_keys,
    seal_record,
    signed_message,
)

SECRET = bytes(range(32))
OWNER = Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32)
MEMBER = Ed25519PrivateKey.from_private_bytes(b"\x0b" * 32)
KEY = OWNER.public_key().public_bytes_raw()
KEYS = record_keys(SECRET, KEY)


def record(age_s: int, endpoint: str = "192.0.2.1:6881", signer: Ed25519PrivateKey = OWNER) -> bytes:
    body = encode_body(DhtRecord(unix_ms() // 1000 - age_s, (endpoint,)))
    return seal_record(KEYS, body, signer.sign(signed_message(KEY, body)), bytes(NONCE_BYTES))


class FakeDht:
    """on_item: what the beacon listens with. asked: public keys that were looked up."""

    def __init__(self) -> None:
        self.on_item: Any = None
        self.asked: list[bytes] = []

    def get_item(self, public: bytes) -> None:
        self.asked.append(public)


async def sign(body: bytes) -> bytes:
    return MEMBER.sign(body)


def test_only_the_owners_newest_record_is_believed_and_the_rest_is_counted() -> None:
    dht: Any = FakeDht()
    found: list[tuple[tuple[str, ...], bytes]] = []
    refused: Counter[str] = Counter()
    own = MEMBER.public_key().public_bytes_raw()
    beacon = Beacon(
        SECRET, own, dht, sign, list, lambda endpoints, key: found.append((tuple(endpoints), key)), refused, monotonic
    )
    dht.on_item(KEYS.public, record(0))
    assert not found, "nobody looks for it"
    beacon.look_up(KEY)
    assert dht.asked == [KEYS.public]
    for poison in (
        b"",
        b"x" * 900,
        bytes(5_000),
        record(0)[:-1],
        record(0, signer=MEMBER),
        record(3 * 3600),
        record(-900),
    ):
        dht.on_item(KEYS.public, poison)
    assert (found, refused) == ([], {"record": 7})
    dht.on_item(KEYS.public, record(10))
    dht.on_item(KEYS.public, record(600, "192.0.2.66:1"))
    assert found == [(("192.0.2.1:6881",), KEY)]
    assert refused == {"record": 8}, "an older one is a replay"
