"""The seal: who gets through, and that nothing but an untouched sequence of records does."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared.wire.sealed.sealed_link as sealed_link_module
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.sealed.binding import link_prologue
from shared.wire.sealed.certificate import (
    CLOCK_SKEW_S,
    MAX_LIFETIME_S,
    decode_certificate,
    encode_certificate,
    sign_certificate,
    verify_dates,
    verify_signature,
)
from shared.wire.sealed.sealed_link import ALERT, MAX_FRAME_BYTES, MAX_RECORD_BYTES, FrameOpened, SealedLink
from tests.shared.wire.sealed.links import (
    NOW_S,
    certificate,
    end,
    identity,
    sealed_pair,
    secret,
    shake_hands,
    static_public,
)


def assert_closed_as_unauthenticated(link: SealedLink, record: bytes) -> None:
    for _ in range(2):  # and it stays closed
        with pytest.raises(RemoteProtocolError) as raised:
            link.receive_record(record, NOW_S)
        assert raised.value.cause is Cause.UNAUTHENTICATED
    assert not link.is_open
    assert link.data_to_send() == []
    with pytest.raises(LocalProtocolError):
        link.seal(b"frame")


@given(frames=st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=20))
@settings(max_examples=30, deadline=None)
def test_frames_arrive_as_they_were_sealed_both_ways(frames: list[tuple[bool, bytes]]) -> None:
    dialer, listener = sealed_pair()
    for from_dialer, frame in frames:
        sender, receiver = (dialer, listener) if from_dialer else (listener, dialer)
        record = sender.seal(frame)
        assert len(record) == len(frame) + 16
        assert receiver.receive_record(memoryview(record), NOW_S) == [FrameOpened(frame)]


def test_the_longest_frame_fits_and_one_byte_more_does_not() -> None:
    dialer, listener = sealed_pair()
    record = dialer.seal(memoryview(bytes(MAX_FRAME_BYTES)))
    assert len(record) == MAX_RECORD_BYTES
    assert listener.receive_record(record, NOW_S) == [FrameOpened(bytes(MAX_FRAME_BYTES))]
    with pytest.raises(LocalProtocolError):
        dialer.seal(bytes(MAX_FRAME_BYTES + 1))
    assert_closed_as_unauthenticated(listener, bytes(MAX_RECORD_BYTES + 1))


@given(count=st.integers(2, 6), data=st.data())
@settings(max_examples=60, deadline=None)
def test_replay_reorder_and_drop_close_the_link(count: int, data: st.DataObject) -> None:
    dialer, listener = sealed_pair()
    records = [dialer.seal(bytes([number])) for number in range(count)]
    order = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count + 2))
    for position, number in enumerate(order):
        if number == position:
            assert listener.receive_record(records[number], NOW_S) == [FrameOpened(bytes([number]))]
        else:
            assert_closed_as_unauthenticated(listener, records[number])
            return


@given(record=st.binary(max_size=300), stage=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_arbitrary_records_raise_nothing_but_remote_protocol_errors(record: bytes, stage: int) -> None:
    dialer, listener = end("alice", dialer=True), end("bob", dialer=False)
    hello = dialer.data_to_send()[0]
    target = dialer
    if stage in (1, 2):
        listener.receive_record(hello, NOW_S)
        target = listener
    if stage == 3:
        target, _ = sealed_pair()
    with pytest.raises(RemoteProtocolError) as raised:
        target.receive_record(record, NOW_S)
    assert raised.value.cause is Cause.UNAUTHENTICATED


@given(flip=st.integers(0, 10_000), message=st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_no_bit_of_the_handshake_can_be_changed(flip: int, message: int) -> None:
    dialer, listener = end("alice", dialer=True), end("bob", dialer=False)
    ends = (dialer, listener)
    opened = []
    with pytest.raises(RemoteProtocolError):
        for number in range(3):
            record = bytearray(ends[number % 2].data_to_send()[0])
            if number == message:
                bit = flip % (len(record) * 8)
                record[bit // 8] ^= 1 << bit % 8
            opened += ends[1 - number % 2].receive_record(bytes(record), NOW_S)
    assert not listener.is_open


def test_keys_change_after_the_agreed_number_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_link_module, "REKEY_EVERY", 4)
    dialer, listener = sealed_pair()
    for number in range(13):
        frame = bytes([number])
        assert listener.receive_record(dialer.seal(frame), NOW_S) == [FrameOpened(frame)]
    monkeypatch.setattr(sealed_link_module, "REKEY_EVERY", 1 << 30)
    for number in range(13, 16):
        assert listener.receive_record(dialer.seal(b"x"), NOW_S) == [FrameOpened(b"x")], number
    record = dialer.seal(b"sixteen")
    monkeypatch.setattr(sealed_link_module, "REKEY_EVERY", 17)
    assert listener.receive_record(record, NOW_S) == [FrameOpened(b"sixteen")]
    # Only one end has changed its key now.
    monkeypatch.setattr(sealed_link_module, "REKEY_EVERY", 1 << 30)
    assert_closed_as_unauthenticated(listener, dialer.seal(b"stale"))


def test_the_dialer_says_nothing_to_another_identity_than_the_expected_one() -> None:
    dialer, listener = end("alice", dialer=True, expected_key=identity("bob")), end("mallory", dialer=False)
    listener.receive_record(dialer.data_to_send()[0], NOW_S)
    assert_closed_as_unauthenticated(dialer, listener.data_to_send()[0])


def test_a_listener_that_expects_one_peer_refuses_another() -> None:
    dialer, listener = end("mallory", dialer=True), end("bob", dialer=False, expected_key=identity("alice"))
    with pytest.raises(RemoteProtocolError) as raised:
        shake_hands(dialer, listener)
    assert raised.value.cause is Cause.UNAUTHENTICATED


def test_another_binding_never_ends_the_handshake() -> None:
    dialer = end("alice", dialer=True)
    listener = end("bob", dialer=False, prologue=link_prologue("webrtc", b"another"))
    listener.receive_record(dialer.data_to_send()[0], NOW_S)
    assert_closed_as_unauthenticated(dialer, listener.data_to_send()[0])


def test_message_one_may_not_carry_anything() -> None:
    dialer, listener = end("alice", dialer=True), end("bob", dialer=False)
    assert_closed_as_unauthenticated(listener, dialer.data_to_send()[0] + b"x")


@pytest.mark.parametrize(
    "bad",
    [
        sign_certificate(secret("identity bob"), static_public("mallory"), NOW_S + 60),
        dataclasses.replace(certificate("bob"), identity_key=identity("mallory")),
        dataclasses.replace(certificate("bob"), identity_key=b"\xff" * 32),
        dataclasses.replace(certificate("bob"), not_after_s=NOW_S + 7200),
    ],
    ids=["other-link-key", "other-identity", "no-point", "changed-time"],
)
def test_a_bad_certificate_closes_the_link_on_either_side(bad: object) -> None:
    dialer, listener = end("alice", dialer=True), end("bob", dialer=False, cert=bad)  # type: ignore[arg-type]
    listener.receive_record(dialer.data_to_send()[0], NOW_S)
    assert_closed_as_unauthenticated(dialer, listener.data_to_send()[0])
    dialer, listener = end("bob", dialer=True, cert=bad), end("alice", dialer=False)  # type: ignore[arg-type]
    listener.receive_record(dialer.data_to_send()[0], NOW_S)
    dialer.receive_record(listener.data_to_send()[0], NOW_S)
    assert_closed_as_unauthenticated(listener, dialer.data_to_send()[0])


SKEWED = [-CLOCK_SKEW_S - 1, MAX_LIFETIME_S + CLOCK_SKEW_S + 1]


@pytest.mark.parametrize("offset_s", SKEWED, ids=["expired", "too-long"])
@pytest.mark.parametrize("dials", ["who-is-off", "who-is-right"])
def test_both_ends_learn_that_a_clock_is_wrong(offset_s: int, dials: str) -> None:
    off = end("bob", dialer=dials == "who-is-off", cert=certificate("bob", NOW_S + offset_s))
    right = end("alice", dialer=dials == "who-is-right")
    dialer, listener = (off, right) if dials == "who-is-off" else (right, off)
    listener.receive_record(dialer.data_to_send()[0], NOW_S)
    if dials == "who-is-off":
        dialer.receive_record(listener.data_to_send()[0], NOW_S)
    with pytest.raises(RemoteProtocolError) as refusal:
        right.receive_record(off.data_to_send()[0], NOW_S)
    assert refusal.value.cause is Cause.CLOCK_SKEW
    assert right.peer_key == identity("bob"), "who it was is proved"
    assert not right.is_open
    [alert] = right.data_to_send()
    with pytest.raises(RemoteProtocolError) as refused:
        off.receive_record(alert, NOW_S)
    assert refused.value.cause is Cause.CLOCK_SKEW
    assert off.data_to_send() == []


def test_an_alert_is_believed_where_it_can_come_and_nowhere_else() -> None:
    assert_closed_as_unauthenticated(end("bob", dialer=False), ALERT)
    assert_closed_as_unauthenticated(end("alice", dialer=True), ALERT)
    dialer, listener = sealed_pair()
    dialer.receive_record(listener.seal(b"a frame"), NOW_S)
    assert_closed_as_unauthenticated(listener, ALERT)
    assert_closed_as_unauthenticated(dialer, ALERT)


@pytest.mark.parametrize("offset_s", [-CLOCK_SKEW_S, 0, MAX_LIFETIME_S, MAX_LIFETIME_S + CLOCK_SKEW_S])
def test_clocks_may_differ_by_the_skew(offset_s: int) -> None:
    verify_signature(certificate("bob", NOW_S + offset_s), static_public("bob"))
    verify_dates(certificate("bob", NOW_S + offset_s), NOW_S)


def test_a_certificate_survives_its_wire_form() -> None:
    assert decode_certificate(encode_certificate(certificate("bob"))) == certificate("bob")
    with pytest.raises(LocalProtocolError):
        sign_certificate(secret("identity bob"), b"short", NOW_S)
    with pytest.raises(LocalProtocolError):
        encode_certificate(dataclasses.replace(certificate("bob"), signature=b""))
