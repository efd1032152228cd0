"""Splitting and joining packed values, with a hostile sender."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.binarypack.codec import decode_value, encode_value
from shared.wire.peerjs.chunking import (
    MAX_FRAME_BYTES,
    MAX_JOIN_AGE_S,
    MAX_JOINS,
    MAX_MESSAGE_BYTES,
    MAX_SLICES,
    SLICE_BYTES,
    CloseReceived,
    Joiner,
    ValueReceived,
    encode_close,
    split_value,
)


def slice_of(message_id: Any = 1, n: Any = 0, data: Any = b"x", total: Any = 2) -> bytes:
    return encode_value({"__peerData": message_id, "n": n, "data": data, "total": total})


def test_a_short_value_is_one_message_as_it_is() -> None:
    value = b"x" * (SLICE_BYTES - 3)
    assert split_value(value, 1) == [encode_value(value)]
    assert len(split_value(value + b"x", 1)) == 2


def test_slices_are_what_a_browser_sends() -> None:
    frames = [decode_value(frame) for frame in split_value("a" * 40_000, 7)]
    assert [(frame["__peerData"], frame["n"], frame["total"], len(frame["data"])) for frame in frames] == [
        (7, 0, 3, 16_300),
        (7, 1, 3, 16_300),
        (7, 2, 3, 40_003 - 2 * 16_300),
    ]


def test_close_message() -> None:
    assert encode_close().hex() == "81ba5f5f706565724461746181b474797065b5636c6f7365"  # pragma: allowlist secret
    assert Joiner().receive_frame(encode_close(), 0.0) == CloseReceived()


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=60_000), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_any_order_of_slices_gives_the_same_values(values: list[bytes], random: Any) -> None:
    frames = [frame for number, value in enumerate(values) for frame in split_value(value, number)]
    random.shuffle(frames)
    joiner = Joiner()
    events = [joiner.receive_frame(frame, 0.0) for frame in frames]
    received = [event.value for event in events if isinstance(event, ValueReceived)]
    assert sorted(received) == sorted(values)
    assert (joiner.joining_bytes, joiner.next_deadline()) == (0, None)


@settings(max_examples=100)
@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        Joiner().receive_frame(data, 0.0)
    except RemoteProtocolError:
        return


@pytest.mark.parametrize(
    "frame",
    [
        slice_of(message_id="1"),
        slice_of(message_id=None),
        slice_of(message_id=True),
        slice_of(message_id={"type": "open"}),
        slice_of(message_id=-1),
        slice_of(n=2),
        slice_of(n=-1),
        slice_of(n=0.5),
        slice_of(total=0),
        slice_of(total=MAX_SLICES + 1),
        slice_of(data="text"),
        slice_of(total=1, data=b"\xc4"),
        encode_value({"__peerData": 1}),
    ],
)
def test_broken_slices_are_refused(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Joiner().receive_frame(frame, 0.0)
    assert caught.value.cause is Cause.INVALID


def test_slices_must_agree() -> None:
    for second in (slice_of(n=0), slice_of(n=1, total=3)):
        joiner = Joiner()
        joiner.receive_frame(slice_of(), 0.0)
        with pytest.raises(RemoteProtocolError):
            joiner.receive_frame(second, 0.0)


def test_a_message_may_not_grow_past_its_limit() -> None:
    joiner = Joiner()
    part = bytes(250_000)
    with pytest.raises(RemoteProtocolError) as caught:
        for n in range(MAX_MESSAGE_BYTES // len(part) + 1):
            joiner.receive_frame(slice_of(n=n, data=part, total=MAX_SLICES), 0.0)
    assert caught.value.cause is Cause.TOO_LARGE
    with pytest.raises(RemoteProtocolError):
        joiner.receive_frame(bytes(MAX_FRAME_BYTES + 1), 0.0)
    with pytest.raises(LocalProtocolError):
        split_value(bytes(MAX_MESSAGE_BYTES), 1)


def test_unfinished_messages_are_bounded_and_aged() -> None:
    joiner = Joiner()
    assert joiner.next_deadline() is None
    for message_id in range(MAX_JOINS):
        joiner.receive_frame(slice_of(message_id), float(message_id))
    with pytest.raises(RemoteProtocolError) as caught:
        joiner.receive_frame(slice_of(99), 10.0)
    assert caught.value.cause is Cause.TOO_LARGE
    assert joiner.next_deadline() == MAX_JOIN_AGE_S
    assert joiner.receive_frame(slice_of(99), MAX_JOIN_AGE_S + 0.5) is None
    assert joiner.next_deadline() == 1.0 + MAX_JOIN_AGE_S, "the oldest has made room"
    joiner.handle_timer(1e9)
    assert (joiner.joining_bytes, joiner.next_deadline()) == (0, None)
