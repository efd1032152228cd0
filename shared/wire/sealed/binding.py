"""What ties a seal to one very link: the prologue of its handshake (docs/seal.md).

Prologue: "swarmbridge-link-v1" NUL | transport | NUL | binding. Both ends compute it from what they see of
the link below the seal; one who sits between two links makes two bindings, and no handshake ends.
"""

from __future__ import annotations

import hashlib

from shared.errors import LocalProtocolError
from shared.wire.sealed.certificate import LINK_CONTEXT

FINGERPRINT_BYTES = 32
INFOHASH_BYTES = 20
PEER_ID_BYTES = 20
LINK_ID_BYTES = 16


def link_prologue(transport: str, binding: bytes) -> bytes:
    """The prologue of a link's handshake. transport: its name, e.g. `webrtc`; binding: see below."""
    # The transport's name too: a handshake that was carried over to another transport's link does not end.
    return LINK_CONTEXT + transport.encode() + b"\0" + binding


def webrtc_binding(dialer_fingerprint: bytes, listener_fingerprint: bytes) -> bytes:
    """The SHA-256 DTLS certificate fingerprints, 32 bytes each. The dialer is who sent the OFFER."""
    return _exact(dialer_fingerprint, FINGERPRINT_BYTES) + _exact(listener_fingerprint, FINGERPRINT_BYTES)


def webtorrent_binding(infohash: bytes, dialer_peer_id: bytes, listener_peer_id: bytes) -> bytes:
    """Infohash and both wire peer_ids, 20 bytes each."""
    ids = _exact(dialer_peer_id, PEER_ID_BYTES) + _exact(listener_peer_id, PEER_ID_BYTES)
    return _exact(infohash, INFOHASH_BYTES) + ids


def broadcast_binding(origin: str, channel: str, dialer_link_id: bytes, listener_link_id: bytes) -> bytes:
    """SHA-256 of origin NUL channel, and the link ids that each end chose, 16 bytes each."""
    scope = hashlib.sha256(origin.encode() + b"\0" + channel.encode()).digest()
    return scope + _exact(dialer_link_id, LINK_ID_BYTES) + _exact(listener_link_id, LINK_ID_BYTES)


def _exact(field: bytes, count: int) -> bytes:
    # Fields of fixed length are what lets them stand side by side without separators.
    if len(field) != count:
        raise LocalProtocolError(f"a binding field of {len(field)} bytes instead of {count}")
    return field
