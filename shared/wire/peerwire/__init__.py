"""The BitTorrent peer wire as far as it carries `swarm-space` frames (BEP 3, BEP 10). Sans-IO.

bencode     strict codec of extended handshakes
handshake   the 68 bytes that open a wire
messages    length-prefixed messages
extended    BEP 10: the handshake dictionary, and who names which id
wire        the machine over all of it: PeerWire
"""

from shared.wire.peerwire.wire import (
    Closed,
    Event,
    ExtendedHandshakeDone,
    FrameReceived,
    HandshakeDone,
    PeerWire,
    PeerWireLimits,
)

__all__ = [
    "Closed",
    "Event",
    "ExtendedHandshakeDone",
    "FrameReceived",
    "HandshakeDone",
    "PeerWire",
    "PeerWireLimits",
]
