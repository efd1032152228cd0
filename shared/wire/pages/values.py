"""Values of a page's BroadcastChannel as bytes: what structured clone, JSON and bytes share.

Layout:   one MessagePack value. null, booleans, numbers, strings, arrays and objects are MessagePack's own; an
          ArrayBuffer is `bin`. The rest are extension types:

    1  Date          f64, big-endian: ms since 1970, NaN for an invalid date
    2  Map           one array: key, value, key, value ...
    3  Set           one array
    4  a view        u8 kind, then its bytes, little-endian
    5  undefined     empty
    6  a string that is no Unicode (it holds half a surrogate pair): UTF-16, little-endian

Left out: cycles, and what has an identity or behaviour of its own (functions, errors, regular expressions, blobs,
ports, big integers): `broadcast.js` refuses them, so that nothing arrives as something else than was sent.
Source:   MessagePack; HTML, "safe passing of structured data".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, assert_never

import msgspec

from shared.errors import RemoteProtocolError
from shared.undecodable import UNDECODABLE

DATE, MAP, SET, VIEW, UNDEFINED, TEXT16 = 1, 2, 3, 4, 5, 6

MAX_DEPTH = 32
"""Ours: values in values, as of BinaryPack. Deeper ones are nobody's message."""

VIEW_KINDS = (
    "Int8Array",
    "Uint8Array",
    "Uint8ClampedArray",
    "Int16Array",
    "Uint16Array",
    "Int32Array",
    "Uint32Array",
    "Float32Array",
    "Float64Array",
    "BigInt64Array",
    "BigUint64Array",
    "DataView",
)
"""By their number in the layout; `broadcast.js` has the same list."""


@dataclass(frozen=True, slots=True)
class PageDate:
    """ms since 1970 by the page's clock; NaN for an invalid date."""

    ms: float


@dataclass(frozen=True, slots=True)
class PageMap:
    pairs: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class PageSet:
    members: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ArrayView:
    """kind: one of VIEW_KINDS. data: its bytes, little-endian."""

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Undefined:
    """JavaScript's undefined, which is not null."""


UNDEFINED_VALUE = Undefined()
Extended = PageDate | PageMap | PageSet | ArrayView | Undefined
"""What a page has and MessagePack has not."""


def decode_value(data: bytes | memoryview, max_depth: int = MAX_DEPTH) -> Any:
    """One value. Objects are dicts of strings, ArrayBuffers bytes, the rest the types of this module.

    Raises: RemoteProtocolError(INVALID): not of this layout, or deeper than max_depth.
    """
    try:
        # Extensions are only taken apart here: reading them needs the depth, which the hook does not know.
        value = msgspec.msgpack.Decoder(ext_hook=lambda code, body: _Extension(code, bytes(body))).decode(data)
    except (*UNDECODABLE, TypeError):  # TypeError: a list as a key
        raise RemoteProtocolError("no value of a page") from None
    return _checked(value, max_depth)


def encode_value(value: Any) -> bytes:
    """The bytes of a value as `decode_value` gives it.

    Raises: RemoteProtocolError(INVALID): a number of more than 64 bits, or a type that a page does not have.
    """
    try:
        return msgspec.msgpack.encode(_packable(value))
    except (TypeError, OverflowError, UnicodeError, RecursionError):
        raise RemoteProtocolError("no value for a page") from None


@dataclass(frozen=True, slots=True)
class _Extension:
    code: int
    body: bytes


def _checked(value: Any, depth: int) -> Any:
    if depth < 0:
        raise RemoteProtocolError("a value that is too deep")
    if isinstance(value, _Extension):
        return _read(value.code, value.body, depth)
    match value:
        case list():
            return [_checked(each, depth - 1) for each in value]
        case dict():
            # MessagePack takes any key; a page's object has strings alone.
            if not all(isinstance(key, str) for key in value):
                raise RemoteProtocolError("a key that is no string")
            return {key: _checked(each, depth - 1) for key, each in value.items()}
        case None | bool() | int() | float() | str() | bytes():
            return value
        case _:
            raise RemoteProtocolError("no value of a page")  # MessagePack's own timestamps


def _read(code: int, body: bytes, depth: int) -> Any:
    match code:
        case 1 if len(body) == 8:
            return PageDate(struct.unpack(">d", body)[0])
        case 2 | 3:
            # With the depth that is left: a collection in an extension would else begin from 32 again.
            members = decode_value(body, depth - 1)
            if not isinstance(members, list) or (code == MAP and len(members) % 2):
                raise RemoteProtocolError("a collection that is no list")
            if code == SET:
                return PageSet(tuple(members))
            return PageMap(tuple(zip(members[::2], members[1::2], strict=True)))
        # A view's length need not fit its kind: that is for the page, which makes it.
        case 4 if body and body[0] < len(VIEW_KINDS):
            return ArrayView(VIEW_KINDS[body[0]], body[1:])
        case 5 if not body:
            return UNDEFINED_VALUE
        case 6 if len(body) % 2 == 0:
            return body.decode("utf-16-le", "surrogatepass")
        case _:
            raise RemoteProtocolError("an extension that is not known")


def _packable(value: Any) -> Any:
    """With what MessagePack does not have as extensions. Raises: TypeError."""
    if isinstance(value, Extended):
        return _packed(value)
    match value:
        # JavaScript's strings may hold half a pair; UTF-8, and so MessagePack, may not.
        case str() if not _is_unicode(value):
            return _extension(TEXT16, value.encode("utf-16-le", "surrogatepass"))
        case None | bool() | int() | float() | str() | bytes():
            return value
        case list():
            return [_packable(each) for each in value]
        case dict():
            return {key: _packable(each) for key, each in value.items()}
        case _:
            raise TypeError("no value for a page")


def _packed(value: Extended) -> msgspec.msgpack.Ext:
    match value:
        case PageDate():
            return _extension(DATE, struct.pack(">d", value.ms))
        case PageMap():
            return _extension(MAP, encode_value([each for pair in value.pairs for each in pair]))
        case PageSet():
            return _extension(SET, encode_value(list(value.members)))
        case ArrayView():
            return _extension(VIEW, bytes([VIEW_KINDS.index(value.kind)]) + value.data)
        case Undefined():
            return _extension(UNDEFINED, b"")
        case _:
            assert_never(value)


def _extension(code: int, body: bytes) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, body)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
