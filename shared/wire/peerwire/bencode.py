"""Bencode, strict: one value has one encoding, and anything else is refused (BEP 3, "bencoding").

    integer   i<decimal>e     no leading zero, no -0, no plus sign
    string    <length>:<bytes>
    list      l<values>e
    dict      d<string><value>…e     keys sorted as raw bytes, each once

Left out: integers beyond 64 bits, which no message of ours or of BEP 10 needs.
"""

from __future__ import annotations

from typing import TypeAlias

from shared.errors import LocalProtocolError, RemoteProtocolError

BValue: TypeAlias = "int | bytes | list[BValue] | dict[bytes, BValue]"

MAX_DEPTH = 8
"""Nested lists and dictionaries (docs/limits.md#peer-wire)."""

MAX_BYTES = 8 * 1024
"""Length of one encoded value (docs/limits.md#peer-wire)."""

_INT64 = range(-(2**63), 2**63)
_MAX_INT_DIGITS = 19
_LIST, _DICT, _INT, _END, _COLON, _MINUS, _ZERO = b"ldie:-0"


def encode_bencode(value: BValue) -> bytes:
    """Encode a value; dictionary keys are written in order, whatever order they come in.

    Raises: LocalProtocolError: a type that bencode does not have, or an integer beyond 64 bits.
    Source: BEP 3.
    """
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def decode_bencode(data: bytes, *, max_depth: int = MAX_DEPTH, max_bytes: int = MAX_BYTES) -> BValue:
    """Decode exactly one value.

    Args:    max_depth: lists and dictionaries inside one another; a bare integer has depth 0.
    Raises:  RemoteProtocolError: not canonical, cut short, too long, too deep, or bytes left over.
    Source:  BEP 3.
    """
    if len(data) > max_bytes:
        raise RemoteProtocolError("a bencoded value over its size limit")
    reader = _Reader(data, max_depth)
    value = reader.value(0)
    if reader.offset != len(data):
        raise RemoteProtocolError("bytes after a bencoded value")
    return value


def _write(value: BValue, parts: list[bytes]) -> None:
    if isinstance(value, bool) or (isinstance(value, int) and value not in _INT64):
        raise LocalProtocolError("bencode has 64-bit integers only")
    if isinstance(value, int):
        parts.append(b"i%de" % value)
    elif isinstance(value, bytes):
        parts.append(b"%d:%b" % (len(value), value))
    elif isinstance(value, list):
        parts.append(b"l")
        for item in value:
            _write(item, parts)
        parts.append(b"e")
    elif isinstance(value, dict):
        parts.append(b"d")
        for key in sorted(value):
            _write(key, parts)
            _write(value[key], parts)
        parts.append(b"e")
    else:
        raise LocalProtocolError(f"bencode has no {type(value).__name__}")


class _Reader:
    def __init__(self, data: bytes, max_depth: int) -> None:
        self.offset = 0
        self._data = data
        self._max_depth = max_depth

    def value(self, depth: int) -> BValue:
        first = self._peek()
        if first in (_LIST, _DICT):
            if depth >= self._max_depth:
                raise RemoteProtocolError("bencode nested too deeply")
            self.offset += 1
            return self._list(depth + 1) if first == _LIST else self._dict(depth + 1)
        if first == _INT:
            self.offset += 1
            return self._integer(_END, signed=True)
        return self._string()

    def _peek(self) -> int:
        if self.offset >= len(self._data):
            raise RemoteProtocolError("a bencoded value cut short")
        return self._data[self.offset]

    def _list(self, depth: int) -> list[BValue]:
        items: list[BValue] = []
        while self._peek() != _END:
            items.append(self.value(depth))
        self.offset += 1
        return items

    def _dict(self, depth: int) -> dict[bytes, BValue]:
        items: dict[bytes, BValue] = {}
        last: bytes | None = None
        while self._peek() != _END:
            key = self._string()
            # BEP 3: "Keys must be strings and appear in sorted order"; twice the same key is no order.
            if last is not None and key <= last:
                raise RemoteProtocolError("bencode keys out of order")
            items[key] = self.value(depth)
            last = key
        self.offset += 1
        return items

    def _string(self) -> bytes:
        length = self._integer(_COLON, signed=False)
        start = self.offset
        # Before it is cut: a slice beyond the end is short in Python, and no error.
        if length > len(self._data) - start:
            raise RemoteProtocolError("a bencoded string cut short")
        self.offset = start + length
        return self._data[start : self.offset]

    def _integer(self, end: int, *, signed: bool) -> int:
        negative = signed and self._peek() == _MINUS
        self.offset += negative
        # Bounded: a string of digits without an end would be searched, and made a number of, to its last byte.
        stop = self._data.find(end, self.offset, self.offset + _MAX_INT_DIGITS + 1)
        digits = self._data[self.offset : stop]
        # isdigit of bytes knows ASCII only; int() alone would take blanks, signs and underscores.
        if stop < 0 or not digits.isdigit():
            raise RemoteProtocolError("not a bencoded integer")
        # BEP 3: "i-0e is invalid. All encodings with a leading zero, such as i03e, are invalid".
        if digits[0] == _ZERO and (len(digits) > 1 or negative):
            raise RemoteProtocolError("a bencoded integer with a leading zero")
        self.offset = stop + 1
        number = -int(digits) if negative else int(digits)
        if number not in _INT64:
            raise RemoteProtocolError("a bencoded integer beyond 64 bits")
        return number
