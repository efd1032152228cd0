"""What an OFFER asks for: a sealed link between nodes, which know each other by its metadata, or a page's connection.

A page's OFFER says little (serialization, metadata of its application); what is spoken on its channel shows with the
first message, so all of them ask for one speech.
"""

from __future__ import annotations

from shared.speech.contract import SEALED_NATIVE
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


PEERJS = "peerjs"
"""The speech of every OFFER that is not a node's."""


def speech_of(payload: OfferPayload) -> str:
    """The name of the speech that an OFFER asks for, whether we have it or not."""
    metadata = payload.metadata
    native = isinstance(metadata, dict) and metadata.get(METADATA_KEY) == METADATA_VERSION
    return SEALED_NATIVE if native else PEERJS
