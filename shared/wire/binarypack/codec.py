"""BinaryPack, the `binary` serialization of PeerJS data channels. It looks like MessagePack and is not.

    00-7f  positive fixint        cc cd ce cf  uint 8 16 32 64       c0 nil    c1 undefined (read as nil)
    e0-ff  negative fixint        d0 d1 d2 d3  int 8 16 32 64        c2 false  c3 true
    a0-af  raw, 0-15 bytes        da db        raw, u16 u32 length   ca float  cb double
    b0-bf  string, 0-15 bytes     d8 d9        string, u16 u32 length
    80-8f  map, 0-15 pairs        de df        map, u16 u32 pairs
    90-9f  array, 0-15 items      dc dd        array, u16 u32 items

Big-endian; string lengths count bytes of UTF-8. Whole numbers of 2**32 and more are written as int 64, as
browsers do. A browser reads whole numbers beyond 2**53 inexactly; that is the application's to mind.

Left out: dates (a browser writes them as strings), typed arrays (raw bytes).
Source: the byte table of peerjs-js-binarypack, which documents none; see tests/shared/wire/binarypack.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NoReturn

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError

MAX_DEPTH = 32
"""docs/limits.md#data-channel: how deep containers may nest."""
MAX_VALUE_BYTES = 4 * 2**20
"""docs/limits.md#data-channel: the longest packed value, reassembled."""
MAX_ITEMS = 100_000
"""Ours: items of all containers of one value. A 4 MiB array of one-byte items would cost 100 times that here."""

_NIL, _UNDEFINED, _FALSE, _TRUE = 0xC0, 0xC1, 0xC2, 0xC3
_FLOAT, _DOUBLE = 0xCA, 0xCB
_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1

_UNSIGNED: Final = ((0xCC, 0xFF, ">BB"), (0xCD, 0xFFFF, ">BH"), (0xCE, 0xFFFFFFFF, ">BI"))
_SIGNED: Final = ((0xD0, -0x80, ">Bb"), (0xD1, -0x8000, ">Bh"), (0xD2, -0x80000000, ">Bi"))
_NUMBERS: Final = {
    tag: struct.Struct(form)
    for tag, form in (
        (_FLOAT, ">f"),
        (_DOUBLE, ">d"),
        (0xCC, ">B"),
        (0xCD, ">H"),
        (0xCE, ">I"),
        (0xCF, ">Q"),
        (0xD0, ">b"),
        (0xD1, ">h"),
        (0xD2, ">i"),
        (0xD3, ">q"),
    )
}
_SIZED: Final = {
    # tag: (kind, bytes of its length)
    0xD8: ("string", 2),
    0xD9: ("string", 4),
    0xDA: ("raw", 2),
    0xDB: ("raw", 4),
    0xDC: ("array", 2),
    0xDD: ("array", 4),
    0xDE: ("map", 2),
    0xDF: ("map", 4),
}
_FIXED: Final = {0x80: "map", 0x90: "array", 0xA0: "raw", 0xB0: "string"}
_LITERALS: Final = {_NIL: None, _UNDEFINED: None, _FALSE: False, _TRUE: True}


def encode_value(value: Any) -> bytes:
    """Pack a value.

    Args:   value: None, bool, int, float, str, bytes-like, list or tuple, dict with str keys.
    Raises: LocalProtocolError: another type, an int outside 64 bits, or over this module's limits.
    """
    parts: list[bytes | memoryview] = []
    _pack(value, parts, 0)
    packed = b"".join(parts)
    if len(packed) > MAX_VALUE_BYTES:
        raise LocalProtocolError("packed value too long")
    return packed


def decode_value(data: bytes | memoryview) -> Any:
    """Unpack exactly one value.

    Args:   data: one packed value, at most MAX_VALUE_BYTES.
    Returns: None, bool, int, float, str, bytes (copied), list, dict with str keys.
    Raises:  RemoteProtocolError: INVALID where it is no BinaryPack, TOO_LARGE over a limit; close the link.
    """
    if len(data) > MAX_VALUE_BYTES:
        raise RemoteProtocolError("packed value too long", Cause.TOO_LARGE)
    reader = _Reader(memoryview(data))
    value = reader.value(0)
    if reader.remaining:
        _refuse("bytes after the value")
    return value


