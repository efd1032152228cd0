"""Puts a link's records back in order. Pure.

Requests of one sender may be handled in any order; a record's number tells its place. Nothing is ever repeated
on this level, so a number that was seen already is an error of the remote peer.

Invariant: at most WINDOW_RECORDS records and QUEUE_BYTES bytes wait for one that is missing.
"""

from __future__ import annotations

from services.broadcast.limits import MAX_RECORD_BYTES, QUEUE_BYTES, WINDOW_RECORDS
from shared.errors import Cause, RemoteProtocolError


class InOrder:
    """The receiving half of one link."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: dict[int, bytes] = {}
        self._waiting_bytes = 0

    def receive(self, number: int, record: bytes) -> list[bytes]:
        """Take one record. Returns: those that are now in order, oldest first.

        Raises: RemoteProtocolError: TOO_LARGE for a record over the limit, INVALID for a number that was seen
            or is beyond the window; close the link.
        """
        if len(record) > MAX_RECORD_BYTES:
            raise RemoteProtocolError("a record over 1.9 MiB", Cause.TOO_LARGE)
        if not self._next <= number < self._next + WINDOW_RECORDS or number in self._waiting:
            raise RemoteProtocolError("a record out of the window")
        if number != self._next and self._waiting_bytes + len(record) > QUEUE_BYTES:
            raise RemoteProtocolError("records ahead of one that is missing", Cause.TOO_LARGE)
        self._waiting[number] = record
        self._waiting_bytes += len(record)
        ready: list[bytes] = []
        while self._next in self._waiting:
            first = self._waiting.pop(self._next)
            self._waiting_bytes -= len(first)
            ready.append(first)
            self._next += 1
        return ready
