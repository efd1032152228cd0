"""Peer messages: a length, then an id and a body; length 0 is a keep-alive (BEP 3, "peer messages").

Layout:  length:u32 | id:u8 | body:length-1, big-endian.

Our wire moves no pieces: of all messages it acts on `extended` alone. The others are checked for their length
and ignored, so that an ordinary BitTorrent peer can stay polite with us until it hears that we want nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from shared.errors import LocalProtocolError, RemoteProtocolError

LENGTH_BYTES = 4
KEEP_ALIVE = bytes(LENGTH_BYTES)
_MAX_U32 = 2**32 - 1


class MessageId(IntEnum):
    """Message ids: BEP 3, PORT of BEP 5, EXTENDED of BEP 10."""

    CHOKE = 0
    UNCHOKE = 1
    INTERESTED = 2
    NOT_INTERESTED = 3
    HAVE = 4
    BITFIELD = 5
    REQUEST = 6
    PIECE = 7
    CANCEL = 8
    PORT = 9
    EXTENDED = 20


# Body bytes: (least, most); None = up to the wire's own limit.
_BODY_BYTES: dict[int, tuple[int, int | None]] = {
    MessageId.CHOKE: (0, 0),
    MessageId.UNCHOKE: (0, 0),
    MessageId.INTERESTED: (0, 0),
    MessageId.NOT_INTERESTED: (0, 0),
    MessageId.HAVE: (4, 4),
    MessageId.BITFIELD: (0, None),
    MessageId.REQUEST: (12, 12),
    MessageId.PIECE: (8, None),
    MessageId.CANCEL: (12, 12),
    MessageId.PORT: (2, 2),
    MessageId.EXTENDED: (1, None),
}


@dataclass(frozen=True, slots=True)
class Message:
    """id: a MessageId, or a number of an extension that we do not know. body: a view, not a copy."""

    id: int
    body: memoryview


def encode_message(message_id: int, body: bytes | memoryview = b"") -> bytes:
    """One message with its length prefix. Raises: LocalProtocolError: no u8, or longer than a u32 tells."""
    if not 0 <= message_id <= 255 or len(body) >= _MAX_U32:
        raise LocalProtocolError("a message that the wire cannot carry")
    return b"".join(((len(body) + 1).to_bytes(LENGTH_BYTES, "big"), bytes((message_id,)), body))


def extended_head(extended_id: int, body_bytes: int) -> bytes:
    """What goes before the body of an extended message: length:u32 | 20 | extended id:u8 (BEP 10)."""
    return (body_bytes + 2).to_bytes(LENGTH_BYTES, "big") + bytes((MessageId.EXTENDED, extended_id))


def decode_message(payload: memoryview) -> Message:
    """Decode one length-stripped message.

    Args:    payload: one message without its 4-byte length prefix; len(payload) >= 1.
    Returns: Message; its body is a view of `payload`, valid as long as that is.
    Raises:  RemoteProtocolError: a known id with a body of a length it cannot have; close the link.
    Source:  BEP 3, "peer messages"; BEP 5; BEP 10.
    """
    if not payload:
        raise LocalProtocolError("a keep-alive has nothing to decode")
    message_id, body = payload[0], payload[1:]
    least, most = _BODY_BYTES.get(message_id, (0, None))
    if len(body) < least or (most is not None and len(body) > most):
        raise RemoteProtocolError(f"message {message_id} of the wrong length")
    return Message(message_id, body)
