"""What an OFFER asks for: a sealed link between nodes, which know each other by its metadata, or a page's connection.

A page of swarm-space tells its dialect by its metadata; what is spoken on the channel of any other shows with its first
message.
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
PEERJS_MANAGER = "peerjs_manager"
PEERJS_MESH = "peerjs_mesh"
"""The speeches of pages: not known yet, manager dialect (metadata `{userId}`), mesh dialect (`{nodeId, source}`)."""


def speech_of(payload: OfferPayload) -> str:
    """The name of the speech that an OFFER asks for, whether we have it or not."""
    metadata = payload.metadata
    if not isinstance(metadata, dict):
        return PEERJS
    if metadata.get(METADATA_KEY) == METADATA_VERSION:
        return SEALED_NATIVE
    if "userId" in metadata:
        return PEERJS_MANAGER
    return PEERJS_MESH if "nodeId" in metadata else PEERJS
