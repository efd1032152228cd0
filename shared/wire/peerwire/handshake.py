"""The BitTorrent handshake: the first 68 bytes of a wire in each direction (BEP 3).

Layout:  0x13 | "BitTorrent protocol" | reserved:8 | infohash:20 | peer_id:20
Reserved bit 20 from the right says that the sender speaks BEP 10; we set no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import LocalProtocolError, RemoteProtocolError

PROTOCOL = b"\x13BitTorrent protocol"
RESERVED_BYTES = 8
INFOHASH_BYTES = 20
PEER_ID_BYTES = 20
HANDSHAKE_BYTES = len(PROTOCOL) + RESERVED_BYTES + INFOHASH_BYTES + PEER_ID_BYTES

EXTENSION_PROTOCOL_BIT = 20
"""BEP 10: "the 20th bit from the right", counted from 0."""

OUR_RESERVED = (1 << EXTENSION_PROTOCOL_BIT).to_bytes(RESERVED_BYTES, "big")


@dataclass(frozen=True, slots=True)
class Handshake:
    """infohash, peer_id: 20 bytes. reserved: 8 bytes of feature bits."""

    infohash: bytes
    peer_id: bytes
    reserved: bytes = OUR_RESERVED

    @property
    def speaks_extensions(self) -> bool:
        return bool(int.from_bytes(self.reserved, "big") >> EXTENSION_PROTOCOL_BIT & 1)


def encode_handshake(handshake: Handshake) -> bytes:
    """The 68 bytes. Raises: LocalProtocolError: a field of the wrong length. Source: BEP 3."""
    encoded = PROTOCOL + handshake.reserved + handshake.infohash + handshake.peer_id
    if len(handshake.infohash) != INFOHASH_BYTES or len(encoded) != HANDSHAKE_BYTES:
        raise LocalProtocolError("a handshake field of the wrong length")
    return encoded


def decode_handshake(data: bytes) -> Handshake:
    """Read exactly 68 bytes.

    Raises: RemoteProtocolError: another length or another protocol (an encrypted start, say).
    Source: BEP 3.
    """
    if len(data) != HANDSHAKE_BYTES or not data.startswith(PROTOCOL):
        raise RemoteProtocolError("not a BitTorrent handshake")
    fields = data[len(PROTOCOL) :]
    infohash = fields[RESERVED_BYTES : RESERVED_BYTES + INFOHASH_BYTES]
    return Handshake(infohash, fields[-PEER_ID_BYTES:], fields[:RESERVED_BYTES])
