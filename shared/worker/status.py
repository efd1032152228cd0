"""A worker's status as swarm-space's dashboard knows it (FACTS 2), from what happened. Pure.

States:   disabled -> idle; running -> what the transport says; ready with a live peer that spoke -> active.
Invariant: DEGRADED and ERROR stay, with their reason, until the transport itself says otherwise (the
reference overwrote `degraded` with `ready`).
"""

from __future__ import annotations

from collections import Counter

from shared.errors import Cause
from shared.transports import TransportState

ACTIVE_FOR_S = 60.0
"""How long an inbound message keeps a transport `active`: swarm-space drops idle peers after 60 s."""


_TROUBLED = (TransportState.DEGRADED, TransportState.ERROR)


class StatusTracker:
    """What one worker reports. `reset` is what switching the transport off does to it."""

    def __init__(self) -> None:
        self.enabled = True
        self.last_error: Cause | None = None
        self.refused: Counter[str] = Counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self._base = TransportState.INITIALIZING
        self._last_inbound: float | None = None

    def transport_says(self, state: TransportState, last_error: Cause | None) -> None:
        self._base = state
        if last_error is not None:
            self.last_error = last_error

    def send_failed(self, cause: Cause) -> None:
        """A dial or a request failed. While the transport itself is in trouble its reason stays: this follows of it."""
        if self._base not in _TROUBLED or self.last_error is None:
            self.last_error = cause

    def message_came(self, now: float) -> None:
        self._last_inbound = now

    def refuse(self, cause: Cause) -> None:
        self.refused[cause.value] += 1

    def reset(self) -> None:
        """Switched off, or on again: counters and errors start anew."""
        self.last_error = None
        self.refused.clear()
        self.bytes_in = self.bytes_out = 0
        self._last_inbound = None
        self._base = TransportState.INITIALIZING

    def state(self, now: float) -> TransportState:
        if not self.enabled:
            return TransportState.IDLE
        spoke = self._last_inbound is not None and now - self._last_inbound < ACTIVE_FOR_S
        if self._base is TransportState.READY and spoke:
            return TransportState.ACTIVE
        return self._base
