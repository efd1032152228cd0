"""A worker's status as swarm-space's dashboard knows it, from what happened. Pure; times are the wall clock's, in ms.

States:   disabled -> idle; running -> what the transport says; ready with a live peer that spoke -> active.
Invariant: DEGRADED and ERROR stay, with their reason, until the transport itself says otherwise.
Last error: of the transport, or of what we wanted of it (a dial, a request), with its time. It goes when that has
recovered: the transport says READY again, or a dial or a request succeeds. What strangers try is counted in `refused`
and never an error of ours.
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
        self.last_error_ms = 0
        self.last_activity_ms = 0
        self.refused: Counter[str] = Counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self._base = TransportState.INITIALIZING
        self._last_inbound: float | None = None

    def transport_says(self, state: TransportState, last_error: Cause | None, at_ms: int = 0) -> None:
        recovered = self._base in _TROUBLED and state not in _TROUBLED
        # The transport has the last word on its own state, whatever links said meanwhile.
        self._base = state
        if last_error is not None:
            self._fail(last_error, at_ms)
        elif recovered:
            self._clear_error()

    def send_failed(self, cause: Cause, at_ms: int = 0) -> None:
        """A dial or a request failed. While the transport itself is in trouble its reason stays: this follows of it."""
        if self._base not in _TROUBLED or self.last_error is None:
            self._fail(cause, at_ms)

    def worked(self) -> None:
        """A dial or a request of ours succeeded."""
        if self._base not in _TROUBLED:
            self._clear_error()

    def message_came(self, now: float, at_ms: int = 0) -> None:
        self._last_inbound = now
        self.last_activity_ms = at_ms

    def refuse(self, cause: Cause) -> None:
        self.refused[cause.value] += 1

    def reset(self) -> None:
        """Switched off, or on again: counters and errors start again."""
        self._clear_error()
        self.refused.clear()
        self.bytes_in = self.bytes_out = 0
        self.last_activity_ms = 0
        self._last_inbound = None
        # What the transport said is of the run that has ended; it speaks again when it runs.
        self._base = TransportState.INITIALIZING

    def state(self, now: float) -> TransportState:
        # Ahead of what the transport said last: it is not asked any more.
        if not self.enabled:
            return TransportState.IDLE
        spoke = self._last_inbound is not None and now - self._last_inbound < ACTIVE_FOR_S
        if self._base is TransportState.READY and spoke:
            return TransportState.ACTIVE
        return self._base

    def _fail(self, cause: Cause, at_ms: int) -> None:
        self.last_error, self.last_error_ms = cause, at_ms

    def _clear_error(self) -> None:
        self.last_error, self.last_error_ms = None, 0
