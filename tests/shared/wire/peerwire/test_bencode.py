"""Vectors: the examples of BEP 3 itself. libtorrent's codec is the second opinion."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import LocalProtocolError, RemoteProtocolError
from shared.wire.peerwire.bencode import BValue, decode_bencode, encode_bencode

lt = pytest.importorskip("libtorrent")

VECTORS: list[tuple[bytes, BValue]] = [
    (b"4:spam", b"spam"),
    (b"0:", b""),
    (b"i3e", 3),
    (b"i-3e", -3),
    (b"i0e", 0),
    (b"i9223372036854775807e", 2**63 - 1),
    (b"i-9223372036854775808e", -(2**63)),
    (b"l4:spam4:eggse", [b"spam", b"eggs"]),
    (b"le", []),
    (b"de", {}),
    (b"d3:cow3:moo4:spam4:eggse", {b"cow": b"moo", b"spam": b"eggs"}),
    (b"d4:spaml1:a1:bee", {b"spam": [b"a", b"b"]}),
    (
        b"d1:md11:swarm-spacei1ee1:pi6881e1:v11:swarmbridgee",
        {b"m": {b"swarm-space": 1}, b"p": 6881, b"v": b"swarmbridge"},
    ),
]

BAD = [
    b"",
    b"i3",
    b"ie",
    b"i-e",
    b"i-0e",
    b"i03e",
    b"i+3e",
    b"i 3e",
    b"i1_0e",
    b"i9223372036854775808e",
    b"i99999999999999999999e",
    b"4:spa",
    b"04:spam",
    b"-1:a",
    b"+4:spam",
    b":",
    b"l4:spam",
    b"d3:cowe",
    b"di1ei2ee",
    b"d1:bi1e1:ai2ee",
    b"d1:ai1e1:ai2ee",
    b"i1ei2e",
    b"x",
    b"99999999999999999999:",
]

# libtorrent reads the least 64-bit integer as 0; ours is in VECTORS.
values = st.recursive(
    st.integers(-(2**63) + 1, 2**63 - 1) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(("encoded", "value"), VECTORS)
def test_vectors_both_ways(encoded: bytes, value: BValue) -> None:
    assert encode_bencode(value) == encoded
    assert decode_bencode(encoded) == value


@pytest.mark.parametrize("encoded", BAD)
def test_what_is_not_canonical_is_refused(encoded: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_bencode(encoded)


def test_limits() -> None:
    assert decode_bencode(b"l" * 8 + b"e" * 8) is not None
    with pytest.raises(RemoteProtocolError):
        decode_bencode(b"l" * 9 + b"e" * 9)
    with pytest.raises(RemoteProtocolError):
        decode_bencode(b"9000:" + bytes(9000))


@pytest.mark.parametrize("value", [True, 2**63, 1.5, None, "text", [object()]])
def test_what_bencode_does_not_have_is_our_bug(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        encode_bencode(value)  # type: ignore[arg-type]


@given(values)
@settings(max_examples=100, deadline=None)
def test_encode_then_decode_is_the_identity_and_libtorrent_agrees(value: BValue) -> None:
    encoded = encode_bencode(value)
    assert decode_bencode(encoded, max_depth=20) == value
    assert lt.bencode(value) == encoded
    assert lt.bdecode(encoded) == value


@given(st.binary(max_size=200) | st.text("idle:0123456789-", max_size=60).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_raise_only_remote_protocol_error(data: bytes) -> None:
    try:
        value = decode_bencode(data)
    except RemoteProtocolError:
        return
    assert encode_bencode(value) == data
