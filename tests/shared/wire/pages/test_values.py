"""Values of pages: identity, hostile bytes, and numbers of the layout that `broadcast.js` shares."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import RemoteProtocolError
from shared.wire.pages.values import (
    MAX_DEPTH,
    UNDEFINED_VALUE,
    VIEW_KINDS,
    ArrayView,
    PageDate,
    PageMap,
    PageSet,
    decode_value,
    encode_value,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.just(UNDEFINED_VALUE)
    | st.builds(PageDate, st.floats())
    | st.builds(ArrayView, st.sampled_from(VIEW_KINDS), st.binary(max_size=20))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        | st.builds(PageSet, st.lists(inner, max_size=3).map(tuple))
        | st.builds(PageMap, st.lists(st.tuples(inner, inner), max_size=3).map(tuple))
    ),
    max_leaves=12,
)


def same_value(one: Any, other: Any) -> bool:
    """Equality as a page sees it: NaN is itself, true is not 1, an ArrayBuffer is no view."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_value(one[key], other[key]) for key in one)
    if isinstance(one, PageMap):
        return same_value([list(pair) for pair in one.pairs], [list(pair) for pair in other.pairs])
    if isinstance(one, PageSet):
        return same_value(list(one.members), list(other.members))
    if isinstance(one, PageDate):
        return same_value(one.ms, other.ms)
    return bool(one == other)


@given(VALUES)
def test_decoding_what_was_encoded_is_the_identity(value: Any) -> None:
    assert same_value(decode_value(encode_value(value)), value)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        decode_value(data)
    except RemoteProtocolError:
        pass


@given(VALUES, st.data())
def test_a_value_cut_off_is_refused(value: Any, data: st.DataObject) -> None:
    encoded = encode_value(value)
    end = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(RemoteProtocolError):
        decode_value(encoded[:end])


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (PageDate(0.0), b"\xd7\x01" + bytes(8)),
        (UNDEFINED_VALUE, b"\xc7\x00\x05"),
        (ArrayView("Uint8Array", b"\x07"), b"\xd5\x04\x01\x07"),
        (PageSet((1,)), b"\xd5\x03\x91\x01"),
        (PageMap(((1, "a"),)), b"\xd6\x02\x92\x01\xa1a"),
        (b"\x01", b"\xc4\x01\x01"),
    ],
)
def test_the_layout(value: Any, data: bytes) -> None:
    assert encode_value(value) == data
    assert decode_value(data) == value


def test_half_a_surrogate_pair_is_kept() -> None:
    assert decode_value(b"\xd5\x06\x3d\xd8") == "\ud83d"


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * (MAX_DEPTH + 2) + b"\xc0",
        b"\x91" * 100_000,
        b"\x81\x90\x01",
        b"\x81\x01\x01",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xd5\x02\x91\x01",
        b"\xd4\x04\x0c",
        b"\xd4\x07\x00",
        b"\xc0\xc0",
    ],
    ids=["deep", "deeper", "list as key", "number as key", "timestamp", "half a pair", "kind", "code", "two values"],
)
def test_what_is_no_value(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_value(data)


def test_collections_in_collections_count_as_depth() -> None:
    value: Any = None
    for _ in range(MAX_DEPTH + 2):
        value = PageSet((value,))
    with pytest.raises(RemoteProtocolError):
        decode_value(encode_value(value))


def test_what_a_page_has_no_number_for_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        encode_value(2**70)
    assert math.isnan(decode_value(encode_value(math.nan)))
