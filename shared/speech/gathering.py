"""Bodies of answers for a speech that cannot stream: put together until they are whole, within a bound.

The room of a body is reserved when its answer begins and given back when its message has been sent, so that answers
which wait for a slow peer count too.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.content.messages import MAX_BODY_BYTES, PeerAnswer
from shared.errors import Cause, SwarmbridgeError

MAX_GATHERED_BYTES = 8 * MAX_BODY_BYTES
"""Of one link, whole ones that wait to be sent included."""


@dataclass(slots=True)
class _Body:
    answer: PeerAnswer
    length: int
    data: bytearray


class Gathering:
    """Driven by a speech's `answer`, `take_body` and `fail`."""

    def __init__(self, limit_bytes: int = MAX_GATHERED_BYTES) -> None:
        self._limit = limit_bytes
        self._bodies: dict[bytes, _Body] = {}
        self.reserved_bytes = 0

    def begin(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        """An answer whose body follows. Raises: SwarmbridgeError(TOO_LARGE); (BUSY) where there is no room now."""
        if body_bytes > MAX_BODY_BYTES:
            raise SwarmbridgeError(Cause.TOO_LARGE)
        if self.reserved_bytes + body_bytes > self._limit:
            raise SwarmbridgeError(Cause.BUSY)
        self.reserved_bytes += body_bytes
        # Grown as bytes come: a length that is announced costs no memory yet.
        self._bodies[request_id] = _Body(answer, body_bytes, bytearray())

    def take(self, request_id: bytes, data: memoryview) -> tuple[PeerAnswer, bytes] | None:
        """The next bytes. Returns: the answer with its body when it is whole; `release` its length once it is sent."""
        body = self._bodies.get(request_id)
        if body is None:
            return None
        body.data += data
        if len(body.data) < body.length:
            return None
        del self._bodies[request_id]
        return body.answer, bytes(body.data)

    def drop(self, request_id: bytes) -> None:
        """The answer will not be sent."""
        body = self._bodies.pop(request_id, None)
        if body is not None:
            self.release(body.length)

    def release(self, count: int) -> None:
        """A whole body of this length has been sent."""
        self.reserved_bytes -= count
