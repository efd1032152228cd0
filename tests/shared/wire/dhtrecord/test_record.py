"""The sealed record: what its owner writes a member reads, and nobody else; libtorrent takes its key."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.dhtrecord.record import (
    CLOCK_SKEW_S,
    MAX_AGE_S,
    MAX_ENDPOINTS,
    MAX_VALUE_BYTES,
    DhtRecord,
    encode_body,
    open_record,
    record_keys,
    seal_record,
    signed_message,
)

SECRET = bytes(range(32))
SEED = b"\x0a" * 32
SIGNER = Ed25519PrivateKey.from_private_bytes(SEED)
IDENTITY = SIGNER.public_key().public_bytes_raw()
KEYS = record_keys(SECRET, IDENTITY)
NOW_S = 1_800_000_000
RECORD = DhtRecord(NOW_S, ("192.0.2.1:6881", "[2001:db8::1]:6881"))


def sealed(record: DhtRecord = RECORD, signer: Ed25519PrivateKey = SIGNER) -> bytes:
    body = encode_body(record)
    return seal_record(KEYS, body, signer.sign(signed_message(IDENTITY, body)), b"n" * 12)


def test_a_member_reads_what_the_owner_wrote() -> None:
    assert open_record(record_keys(SECRET, IDENTITY), sealed(), NOW_S + 60) == RECORD
    longest = DhtRecord(NOW_S, ("[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535",) * MAX_ENDPOINTS)
    assert len(sealed(longest)) <= MAX_VALUE_BYTES


@pytest.mark.parametrize("secret", [bytes(32), SECRET[::-1]])
def test_without_the_mesh_secret_it_is_noise_under_an_unrelated_key(secret: bytes) -> None:
    other = record_keys(secret, IDENTITY)
    assert other.public != KEYS.public
    with pytest.raises(RemoteProtocolError) as refusal:
        open_record(other, sealed(), NOW_S)
    assert refusal.value.cause is Cause.UNAUTHENTICATED
    assert b"192.0.2.1" not in sealed()


def test_a_member_that_is_not_the_owner_cannot_write_it() -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        open_record(KEYS, sealed(signer=Ed25519PrivateKey.from_private_bytes(b"\x0b" * 32)), NOW_S)
    assert refusal.value.cause is Cause.UNAUTHENTICATED


@pytest.mark.parametrize("age_s", [MAX_AGE_S + 1, -CLOCK_SKEW_S - 1])
def test_an_old_record_and_one_of_the_future_are_not_believed(age_s: int) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        open_record(KEYS, sealed(), NOW_S + age_s)
    assert refusal.value.cause is Cause.EXPIRED


@given(st.binary(max_size=1_000))
def test_arbitrary_values_raise_nothing_else(value: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        open_record(KEYS, value, NOW_S)


def test_the_items_key_is_ed25519_as_libtorrent_expands_it() -> None:
    assert len(KEYS.private) == 64
    assert KEYS.private[0] & 7 == 0
    assert KEYS.private[31] >> 6 == 1


def test_wrong_lengths_are_our_bug() -> None:
    with pytest.raises(LocalProtocolError):
        record_keys(b"short", IDENTITY)
    with pytest.raises(LocalProtocolError):
        encode_body(DhtRecord(NOW_S, ("x" * 200,) * MAX_ENDPOINTS))
