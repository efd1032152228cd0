"""The transports, in the order in which they are tried, and how people call them."""

from __future__ import annotations

from enum import StrEnum


class TransportName(StrEnum):
    WEBRTC = "webrtc"
    WEBTORRENT = "webtorrent"
    BROADCAST = "broadcast"


ORDER: tuple[TransportName, ...] = (
    TransportName.WEBRTC,
    TransportName.WEBTORRENT,
    TransportName.BROADCAST,
)

LABELS: dict[TransportName, str] = {
    TransportName.WEBRTC: "PeerJS DataChannels",
    TransportName.WEBTORRENT: "WebTorrent Bridge",
    TransportName.BROADCAST: "BroadcastChannel Shim",
}


class TransportState(StrEnum):
    """swarm-space's states. DEGRADED stays until its reason is gone; it counts as healthy to an orchestrator."""

    IDLE = "idle"
    INITIALIZING = "initializing"
    READY = "ready"
    ACTIVE = "active"
    DEGRADED = "degraded"
    ERROR = "error"
