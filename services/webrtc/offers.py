"""What an OFFER asks for: a sealed link between nodes, which know each other by its metadata, or a page's connection.

A page of swarm-space tells its dialect by its metadata; what is spoken on the channel of any other shows with its first
message. Metadata of a version that we do not know, and a serialization that no PeerJS client has, are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.rtc.contract import MAX_MESSAGE_BYTES, MAX_RECORD_BYTES
from shared.speech.contract import SEALED_NATIVE
from shared.speech.page_beacon import PEERJS_BEACON
from shared.speech.page_packing import BINARY, JSON, RAW
from shared.speech.peerjs import MANAGER as PEERJS_MANAGER
from shared.speech.peerjs import MESH as PEERJS_MESH
from shared.speech.peerjs import PEERJS
from shared.wire.peerjs.messages import OfferPayload, SessionDescription

LABEL = "swarmbridge"
METADATA_KEY = "swarmbridge"
METADATA_VERSION = 1
SERIALIZATIONS = {BINARY: BINARY, "binary-utf8": BINARY, JSON: JSON, RAW: RAW}
"""Those that a page may ask for; `binary-utf8` is an old name for `binary` that clients still take."""


@dataclass(frozen=True, slots=True)
class Asked:
    """speech: its name. serialization: one of SERIALIZATIONS' values, "" under a seal."""

    speech: str
    serialization: str

    @property
    def sealed(self) -> bool:
        return self.speech == SEALED_NATIVE

    @property
    def is_page(self) -> bool:
        """Whether it is a page that stays, and is dialled again where its worker is gone."""
        return not self.sealed and self.speech != PEERJS_BEACON

    @property
    def max_message_bytes(self) -> int:
        return MAX_RECORD_BYTES if self.sealed else MAX_MESSAGE_BYTES


NATIVE = Asked(SEALED_NATIVE, "")
PAGE = Asked(PEERJS, BINARY)
"""What we dial a page with."""


def native_offer(sdp: str, connection_id: str) -> OfferPayload:
    """What we dial a node with: ordered, reliable, bytes as they are."""
    return OfferPayload(
        SessionDescription("offer", sdp),
        connection_id,
        metadata={METADATA_KEY: METADATA_VERSION},
        label=LABEL,
        reliable=True,
        serialization=RAW,
    )


def page_offer(sdp: str, connection_id: str, own_id: str) -> OfferPayload:
    """What we dial a page with: the metadata of both dialects, since only its first message will tell which it has."""
    return OfferPayload(
        SessionDescription("offer", sdp),
        connection_id,
        metadata={"userId": own_id, "nodeId": own_id, "source": LABEL},
        label=connection_id,
        reliable=True,
        serialization=BINARY,
    )


def asked_by(payload: OfferPayload, *, beacon: bool = False) -> Asked | None:
    """What an OFFER asks for, whether a worker has that speech or not; None where nobody could have it.

    beacon: it came to our room's beacon, where nothing else is spoken.
    """
    metadata = payload.metadata if isinstance(payload.metadata, dict) else {}
    if beacon:
        known = SERIALIZATIONS.get(payload.serialization)
        return Asked(PEERJS_BEACON, known) if known is not None else None
    if METADATA_KEY in metadata:
        return NATIVE if metadata[METADATA_KEY] == METADATA_VERSION else None
    serialization = SERIALIZATIONS.get(payload.serialization)
    if serialization is None:
        return None
    if "userId" in metadata and "nodeId" not in metadata:
        return Asked(PEERJS_MANAGER, serialization)
    return Asked(PEERJS_MESH if "nodeId" in metadata and "userId" not in metadata else PEERJS, serialization)
