"""Just enough of STUN to see whether a server answers: two requests, and what an answer to one looks like.

    header   type:u16 | length:u16 | cookie:u32 | transaction:12
    Binding   0x0001, no attributes                     a STUN server's
    Allocate  0x0003, REQUESTED-TRANSPORT = UDP         a TURN server's; without credentials it says 401: an answer

Left out: everything that aioice does itself once a server is used.
Source: RFC 8489, sections 5 and 6; RFC 8656, sections 7 and 18.
"""

from __future__ import annotations

import struct

MAGIC_COOKIE = 0x2112A442
TRANSACTION_BYTES = 12
HEADER_BYTES = 20
BINDING, ALLOCATE = 0x0001, 0x0003
CLASS_MASK, SUCCESS, FAILURE = 0x0110, 0x0100, 0x0110
REQUESTED_TRANSPORT = struct.pack(">HHB3x", 0x0019, 4, 17)
"""Attribute: UDP between the relay and the peer."""

_HEADER = struct.Struct(">HHI12s")


def encode_request(method: int, transaction: bytes) -> bytes:
    """method: BINDING or ALLOCATE. transaction: TRANSACTION_BYTES, fresh."""
    attributes = REQUESTED_TRANSPORT if method == ALLOCATE else b""
    return _HEADER.pack(method, len(attributes), MAGIC_COOKIE, transaction) + attributes


def is_answer(data: bytes, method: int, transaction: bytes) -> bool:
    """Whether `data` begins with a server's answer to that request, whichever answer it is."""
    if len(data) < HEADER_BYTES:
        return False
    kind, _, cookie, echoed = _HEADER.unpack_from(data)
    answered = kind & CLASS_MASK in (SUCCESS, FAILURE) and kind & ~CLASS_MASK == method
    return answered and cookie == MAGIC_COOKIE and bool(echoed == transaction)
