"""How many sockets may be open, in all and from one address. Pure."""

from __future__ import annotations

from collections import Counter

from services.rendezvous.limits import MAX_SOCKETS, MAX_SOCKETS_PER_ADDRESS


class Admission:
    """Counts open sockets. Every `admit` that said yes is followed by one `release`."""

    def __init__(self, max_sockets: int = MAX_SOCKETS, max_per_address: int = MAX_SOCKETS_PER_ADDRESS) -> None:
        self._max_sockets, self._max_per_address = max_sockets, max_per_address
        self._open: Counter[str] = Counter()
        self.socket_count = 0

    def admit(self, address: str) -> bool:
        """Whether one more socket from this address may open."""
        if self.socket_count >= self._max_sockets or self._open[address] >= self._max_per_address:
            # A missing key of a Counter reads as 0 and is not stored: refused addresses leave no trace.
            return False
        self.socket_count += 1
        self._open[address] += 1
        return True

    def release(self, address: str) -> None:
        self.socket_count -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
