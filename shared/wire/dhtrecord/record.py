"""Where a node's wire listens, in the DHT, for those who know its key and the mesh secret; to others it is noise.

Key of the item:  Ed25519, seed = HKDF-SHA256(mesh secret, info `swarmbridge v1 dht record` NUL | identity:32)
Value, at most MAX_VALUE_BYTES:  nonce:12 | AES-256-GCM(body | signature:64), key = HKDF as above with `dht value`,
                                 associated data = RECORD_CONTEXT
Body:             issued_at:u64, seconds since 1970 | one `host:port` after the other, each as length:u8 | ASCII
Signature:        the identity's, over RECORD_CONTEXT | identity:32 | body

Who knows the mesh secret could write the item, so the identity signs within; who does not can link it to nobody. A
record that is MAX_AGE_S old is not believed, which bounds how long a replayed one misleads; whoever dials by it
still learns by the seal who is there.

Source: BEP 44 (mutable items), RFC 5869.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError

RECORD_CONTEXT = b"swarmbridge-dht-record-v1\0"
MESH_SECRET_BYTES = 32
IDENTITY_BYTES = 32
KEY_BYTES = 32
NONCE_BYTES = 12
SIGNATURE_BYTES = 64
TAG_BYTES = 16
ISSUED_BYTES = 8
MAX_VALUE_BYTES = 900
"""BEP 44 takes 1,000 bytes, bencoded."""
MAX_BODY_BYTES = MAX_VALUE_BYTES - NONCE_BYTES - TAG_BYTES - SIGNATURE_BYTES
MAX_ENDPOINTS = 8
MAX_AGE_S = 2 * 3600
CLOCK_SKEW_S = 120


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """identity: whose record. public: the item's key, 32 bytes; private: expanded as libtorrent wants it, 64 bytes."""

    identity: bytes
    public: bytes
    private: bytes
    sealing: bytes


@dataclass(frozen=True, slots=True)
class DhtRecord:
    """issued_at_s: wall clock. endpoints: `host:port`, at most MAX_ENDPOINTS, a peer's word."""

    issued_at_s: int
    endpoints: tuple[str, ...]


def record_keys(mesh_secret: bytes, identity: bytes) -> RecordKeys:
    """The keys of one node's record. Raises: LocalProtocolError: not 32 bytes each."""
    if len(mesh_secret) != MESH_SECRET_BYTES or len(identity) != IDENTITY_BYTES:
        raise LocalProtocolError("a mesh secret and an identity are 32 bytes each")
    seed = _derive(mesh_secret, b"dht record", identity)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    expanded = bytearray(hashlib.sha512(seed).digest())  # RFC 8032, 5.1.5: what a seed is hashed to
    expanded[0] &= 248
    expanded[31] &= 63
    expanded[31] |= 64
    return RecordKeys(identity, public, bytes(expanded), _derive(mesh_secret, b"dht value", identity))


def encode_body(record: DhtRecord) -> bytes:
    """What the identity signs, RECORD_CONTEXT and its own key in front (`signed_message`)."""
    parts = [record.issued_at_s.to_bytes(ISSUED_BYTES, "big")]
    for each in record.endpoints[:MAX_ENDPOINTS]:
        text = each.encode("ascii")
        parts.append(bytes((len(text),)) + text)
    body = b"".join(parts)
    if len(body) > MAX_BODY_BYTES:
        raise LocalProtocolError("a record that is too long")
    return body


def signed_message(identity: bytes, body: bytes) -> bytes:
    """The bytes under the signature: a context of its own, so that it can mean nothing else."""
    return RECORD_CONTEXT + identity + body


def seal_record(keys: RecordKeys, body: bytes, signature: bytes, nonce: bytes) -> bytes:
    """The item's value. nonce: 12 random bytes."""
    if len(signature) != SIGNATURE_BYTES or len(nonce) != NONCE_BYTES:
        raise LocalProtocolError("a signature is 64 bytes, a nonce 12")
    # The context as associated data: a value of another use of this secret does not open as a record.
    return nonce + AESGCM(keys.sealing).encrypt(nonce, body + signature, RECORD_CONTEXT)


def open_record(keys: RecordKeys, value: bytes, now_unix_s: float) -> DhtRecord:
    """Read an item's value.

    Raises: RemoteProtocolError(UNAUTHENTICATED): not sealed or signed by whom it should be; (EXPIRED): too old, or of
            the future; (INVALID): not of this form.
    """
    # Before it is opened: what comes from the DHT is of any length.
    if not NONCE_BYTES + TAG_BYTES + SIGNATURE_BYTES + ISSUED_BYTES <= len(value) <= MAX_VALUE_BYTES:
        raise RemoteProtocolError("a record of the wrong length")
    try:
        plain = AESGCM(keys.sealing).decrypt(value[:NONCE_BYTES], value[NONCE_BYTES:], RECORD_CONTEXT)
        body, signature = plain[:-SIGNATURE_BYTES], plain[-SIGNATURE_BYTES:]
        Ed25519PublicKey.from_public_bytes(keys.identity).verify(signature, signed_message(keys.identity, body))
    except (InvalidTag, InvalidSignature, ValueError):
        raise RemoteProtocolError("a record of somebody else", Cause.UNAUTHENTICATED) from None
    record = _decode_body(body)
    if not now_unix_s - MAX_AGE_S <= record.issued_at_s <= now_unix_s + CLOCK_SKEW_S:
        raise RemoteProtocolError("a record that is too old", Cause.EXPIRED)
    return record


def _decode_body(body: bytes) -> DhtRecord:
    endpoints: list[str] = []
    at = ISSUED_BYTES
    while at < len(body):
        length = body[at]
        text = body[at + 1 : at + 1 + length]
        if len(text) != length or not text.isascii() or len(endpoints) >= MAX_ENDPOINTS:
            raise RemoteProtocolError("a record whose endpoints do not read")
        endpoints.append(text.decode("ascii"))
        at += 1 + length
    return DhtRecord(int.from_bytes(body[:ISSUED_BYTES], "big"), tuple(endpoints))


def _derive(mesh_secret: bytes, use: bytes, identity: bytes) -> bytes:
    info = b"swarmbridge v1 " + use + b"\0" + identity
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(mesh_secret)
