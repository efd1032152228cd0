from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import LocalProtocolError, RemoteProtocolError
from shared.wire.peerwire.handshake import Handshake, decode_handshake, encode_handshake

# By hand from BEP 3 and BEP 10: bit 20 from the right is 0x10 of the sixth reserved byte.
VECTOR = bytes.fromhex(
    "13426974546f7272656e742070726f746f636f6c"  # pragma: allowlist secret
    "0000000000100000"
    "000102030405060708090a0b0c0d0e0f10111213"
    "2d5342303130302d303132333435363738396162"
)
INFOHASH = bytes(range(20))
PEER_ID = b"-SB0100-0123456789ab"


def test_vector_both_ways() -> None:
    assert encode_handshake(Handshake(INFOHASH, PEER_ID)) == VECTOR
    assert decode_handshake(VECTOR) == Handshake(INFOHASH, PEER_ID)


def test_extension_bit() -> None:
    assert decode_handshake(VECTOR).speaks_extensions
    assert not Handshake(INFOHASH, PEER_ID, bytes(8)).speaks_extensions
    # libtorrent's reserved bytes: extension protocol, DHT, fast extension
    assert Handshake(INFOHASH, PEER_ID, bytes.fromhex("0000000000100005")).speaks_extensions


@pytest.mark.parametrize(
    "handshake", [Handshake(b"short", PEER_ID), Handshake(INFOHASH, b"short"), Handshake(INFOHASH + PEER_ID, b"")]
)
def test_fields_of_the_wrong_length_are_our_bug(handshake: Handshake) -> None:
    with pytest.raises(LocalProtocolError):
        encode_handshake(handshake)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_handshake(data)


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20), st.binary(min_size=8, max_size=8))
def test_encode_then_decode_is_the_identity(infohash: bytes, peer_id: bytes, reserved: bytes) -> None:
    handshake = Handshake(infohash, peer_id, reserved)
    assert decode_handshake(encode_handshake(handshake)) == handshake
