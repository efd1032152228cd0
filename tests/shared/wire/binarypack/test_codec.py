"""BinaryPack: vectors from the byte table of peerjs-js-binarypack; most were also seen from it, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.binarypack.codec import MAX_DEPTH, MAX_ITEMS, MAX_VALUE_BYTES, decode_value, encode_value

VECTORS: list[tuple[Any, str]] = [
    (0, "00"),
    (127, "7f"),
    (128, "cc80"),
    (255, "ccff"),
    (256, "cd0100"),
    (65535, "cdffff"),
    (65536, "ce00010000"),
    (2**32 - 1, "ceffffffff"),
    (2**32, "d30000000100000000"),
    (2**53, "d30020000000000000"),
    (-1, "ff"),
    (-32, "e0"),
    (-33, "d0df"),
    (-128, "d080"),
    (-129, "d1ff7f"),
    (-32768, "d18000"),
    (-32769, "d2ffff7fff"),
    (-(2**31), "d280000000"),
    (-(2**31) - 1, "d3ffffffff7fffffff"),
    (-(2**53), "d3ffe0000000000000"),
    (1.5, "cb3ff8000000000000"),
    (0.1, "cb3fb999999999999a"),
    (None, "c0"),
    (True, "c3"),
    (False, "c2"),
    ("", "b0"),
    ("a" * 15, "bf" + "61" * 15),
    ("a" * 16, "d80010" + "61" * 16),
    ("a" * 65535, "d8ffff" + "61" * 65535),
    ("a" * 65536, "d900010000" + "61" * 65536),
    ("é", "b2c3a9"),
    ("😀", "b4f09f9880"),
    (b"", "a0"),
    (bytes(15), "af" + "00" * 15),
    (bytes(16), "da0010" + "00" * 16),
    (bytes(65535), "daffff" + "00" * 65535),
    (bytes(65536), "db00010000" + "00" * 65536),
    ([], "90"),
    ([None] * 15, "9f" + "c0" * 15),
    ([None] * 16, "dc0010" + "c0" * 16),
    ([None] * 65536, "dd00010000" + "c0" * 65536),
    ({}, "80"),
    ({"k0": 1}, "81b26b3001"),
    ({f"k{i:x}": 1 for i in range(16)}, "de0010" + "".join(f"b26b{ord(f'{i:x}'):02x}01" for i in range(16))),
    (
        {"__peerData": 1, "n": 0, "data": b"\x01\x02", "total": 2},
        "84ba5f5f706565724461746101b16e00b464617461a20102b5746f74616c02",  # pragma: allowlist secret
    ),
    ({"__peerData": {"type": "close"}}, "81ba5f5f706565724461746181b474797065b5636c6f7365"),  # pragma: allowlist secret
]

DECODED_ONLY: list[tuple[str, Any]] = [
    ("c1", None),
    ("ca3fc00000", 1.5),
    ("cf0020000000000000", 2**53),
    ("d0ff", -1),
    ("d1ffff", -1),
    ("d2ffffffff", -1),
    ("d8000161", "a"),
    ("d90000000161", "a"),
    ("da000161", b"a"),
    ("db0000000161", b"a"),
    ("dc000101", [1]),
    ("dd0000000101", [1]),
    ("de0001b16101", {"a": 1}),
    ("df00000001b16101", {"a": 1}),
]


@pytest.mark.parametrize(("value", "packed"), VECTORS, ids=lambda each: str(each)[:24])
def test_vectors(value: Any, packed: str) -> None:
    assert encode_value(value).hex() == packed
    decoded = decode_value(bytes.fromhex(packed))
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(("packed", "value"), DECODED_ONLY)
def test_forms_that_we_never_write(packed: str, value: Any) -> None:
    assert decode_value(memoryview(bytes.fromhex(packed))) == value


def test_other_bytes_and_tuples_pack_too() -> None:
    assert encode_value((bytearray(b"a"), memoryview(b"b"))) == encode_value([b"a", b"b"])


@pytest.mark.parametrize(
    "packed",
    [
        "",
        "c4",
        "c9",
        "d4",
        "d7",
        "c2c2",
        "b1ff",
        "b3eda080",
        "8101c3",
        "81a161c3",
        "92c0",
        "da0002ff",
        "dbffffffff",
        "cb00",
    ],
)
def test_broken_values_are_the_peers_fault(packed: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_value(bytes.fromhex(packed))
    assert caught.value.cause is Cause.INVALID


def test_limits() -> None:
    deepest = b"\x91" * MAX_DEPTH + b"\xc0"
    assert encode_value(decode_value(deepest)) == deepest
    for packed in (
        b"\x91" + deepest,
        b"\xdd" + (MAX_ITEMS + 1).to_bytes(4, "big") + b"\x00" * (MAX_ITEMS + 1),
        bytes(MAX_VALUE_BYTES + 1),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            decode_value(packed)
        assert caught.value.cause is Cause.TOO_LARGE


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", {1: 2}, object(), {1}, bytes(MAX_VALUE_BYTES)])
def test_what_cannot_be_packed_is_our_fault(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode_value(value)


def test_our_own_nesting_is_bounded() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(LocalProtocolError):
        encode_value(value)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=20), inner, max_size=20),
    max_leaves=20,
)


@settings(max_examples=100)
@given(values)
def test_encode_then_decode_is_the_identity(value: Any) -> None:
    assert decode_value(encode_value(value)) == value


@settings(max_examples=100)
@given(values, st.data())
def test_a_value_cut_short_is_refused(value: Any, data: st.DataObject) -> None:
    packed = encode_value(value)
    length = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(RemoteProtocolError):
        decode_value(packed[:length])


@settings(max_examples=100)
@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        decode_value(data)
    except RemoteProtocolError:
        return
