"""The public Noise vectors, and what a bad peer may try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.sealed.noise import MAX_MESSAGE_BYTES, CipherState, Handshake

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "noise_xx.json").read_text())["vectors"]


def handshake(vector: dict[str, Any], side: str) -> Handshake:
    return Handshake(
        initiator=side == "init",
        static_private=bytes.fromhex(vector[f"{side}_static"]),
        ephemeral_private=bytes.fromhex(vector[f"{side}_ephemeral"]),
        prologue=bytes.fromhex(vector[f"{side}_prologue"]),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=[v["source"] for v in VECTORS])
def test_every_message_of_the_public_vectors(vector: dict[str, Any]) -> None:
    sides = (handshake(vector, "init"), handshake(vector, "resp"))
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for number, (payload, ciphertext) in enumerate(messages[:3]):
        assert sides[number % 2].write_message(payload) == ciphertext
        assert sides[1 - number % 2].read_message(ciphertext) == payload
    assert sides[0].finished
    assert sides[0].handshake_hash == sides[1].handshake_hash
    if "handshake_hash" in vector:
        assert sides[0].handshake_hash.hex() == vector["handshake_hash"]
    ciphers = (sides[0].split(), sides[1].split())
    for number, (payload, ciphertext) in enumerate(messages[3:], start=3):
        send, receive = ciphers[number % 2][0], ciphers[1 - number % 2][1]
        assert send.encrypt(b"", payload) == ciphertext
        assert receive.decrypt(b"", ciphertext) == payload


@given(data=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_arbitrary_first_messages_are_read_or_refused(data: bytes) -> None:
    """Message 1 is in the clear: any 32 bytes are a key, what follows a payload."""
    listener = handshake(VECTORS[0], "resp")
    if len(data) >= 32:
        assert listener.read_message(data) == data[32:]
        return
    with pytest.raises(RemoteProtocolError) as raised:
        listener.read_message(data)
    assert raised.value.cause is Cause.UNAUTHENTICATED


@given(data=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_arbitrary_second_messages_are_refused(data: bytes) -> None:
    dialer = handshake(VECTORS[0], "init")
    dialer.write_message(b"")
    with pytest.raises(RemoteProtocolError) as raised:
        dialer.read_message(data)
    assert raised.value.cause is Cause.UNAUTHENTICATED


def test_a_key_of_small_order_is_refused() -> None:
    dialer = handshake(VECTORS[0], "init")
    dialer.write_message(b"")
    with pytest.raises(RemoteProtocolError, match="small order"):
        dialer.read_message(bytes(32) + bytes(200))


def test_turns_are_kept() -> None:
    dialer, listener = handshake(VECTORS[0], "init"), handshake(VECTORS[0], "resp")
    with pytest.raises(LocalProtocolError):
        listener.write_message(b"")
    with pytest.raises(LocalProtocolError):
        dialer.read_message(b"")
    with pytest.raises(LocalProtocolError):
        dialer.split()
    with pytest.raises(LocalProtocolError):
        dialer.write_message(bytes(MAX_MESSAGE_BYTES))


def test_rekey_changes_the_key_and_keeps_the_counter() -> None:
    ours, theirs, stale = CipherState(bytes(32)), CipherState(bytes(32)), CipherState(bytes(32))
    for cipher in (ours, theirs):
        cipher.rekey()
        assert cipher.nonce == 0
    sealed = ours.encrypt(b"", b"after")
    assert theirs.decrypt(b"", sealed) == b"after"
    with pytest.raises(RemoteProtocolError):
        stale.decrypt(b"", sealed)
