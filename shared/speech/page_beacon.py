"""First contact: a page that knows nobody dials a room's beacon, learns the PeerJS id of who holds it, and leaves.

    {type: "beacon-exchange", realPeerId}    from both ends, JSON text as a BinaryPack string (or an object)

Nothing else is said on such a link: whoever is there is not proved, and no request is answered. It ends a moment after
the page has said its id, or when it has said nothing for EXCHANGE_WITHIN_S.

Source: swarm-space's pages, by observation: `rmbeacon-` and the FNV-1a of the lower-cased path of the room.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from shared.content.messages import PeerAnswer, PeerRequest
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.speech.contract import Event, SpeechEnded
from shared.speech.page_packing import packing_of

PEERJS_BEACON = "peerjs_beacon"
EXCHANGE_WITHIN_S = 8.0
"""As pages have it."""
LINGER_S = 1.0
"""After the exchange, so that our word arrives; a page leaves by itself."""
MAX_MESSAGES = 16
"""A page says one thing."""

FNV_OFFSET, FNV_PRIME = 0x811C9DC5, 0x01000193


def beacon_id(room: str) -> str:
    """The PeerJS id of a room's beacon. room: its path, such as `/brain`."""
    value = FNV_OFFSET
    for byte in room.lower().encode():
        # FNV-1a in 32 bits, as JavaScript's Math.imul has it.
        value = (value ^ byte) * FNV_PRIME & 0xFFFFFFFF
    return f"rmbeacon-{value:08x}"


class PageBeacon:
    """Implements shared.speech.contract.Speech; proves nobody, so that nothing is asked either way."""

    acks = False
    confirms = False
    max_asked = 0
    asked_count = 0
    rtt_s = 0.0
    claimed_key = b""

    def __init__(self, own_id: str, now: float, serialization: str) -> None:
        self._packing = packing_of(serialization)
        said = json.dumps({"type": "beacon-exchange", "realPeerId": own_id}, separators=(",", ":"))
        self._records = self._packing.pack(said)
        self._ends_at = now + EXCHANGE_WITHIN_S
        self._message_count = 0
        self._events: list[Event] = []

    def receive_record(self, record: bytes, now: float) -> None:
        self._message_count += 1
        if self._message_count > MAX_MESSAGES:
            raise RemoteProtocolError("too much for an exchange of ids", Cause.RATE_LIMITED)
        self._packing.unpack(record, now)  # whatever it says: its own id is the PeerServer's to tell
        # Only ever sooner: a page that goes on talking does not keep the link.
        self._ends_at = min(self._ends_at, now + LINGER_S)

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def next_record(self) -> bytes | None:
        return self._records.pop(0) if self._records else None

    def has_more_to_send(self) -> bool:
        return bool(self._records)

    def next_deadline(self) -> float:
        return self._ends_at

    def handle_timer(self, now: float) -> None:
        if now >= self._ends_at:
            self._events.append(SpeechEnded(Cause.CLOSED))

    def close(self) -> None:
        self._records.clear()

    # Of nobody there is nothing to ask, and nobody is answered.

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        raise LocalProtocolError("nobody is proved on a beacon's link")

    def cancel(self, request_id: bytes) -> None:
        pass

    def open_requests(self) -> list[bytes]:
        return []

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        pass

    def take_body(self, request_id: bytes, data: memoryview) -> int:
        return len(data)

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        pass

    def announce(self, manifests: Sequence[str]) -> None:
        pass

    def goodbye(self, cause: Cause | None = None) -> None:
        pass
