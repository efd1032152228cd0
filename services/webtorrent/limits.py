"""What strangers may make a webtorrent worker do (docs/limits.md). Pure: `now` is an argument.

Every refusal is counted under a name of this module or a cause, and shown in the worker's status.
"""

from __future__ import annotations

from collections import Counter

MAX_LINKS = 512
"""Wires of one worker, half-open ones included (docs/limits.md#peer-wire)."""
MAX_LINKS_PER_ADDRESS = 8
"""Wires with one remote address, both directions together; loopback is an address as any other (docs/limits.md)."""
MAX_HALF_OPEN = 64
"""Wires without both handshakes yet, dials included (docs/limits.md)."""
MAX_ENDPOINTS_PER_ANSWER = 50
"""Endpoints taken from one DHT or tracker answer (docs/limits.md)."""
RESERVED_HALF_OPEN = 32
"""Ours: half of MAX_HALF_OPEN is not for dialling whom a DHT node or a tracker has named. Both may name hosts that
accept and say nothing: these would hold every place, and turn away who dials us and whom somebody wants."""
DIALS_PER_S = 10.0
"""Dials, and as many at once (docs/limits.md)."""
TRACKER_ANSWERS_PER_S = 10.0
"""Ours: offers answered, a tracker; a hostile one may relay as many as it likes."""

REFUSED_LINKS = "links"
REFUSED_ADDRESS = "links_of_address"
REFUSED_HALF_OPEN = "half_open"
REFUSED_ENDPOINT = "endpoint"
"""An endpoint that the address rule forbids, or that is none."""
REFUSED_DUPLICATE = "duplicate"
REFUSED_DESCRIPTION = "description"
"""An offer or an answer that describes no data channel of ours."""
REFUSED_RECORD = "record"
"""What the DHT keeps under the key of a peer's record, and is none: forged, out of date, or older than the last."""
REFUSED_TRACKER_MESSAGE = "tracker_message"
REFUSED_TRACKER_RATE = "tracker_rate"


class Admission:
    """Counts wires by address and by age; says who is too many. The caller gives each Seat back once."""

    def __init__(self) -> None:
        self._by_address: Counter[str] = Counter()
        self._half_open = 0

    @property
    def half_open_room(self) -> int:
        return MAX_HALF_OPEN - self._half_open

    def refusal(self, address: str) -> str | None:
        """The name of the limit that a new wire with this address would break, None if none.

        address: "" where it is not known (a data channel), which the limit of an address does not hold.
        """
        if self._by_address.total() >= MAX_LINKS:
            return REFUSED_LINKS
        if self._half_open >= MAX_HALF_OPEN:
            return REFUSED_HALF_OPEN
        if address and self._by_address[address] >= MAX_LINKS_PER_ADDRESS:
            return REFUSED_ADDRESS
        return None

    def take(self, address: str) -> Seat:
        """Count a new wire; ask `refusal` first."""
        self._by_address[address] += 1
        self._half_open += 1
        return Seat(self, address)

    def _opened(self) -> None:
        self._half_open -= 1

    def _left(self, address: str, half_open: bool) -> None:
        self._half_open -= half_open
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class Seat:
    """One wire's place. `opened` once both handshakes are done, `leave` at its end; both idempotent."""

    def __init__(self, admission: Admission, address: str) -> None:
        self._admission = admission
        self._address = address
        self._half_open = True
        self._left = False

    def opened(self) -> None:
        if self._half_open and not self._left:
            self._half_open = False
            self._admission._opened()

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._admission._left(self._address, self._half_open)
