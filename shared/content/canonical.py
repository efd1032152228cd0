"""Canonical JSON: one text for one value, so that it can be hashed and signed (docs/swarm-space.md).

Keys sorted, no white space, raw UTF-8, numbers and strings as ECMAScript writes them. Keys sort by code
point; swarm-space sorts them by locale, which is the same for the fields that it signs and for every field
that we add, and can differ for foreign ones (`"A"` and `"a"`): their order counts only in our own digest.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from shared.errors import RemoteProtocolError

MAX_JSON_DEPTH = 32
"""Arrays and objects in each other; a manifest needs 2."""
MAX_SAFE_INTEGER = 2**53 - 1
"""ECMAScript's: larger whole numbers are doubles there, and are written as such."""
MAX_PLAIN_EXPONENT = 21
"""ECMA-262, Number::toString: from 1e21 on, and below 1e-6, numbers are written with an exponent."""
MIN_PLAIN_EXPONENT = -7

_STRUCTURE = (b",", b"{", b"[")
"""Each value but the outermost comes after one of these."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Json = dict[str, Any] | list[Any] | str | int | float | bool | None


def encode_canonical(value: Json) -> bytes:
    """The canonical text of a JSON value, UTF-8.

    Lone surrogates stay escaped, as JSON.stringify writes them; NaN and the infinities become null.
    Raises: RemoteProtocolError(INVALID): nested deeper than MAX_JSON_DEPTH, or a number beyond a double.
    """
    text = _text(value, 0)
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def decode_json(raw: bytes, max_bytes: int, max_values: int) -> Json:
    """Parse a peer's JSON strictly: UTF-8, no repeated keys, no NaN, bounded in size, depth and number of values.

    Args:   max_values: separators and brackets in the text, those within strings included. They are counted before
            anything is parsed: 2 MiB of `[],` would hold the event loop for more than a second.
    Raises: RemoteProtocolError(INVALID).
    """
    if len(raw) > max_bytes:
        raise RemoteProtocolError(f"JSON of {len(raw)} bytes")
    if sum(map(raw.count, _STRUCTURE)) > max_values:
        raise RemoteProtocolError("JSON of too many values")
    try:
        value: Json = json.loads(raw.decode(), object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("not JSON") from None
    _check_depth(value, 0)
    return value


def _text(value: Any, depth: int) -> str:
    if depth > MAX_JSON_DEPTH:
        raise RemoteProtocolError("JSON nested too deeply")
    if isinstance(value, dict):
        members = (f"{_string(key)}:{_text(value[key], depth + 1)}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        # A manifest's long lists hold nothing but text; the C encoder writes them a hundred times faster.
        if all(type(item) is str for item in value):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return "[" + ",".join([_text(item, depth + 1) for item in value]) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(value)


def _string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: int | float) -> str:
    if isinstance(value, int) and abs(value) <= MAX_SAFE_INTEGER:
        return str(value)
    try:
        double = float(value)
    except OverflowError:
        raise RemoteProtocolError("a number beyond a double") from None
    if not math.isfinite(double):
        return "null"
    return "0" if double == 0 else _double(double)


def _double(value: float) -> str:
    """ECMA-262, Number::toString. Python's repr has the same shortest digits, in another layout."""
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS times ten to the power of `point`.
    point = int(exponent or 0) + len(whole) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= MAX_PLAIN_EXPONENT:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= MAX_PLAIN_EXPONENT:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if MIN_PLAIN_EXPONENT < point - 1 < 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a repeated key")
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Any, depth: int) -> None:
    if depth > MAX_JSON_DEPTH:
        raise RemoteProtocolError("JSON nested too deeply")
    if isinstance(value, dict):
        for member in value.values():
            _check_depth(member, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_depth(item, depth + 1)