def _pack(value: Any, parts: list[bytes | memoryview], depth: int) -> None:
    match value:
        case None:
            parts.append(b"\xc0")
        # Before int: in Python a bool is one.
        case bool():
            parts.append(b"\xc3" if value else b"\xc2")
        case int():
            parts.append(_packed_int(value))
        case float():
            parts.append(struct.pack(">Bd", _DOUBLE, value))
        case str():
            encoded = _utf8(value)
            parts += (_header(0xB0, 0xD8, len(encoded)), encoded)
        case bytes() | bytearray() | memoryview():
            raw = memoryview(value).cast("B")
            parts += (_header(0xA0, 0xDA, len(raw)), raw)
        case list() | tuple():
            _check_depth(depth)
            parts.append(_header(0x90, 0xDC, len(value)))
            for item in value:
                _pack(item, parts, depth + 1)
        case dict():
            _check_depth(depth)
            parts.append(_header(0x80, 0xDE, len(value)))
            for key, item in value.items():
                if not isinstance(key, str):
                    raise LocalProtocolError("map keys are strings")
                _pack(key, parts, depth + 1)
                _pack(item, parts, depth + 1)
        case _:
            raise LocalProtocolError("no BinaryPack form for this type")


def _packed_int(value: int) -> bytes:
    if -0x20 <= value <= 0x7F:
        return bytes((value & 0xFF,))
    if value > 0:
        for tag, most, form in _UNSIGNED:
            if value <= most:
                return struct.pack(form, tag, value)
    else:
        for tag, least, form in _SIGNED:
            if value >= least:
                return struct.pack(form, tag, value)
    # int 64 before uint 64, as browsers write it.
    if _INT64_MIN <= value <= _INT64_MAX:
        return struct.pack(">Bq", 0xD3, value)
    if 0 < value <= _UINT64_MAX:
        return struct.pack(">BQ", 0xCF, value)
    raise LocalProtocolError("an int of more than 64 bits")


def _header(fixed: int, sized: int, length: int) -> bytes:
    if length <= 0x0F:
        return bytes((fixed | length,))
    if length <= 0xFFFF:
        return struct.pack(">BH", sized, length)
    if length <= MAX_VALUE_BYTES:
        return struct.pack(">BI", sized + 1, length)
    raise LocalProtocolError("packed value too long")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("a string that UTF-8 cannot hold") from None


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise LocalProtocolError("value nests too deep")


class _Reader:
    """A position in a packed value. `value` recurses at most MAX_DEPTH times."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0
        self._items = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._at

    def value(self, depth: int) -> Any:
        tag = self._take(1)[0]
        if tag <= 0x7F:
            return tag
        if tag >= 0xE0:
            return tag - 0x100
        if tag in _LITERALS:
            return _LITERALS[tag]
        if tag in _NUMBERS:
            number = _NUMBERS[tag]
            return number.unpack(self._take(number.size))[0]
        kind, length = self._kind(tag)
        if kind == "raw":
            # A copy: the record that it lies in is the transport's to use again.
            return bytes(self._take(length))
        if kind == "string":
            return self._string(length)
        return self._container(kind, length, depth)

    def _kind(self, tag: int) -> tuple[str, int]:
        if tag in _SIZED:
            kind, width = _SIZED[tag]
            return kind, int.from_bytes(self._take(width), "big")
        # The short forms have their length in the tag itself.
        if tag & 0xF0 not in _FIXED:
            _refuse("unknown tag")
        return _FIXED[tag & 0xF0], tag & 0x0F

    def _container(self, kind: str, length: int, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            _refuse("value nests too deep", Cause.TOO_LARGE)
        # Before they are read: a header of five bytes may promise four billion.
        self._items += length
        if self._items > MAX_ITEMS:
            _refuse("too many items", Cause.TOO_LARGE)
        if kind == "array":
            return [self.value(depth + 1) for _ in range(length)]
        return dict(self._pair(depth) for _ in range(length))

    def _pair(self, depth: int) -> tuple[str, Any]:
        # Any value may stand there on the wire; a browser's object has strings.
        key = self.value(depth + 1)
        if not isinstance(key, str):
            _refuse("a map key that is no string")
        return key, self.value(depth + 1)

    def _string(self, length: int) -> str:
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError:
            _refuse("a string that is not UTF-8")

    def _take(self, count: int) -> memoryview:
        if count > self.remaining:
            _refuse("value cut short")
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken


def _refuse(text: str, cause: Cause = Cause.INVALID) -> NoReturn:
    raise RemoteProtocolError(text, cause)
