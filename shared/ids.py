"""Names of peers, links, instances and requests.

A *peer token* is how a peer is written in subjects, settings and links: `k<base32 of its Ed25519 key>` for
one with a key, `g<base32 of its id>` for a guest without. The two can never meet, so a guest that takes a
member's PeerJS id does not become that member's route (docs/trust.md#who-a-message-is-from).

A *peer name* is what people and telemetry see: `peer-` and the first 16 hex digits of SHA-256(key), which is
swarm-space's PeerJS id form and tells neither the key nor an address.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from typing import NewType

from shared.errors import Cause, SwarmbridgeError

PeerToken = NewType("PeerToken", str)
LinkId = NewType("LinkId", str)

IDENTITY_KEY_BYTES = 32
REQUEST_ID_BYTES = 16
MAX_GUEST_ID_BYTES = 64
INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
PEER_NAME = re.compile(r"(peer|guest)-[0-9a-f]{16}")


def member_token(identity_key: bytes) -> PeerToken:
    """The token of a peer that proved its 32-byte Ed25519 identity key."""
    if len(identity_key) != IDENTITY_KEY_BYTES:
        raise ValueError("an identity key is 32 bytes")
    return PeerToken("k" + _base32(identity_key))


def guest_token(guest_id: str) -> PeerToken:
    """The token of a peer that has no key: its PeerJS id or BitTorrent peer id, at most 64 bytes."""
    raw = guest_id.encode()
    if not 0 < len(raw) <= MAX_GUEST_ID_BYTES:
        raise ValueError("a guest id is 1 to 64 bytes")
    return PeerToken("g" + _base32(raw))


def token_key(token: str) -> bytes | None:
    """The identity key in a token, or None for a guest's.

    Raises: SwarmbridgeError(INVALID) where it is no peer token at all.
    """
    try:
        raw = base64.b32decode(token[1:].upper() + "=" * (-len(token[1:]) % 8))
    except (ValueError, IndexError):
        raise SwarmbridgeError(Cause.INVALID, "not a peer token") from None
    if token[:1] == "k" and len(raw) == IDENTITY_KEY_BYTES:
        return raw
    if token[:1] == "g" and 0 < len(raw) <= MAX_GUEST_ID_BYTES:
        return None
    raise SwarmbridgeError(Cause.INVALID, "not a peer token")


def guest_id(token: str) -> str | None:
    """The id in a guest's token, or None for the token of a peer with a key.

    Raises: SwarmbridgeError(INVALID) where it is no peer token, or its id is no text.
    """
    if token_key(token) is not None:
        return None
    try:
        return base64.b32decode(token[1:].upper() + "=" * (-len(token[1:]) % 8)).decode()
    except UnicodeDecodeError:
        raise SwarmbridgeError(Cause.INVALID, "not a peer token") from None


def peerjs_id(identity_key: bytes) -> str:
    """A node's PeerJS id: swarm-space's form, derived from the key so that who knows the key knows the id."""
    return "peer-" + hashlib.sha256(identity_key).hexdigest()[:16]


def peer_name(token: str) -> str:
    """How a peer is called where people or telemetry see it. Never the key, the guest's own id or an address."""
    key = token_key(token)
    return peerjs_id(key) if key is not None else "guest-" + hashlib.sha256(token.encode()).hexdigest()[:16]


def is_peer_name(text: str) -> bool:
    """Whether it has the form of what `peer_name` makes."""
    return PEER_NAME.fullmatch(text) is not None


def new_instance_id(service: str) -> str:
    """A fresh name for one process of a service, safe as a subject token."""
    return f"{service}-{os.urandom(6).hex()}"


def is_instance(text: str) -> bool:
    """Whether it has the form of an instance's name, so that it may be put into a subject."""
    return INSTANCE.fullmatch(text) is not None


def new_request_id() -> bytes:
    """16 random bytes: the same over every hop and hedge of one delivery."""
    return os.urandom(REQUEST_ID_BYTES)


def new_link_id() -> LinkId:
    """A fresh name for a link, unique in its worker."""
    return LinkId(os.urandom(8).hex())


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def service_of(instance: str) -> str:
    """The service in a process's name: what is before its last hyphen."""
    return instance.rpartition("-")[0] or instance
