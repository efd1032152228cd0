"""How two nodes recognise each other in an OFFER: a sealed link, not a browser's PeerJS connection."""

from __future__ import annotations

from shared.wire.peerjs.messages import OfferPayload, SessionDescription

LABEL = "swarmbridge"
METADATA_KEY = "swarmbridge"
METADATA_VERSION = 1
SERIALIZATION = "raw"
"""PeerJS's name for bytes as they are."""


def native_offer(sdp: str, connection_id: str) -> OfferPayload:
    """What we dial with: ordered, reliable, bytes as they are."""
    return OfferPayload(
        SessionDescription("offer", sdp),
        connection_id,
        metadata={METADATA_KEY: METADATA_VERSION},
        label=LABEL,
        reliable=True,
        serialization=SERIALIZATION,
    )


def is_native(payload: OfferPayload) -> bool:
    """Whether an OFFER asks for a sealed link between nodes."""
    return isinstance(payload.metadata, dict) and payload.metadata.get(METADATA_KEY) == METADATA_VERSION
