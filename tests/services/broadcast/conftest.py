"""Two broadcast transports on one mesh, in memory or on a real server."""

from __future__ import annotations

import os

from services.broadcast.transport import BroadcastTransport
from shared.bus.contract import Bus
from shared.ids import peerjs_id
from shared.transport.contract import PeerHint, StateChanged, TransportEvent
from tests.conformance.suite import End

ORIGIN, CHANNEL = "swarmbridge:nodes", "swarm-space-webtorrent"


class BroadcastEnd(End):
    """An end that also keeps what states its transport said."""

    def __init__(self, mesh: Bus, key: bytes = b"", channel: str = CHANNEL) -> None:
        self.key = key or os.urandom(32)
        self.broadcast = BroadcastTransport(mesh, ORIGIN, channel)
        self.broadcast.set_identity(self.key)
        self.states: list[StateChanged] = []
        super().__init__(self.broadcast, PeerHint(self.key, peerjs_id(self.key)))

    def receive(self, event: TransportEvent) -> None:
        if isinstance(event, StateChanged):
            self.states.append(event)
        super().receive(event)
