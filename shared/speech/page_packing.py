"""How a page writes values into channel messages, by the serialization of its PeerJS connection.

    binary   BinaryPack, long values in slices; a close message       (shared.wire.peerjs.chunking)
    json     one JSON text a message; a close message
    raw      a text or bytes as they are: here JSON as well, a text standing for itself; no close message

A page cannot send `json` of more than 16,300 bytes (its client refuses it), but takes what fits in one message. So a
whole chunk of 1 MiB goes over `binary` alone; over the others it is "not found", and small ones arrive.

Source: peerjs 1.5, its serializers.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from shared.content.canonical import decode_json
from shared.content.manifest import MAX_MANIFEST_VALUES
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.peerjs.chunking import (
    MAX_FRAME_BYTES,
    ChannelEvent,
    CloseReceived,
    Joiner,
    ValueReceived,
    encode_close,
    split_value,
)

BINARY, JSON, RAW = "binary", "json", "raw"
CLOSE = {"__peerData": {"type": "close"}}


class Packing(Protocol):
    """One serialization on one link."""

    @property
    def joining_bytes(self) -> int:
        """Held of messages that are not whole yet."""

    def unpack(self, record: bytes, now: float) -> ChannelEvent | None:
        """Take one channel message; None = a part of an unfinished one. Raises: RemoteProtocolError: close the link."""

    def pack(self, value: Any) -> list[bytes]:
        """The channel messages that carry a value. Raises: LocalProtocolError: it has no such form, or is too long."""

    def close_record(self) -> bytes | None:
        """What closes the connection gracefully; None where there is no word for it."""

    def next_deadline(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...


class BinaryPacking:
    def __init__(self) -> None:
        self._joiner = Joiner()
        self._message_count = 0

    @property
    def joining_bytes(self) -> int:
        return self._joiner.joining_bytes

    def unpack(self, record: bytes, now: float) -> ChannelEvent | None:
        return self._joiner.receive_frame(record, now)

    def pack(self, value: Any) -> list[bytes]:
        self._message_count += 1
        return split_value(value, self._message_count)

    def close_record(self) -> bytes | None:
        return encode_close()

    def next_deadline(self) -> float | None:
        return self._joiner.next_deadline()

    def handle_timer(self, now: float) -> None:
        self._joiner.handle_timer(now)


class JsonPacking:
    """raw: `raw` instead of `json`."""

    joining_bytes = 0

    def __init__(self, *, raw: bool = False) -> None:
        self._raw = raw

    def unpack(self, record: bytes, now: float) -> ChannelEvent | None:
        if len(record) > MAX_FRAME_BYTES:
            raise RemoteProtocolError("channel message too long", Cause.TOO_LARGE)
        try:
            value = decode_json(record, MAX_FRAME_BYTES, MAX_MANIFEST_VALUES)
        except RemoteProtocolError:
            if self._raw:
                return ValueReceived(record)  # any bytes are good `raw`; they mean nothing to us
            raise
        # On `raw` everything is the page's own: such a value is only a value.
        return CloseReceived() if value == CLOSE and not self._raw else ValueReceived(value)

    def pack(self, value: Any) -> list[bytes]:
        try:
            text = value if self._raw and isinstance(value, str) else _json(value)
            packed = text.encode()
        except (TypeError, ValueError, RecursionError):  # NaN, raw bytes, half a character
            raise LocalProtocolError("a value that JSON cannot hold") from None
        if len(packed) > MAX_FRAME_BYTES:
            raise LocalProtocolError("a value that is too long for one message")
        return [packed]

    def close_record(self) -> bytes | None:
        return None if self._raw else _json(CLOSE).encode()

    def next_deadline(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None:
        pass


def packing_of(serialization: str) -> Packing:
    """serialization: `binary` (also ""), `json` or `raw`."""
    # peerjs takes "" for its default, which is `binary`.
    return BinaryPacking() if serialization in (BINARY, "") else JsonPacking(raw=serialization == RAW)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
