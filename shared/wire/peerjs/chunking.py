"""What travels in a `binary` data channel: packed values, the long ones split, and the close message.

    packed value of at most 16,300 bytes       one channel message
    longer                                     {__peerData: id, n: 0.., data: raw slice, total: count} each
    graceful close                             {__peerData: {type: "close"}}

A browser joins slices by `n` without any limit; `Joiner` has three. On an unordered channel the slices of
several messages may mix; each is complete when all `total` have come.

Source: the PeerJS data connection (peerjs 1.5), see shared.wire.binarypack for the packing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

from shared.errors import Cause, RemoteProtocolError
from shared.wire.binarypack.codec import MAX_VALUE_BYTES, decode_value, encode_value

SLICE_BYTES = 16_300
"""peerjs's own slice: the longest value that goes in one message."""
MAX_FRAME_BYTES = 262_144
"""The longest data channel message of browsers and aiortc."""
MAX_MESSAGE_BYTES = MAX_VALUE_BYTES
"""docs/limits.md#data-channel: 4 MiB a message."""
MAX_JOINS = 8
"""docs/limits.md#data-channel: messages of one link being reassembled."""
MAX_JOIN_AGE_S = 30.0
"""docs/limits.md#data-channel: how long a message may take from its first slice to its last."""
MAX_SLICES = 1_024
"""Ours: 4 MiB in slices of 4 KiB; peerjs's own need 258."""
MAX_MESSAGE_ID = 2**53
"""Ours: the largest whole number that a browser counts exactly."""

_PEER_DATA = "__peerData"


@dataclass(frozen=True, slots=True)
class ValueReceived:
    """A whole value from the peer: None, bool, int, float, str, bytes, list or dict."""

    value: Any


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """The peer closes the connection; nothing more comes."""


ChannelEvent = ValueReceived | CloseReceived


def split_value(value: Any, message_id: int) -> list[bytes]:
    """The channel messages that carry a value, in order.

    Args:   message_id: another number for each value of a link; used only where the value has to be split.
    Raises: LocalProtocolError: the value has no packed form or is over MAX_MESSAGE_BYTES.
    """
    packed = encode_value(value)
    if len(packed) <= SLICE_BYTES:
        return [packed]
    slices = range(0, len(packed), SLICE_BYTES)
    return [
        encode_value(
            {_PEER_DATA: message_id, "n": n, "data": packed[start : start + SLICE_BYTES], "total": len(slices)}
        )
        for n, start in enumerate(slices)
    ]


def encode_close() -> bytes:
    """The channel message that closes a connection gracefully."""
    return encode_value({_PEER_DATA: {"type": "close"}})


@dataclass(slots=True)
class _Join:
    """A message of which some slices have come."""

    total: int
    started_s: float
    slices: dict[int, bytes] = field(default_factory=dict)
    length: int = 0


class Joiner:
    """The receiving side of one link.

    Driven by:  receive_frame for each channel message; handle_timer at next_deadline.
    Invariants: at most MAX_JOINS unfinished messages of at most MAX_MESSAGE_BYTES each, none older than
                MAX_JOIN_AGE_S.
    """

    def __init__(self) -> None:
        self._joins: dict[int, _Join] = {}

    @property
    def joining_bytes(self) -> int:
        """Bytes held of messages being reassembled; a worker bounds their sum."""
        return sum(join.length for join in self._joins.values())

    def receive_frame(self, data: bytes | memoryview, now: float) -> ChannelEvent | None:
        """Take one channel message; None = a slice of an unfinished one.

        Raises: RemoteProtocolError: INVALID or TOO_LARGE; close the link.
        """
        if len(data) > MAX_FRAME_BYTES:
            _refuse("channel message too long", Cause.TOO_LARGE)
        # Here too: a link that is never idle would keep what is too old until its timer runs.
        self.handle_timer(now)
        value = decode_value(data)
        if not isinstance(value, dict) or _PEER_DATA not in value:
            return ValueReceived(value)
        mark = value[_PEER_DATA]
        if isinstance(mark, dict):
            if mark.get("type") != "close":
                _refuse("unknown control message")
            return CloseReceived()
        packed = self._join(_whole(mark, MAX_MESSAGE_ID), value, now)
        return ValueReceived(decode_value(packed)) if packed is not None else None

    def next_deadline(self) -> float | None:
        """When the oldest unfinished message will be too old."""
        return min((join.started_s + MAX_JOIN_AGE_S for join in self._joins.values()), default=None)

    def handle_timer(self, now: float) -> None:
        """Drop what is too old."""
        # Compared as next_deadline adds it up: the other way round rounding could keep a due one indefinitely.
        late = [each for each, join in self._joins.items() if join.started_s + MAX_JOIN_AGE_S <= now]
        for message_id in late:
            del self._joins[message_id]

    def _join(self, message_id: int, frame: dict[str, Any], now: float) -> bytes | None:
        total = _whole(frame.get("total"), MAX_SLICES)
        n = _whole(frame.get("n"), MAX_SLICES)
        data = frame.get("data")
        if not isinstance(data, bytes) or n >= total:
            _refuse("not a slice of a message")
        join = self._joins.get(message_id)
        if join is None:
            if len(self._joins) >= MAX_JOINS:
                _refuse("too many unfinished messages", Cause.TOO_LARGE)
            join = self._joins[message_id] = _Join(total, now)
        # A slice that comes twice would be counted twice, and the message would look whole.
        if join.total != total or n in join.slices:
            _refuse("a slice that does not fit the others")
        join.slices[n] = data
        join.length += len(data)
        # While it grows, and not when it is whole: it is the memory that is bounded.
        if join.length > MAX_MESSAGE_BYTES:
            _refuse("message too long", Cause.TOO_LARGE)
        if len(join.slices) < total:
            return None
        del self._joins[message_id]
        return b"".join(join.slices[each] for each in range(total))


def _whole(number: object, most: int) -> int:
    # bool is an int in Python; on the wire it is another type.
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= most:
        _refuse("not a slice of a message")
    return number


def _refuse(text: str, cause: Cause = Cause.INVALID) -> NoReturn:
    raise RemoteProtocolError(text, cause)
