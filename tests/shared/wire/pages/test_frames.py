"""Frames between a page's script and a worker: identity, bounds, hostile bytes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Cause, RemoteProtocolError
from shared.wire.pages.frames import (
    JOIN,
    MAX_CHANNEL_CHARS,
    MAX_JOINS,
    MAX_NUMBER,
    VERSION,
    FromPage,
    FromWorker,
    Hello,
    Join,
    Joined,
    Leave,
    Message,
    PagePing,
    PagePong,
    PagePost,
    PageSlowed,
    PostRefused,
    PostTaken,
    Present,
    Welcome,
    decode_from_page,
    encode_frame,
    page_id,
)

ID = bytes(range(16))


@pytest.mark.parametrize(
    "frame",
    [
        Hello(VERSION, ID, ID, [Join("a", 10)]),
        Join("a"),
        Leave("a"),
        PagePost("a", 1, b"\xc0"),
        PagePing(),
    ],
)
def test_a_pages_frames_cross(frame: FromPage) -> None:
    assert decode_from_page(encode_frame(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Welcome(VERSION, ID),
        Joined("a"),
        Present("a", 2),
        PostTaken("a", 1, 0),
        PostRefused("a", JOIN, Cause.FORBIDDEN),
        Message("a", ID, 1, b"\xc0"),
        PagePong(),
        PageSlowed(),
    ],
)
def test_a_workers_frames_cross(frame: FromWorker) -> None:
    assert msgspec.msgpack.decode(encode_frame(frame), type=FromWorker) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Hello(VERSION, ID[:15], ID, []),
        Hello(VERSION, ID, ID + b"x", []),
        Hello(VERSION, ID, ID, [Join("a")] * (MAX_JOINS + 1)),
        Hello(VERSION, ID, ID, [Join("")]),
        Join("x" * (MAX_CHANNEL_CHARS + 1)),
        Join("a", -1),
        PagePost("a", 0, b""),
        PagePost("a", MAX_NUMBER + 1, b""),
    ],
)
def test_a_frame_out_of_its_bounds_is_refused(frame: FromPage) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_from_page(encode_frame(frame))


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    try:
        decode_from_page(data)
    except RemoteProtocolError:
        pass


def test_a_page_is_not_known_by_its_secret() -> None:
    assert page_id(ID) != ID
    assert len(page_id(ID)) == 16
