from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import LocalProtocolError, RemoteProtocolError
from shared.wire.peerwire.extended import ExtendedHandshake, decode_extended_handshake, encode_extended_handshake
from shared.wire.peerwire.messages import MessageId, decode_message, encode_message, extended_head

# By hand from BEP 3: request of piece 1, offset 0x4000, 16 KiB; have 5; choke.
VECTORS = [
    (MessageId.CHOKE, b"", "0000000100"),
    (MessageId.HAVE, bytes.fromhex("00000005"), "000000050400000005"),
    (MessageId.REQUEST, bytes.fromhex("000000010000400000004000"), "0000000d06000000010000400000004000"),
    (MessageId.PORT, bytes.fromhex("1ae1"), "00000003091ae1"),
]

# By hand from BEP 10: {m: {swarm-space: 1}, p: 6881, reqq: 250, v: "swarmbridge"}
EXTENDED = b"d1:md11:swarm-spacei1ee1:pi6881e4:reqqi250e1:v11:swarmbridgee"
# What webtorrent sends: no `v` (docs/webtorrent.md).
WEBTORRENT = b"d1:md11:swarm-spacei3e11:ut_metadatai1e6:ut_pexi2eee"


@pytest.mark.parametrize(("message_id", "body", "encoded"), VECTORS)
def test_vectors_both_ways(message_id: int, body: bytes, encoded: str) -> None:
    assert encode_message(message_id, body).hex() == encoded
    message = decode_message(memoryview(bytes.fromhex(encoded))[4:])
    assert (message.id, bytes(message.body)) == (message_id, body)


@pytest.mark.parametrize("payload", ["0000", "0400", "06", "07000000", "0901", "14"])
def test_a_known_message_of_a_wrong_length_is_refused(payload: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(memoryview(bytes.fromhex(payload)))


def test_our_own_impossible_messages_are_bugs() -> None:
    with pytest.raises(LocalProtocolError):
        encode_message(256)
    with pytest.raises(LocalProtocolError):
        decode_message(memoryview(b""))


@given(st.integers(10, 19) | st.integers(21, 255), st.binary(max_size=50))
def test_unknown_ids_pass_and_encode_then_decode_is_the_identity(message_id: int, body: bytes) -> None:
    message = decode_message(memoryview(encode_message(message_id, body))[4:])
    assert (message.id, bytes(message.body)) == (message_id, body)


def test_the_head_of_an_extended_message() -> None:
    assert extended_head(3, 5) + b"hello" == encode_message(MessageId.EXTENDED, b"\x03hello")


def test_extended_handshake_vectors() -> None:
    ours = ExtendedHandshake({b"swarm-space": 1}, port=6881, requests=250, client="swarmbridge")
    assert encode_extended_handshake(ours) == EXTENDED
    assert decode_extended_handshake(EXTENDED) == ours
    theirs = decode_extended_handshake(WEBTORRENT)
    assert (theirs.swarm_space_id, theirs.client, theirs.port) == (3, "", None)


@pytest.mark.parametrize(
    "data", [b"i1e", b"d1:mi1ee", b"d1:md1:ai256eee", b"d1:md1:a1:bee", b"d1:md1:ai-1eee", b"d1:mle" + b"e"]
)
def test_a_dictionary_without_a_usable_m_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_extended_handshake(data)


def test_nonsense_beside_m_counts_as_not_given() -> None:
    theirs = decode_extended_handshake(b"d1:mde1:pi70000e4:reqqi-1e1:vi1ee")
    assert theirs == ExtendedHandshake({})
    assert theirs.swarm_space_id is None
    assert decode_extended_handshake(b"d1:md11:swarm-spacei0eee").swarm_space_id is None


@given(
    st.dictionaries(st.binary(max_size=12), st.integers(0, 255), max_size=5),
    st.none() | st.integers(1, 65535),
    st.none() | st.integers(0, 1000),
    st.text("abc ", max_size=10),
)
@settings(max_examples=60)
def test_extended_handshake_round_trip(
    extensions: dict[bytes, int], port: int | None, requests: int | None, client: str
) -> None:
    handshake = ExtendedHandshake(extensions, port, requests, client)
    assert decode_extended_handshake(encode_extended_handshake(handshake)) == handshake


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_only_remote_protocol_error(data: bytes) -> None:
    for decode in (lambda: decode_extended_handshake(data), lambda: decode_message(memoryview(b"\x14" + data))):
        try:
            decode()
        except RemoteProtocolError:
            pass
