"""One round of dials with staggered starts (RFC 8305): what is planned, in flight, open. Pure.

The next planned dial starts when its time comes, or at once when one in flight has failed; those after it keep
their distance.
"""

from __future__ import annotations

from collections.abc import Callable

from shared.transports import TransportName


class DialRound:
    """plan: (transport, when its dial starts), in order."""

    def __init__(self, plan: list[tuple[TransportName, float]]) -> None:
        self._planned = plan
        self._in_flight: dict[TransportName, float] = {}
        self._opened: dict[TransportName, float] = {}

    @property
    def pending(self) -> bool:
        """Whether a link may still come of it."""
        return bool(self._planned or self._in_flight)

    @property
    def has_opened(self) -> bool:
        return bool(self._opened)

    def next_start(self) -> float | None:
        return self._planned[0][1] if self._planned else None

    def hurry(self, now: float) -> None:
        """Where none is in flight, the next planned dial is due now."""
        if not self._in_flight:
            self._pull_forward(now)

    def start_due(self, now: float) -> list[TransportName]:
        """The dials to start now; they count as in flight."""
        due: list[TransportName] = []
        while self._planned and self._planned[0][1] <= now:
            transport, _ = self._planned.pop(0)
            self._in_flight[transport] = now
            due.append(transport)
        return due

    def opened(self, transport: TransportName) -> None:
        """A dial has its link. One that we do not wait for is ignored."""
        if transport in self._in_flight:
            self._opened[transport] = self._in_flight.pop(transport)

    def take_opened(self) -> tuple[TransportName, float] | None:
        """The link that opened first and is not used yet: (transport, when its dial started)."""
        # A dict keeps their order; changing it in the loop is safe, because the loop ends with it.
        for transport, started_at in self._opened.items():
            del self._opened[transport]
            return transport, started_at
        return None

    def failed(self, transport: TransportName, now: float) -> float | None:
        """A dial has failed: the next one starts now. Returns: when it started; None for one not in flight."""
        started_at = self._in_flight.pop(transport, None)
        if started_at is not None:
            self._pull_forward(now)
        return started_at

    def _pull_forward(self, now: float) -> None:
        """The next planned dial is due now, and those after it by as much earlier."""
        if self._planned:
            earlier_s = max(0.0, self._planned[0][1] - now)
            shifted = [(transport, start_at - earlier_s) for transport, start_at in self._planned]
            # Exactly now: what rounding leaves above it would not be due.
            self._planned = [(shifted[0][0], min(now, shifted[0][1])), *shifted[1:]]

    def drop(self, unwanted: Callable[[TransportName], bool]) -> list[tuple[TransportName, float]]:
        """Forget the dials of some transports. Returns: those that were in flight."""
        self._planned = [entry for entry in self._planned if not unwanted(entry[0])]
        for transport in [name for name in self._opened if unwanted(name)]:
            del self._opened[transport]
        dropped = [entry for entry in self._in_flight.items() if unwanted(entry[0])]
        for transport, _ in dropped:
            del self._in_flight[transport]
        return dropped
