from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.content.messages import MAX_BODY_BYTES, ChunkData, ManifestData, NotFound, RequestChunk, RequestManifest
from shared.errors import Cause, RemoteProtocolError
from shared.wire.native import frames
from shared.wire.native.frames import (
    MAX_FRAME_BYTES,
    AckFrame,
    AnswerFrame,
    BodyFrame,
    CancelFrame,
    FailedFrame,
    GoodbyeFrame,
    PingFrame,
    PongFrame,
    RequestFrame,
    decode_frame,
    encode_frame,
)

ids = st.binary(min_size=16, max_size=16)
words = st.text(max_size=80)
requests = st.builds(RequestChunk, ref=words) | st.builds(RequestManifest, id=words)
answers = (
    st.builds(
        ChunkData,
        ref=words,
        seq=st.integers(0, 2**32),
        total=st.integers(0, 2**32),
        size=st.integers(0, 2**32),
        iv=st.binary(max_size=12),
        mime=words,
        original_name=words,
    )
    | st.builds(ManifestData, id=words)
    | st.builds(NotFound, id=words)
)
any_frame = (
    st.builds(
        RequestFrame,
        request_id=ids,
        request=requests,
        remaining_ms=st.integers(0, 2**31),
        traceparent=st.text(max_size=55),
    )
    | st.builds(AnswerFrame, request_id=ids, answer=answers, body_bytes=st.integers(0, MAX_BODY_BYTES))
    | st.builds(FailedFrame, request_id=ids, cause=st.sampled_from(Cause), retry_after_ms=st.integers(0, 10**6))
    | st.builds(AckFrame, request_id=ids)
    | st.builds(CancelFrame, request_id=ids)
    | st.builds(PingFrame, token=st.integers(0, 2**64 - 1))
    | st.builds(PongFrame, token=st.integers(0, 2**64 - 1))
    | st.builds(GoodbyeFrame, st.none() | st.sampled_from(Cause))
    | st.builds(
        BodyFrame,
        request_id=ids,
        offset=st.integers(0, 2**32 - 1),
        data=st.binary(min_size=1, max_size=300).map(memoryview),
    )
)


@given(any_frame)
def test_encode_then_decode_is_the_identity(frame: frames.Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_remote_protocol_errors(data: bytes) -> None:
    try:
        decode_frame(data)
    except RemoteProtocolError:
        pass


@given(st.binary(max_size=200), st.integers(1, 9))
def test_arbitrary_bytes_behind_a_known_kind(data: bytes, kind: int) -> None:
    try:
        decode_frame(bytes((kind,)) + data)
    except RemoteProtocolError:
        pass


@given(st.binary(min_size=1, max_size=200_000), st.integers(0, 2**20))
def test_a_body_in_slices_is_the_body(data: bytes, offset: int) -> None:
    view, size = memoryview(data), frames.MAX_BODY_SLICE_BYTES
    slices = [BodyFrame(b"i" * 16, offset + at, view[at : at + size]) for at in range(0, len(data), size)]
    encoded = [encode_frame(frame) for frame in slices]
    assert all(len(frame) <= MAX_FRAME_BYTES for frame in encoded)
    decoded = [frame for frame in map(decode_frame, encoded) if isinstance(frame, BodyFrame)]
    assert [frame.offset for frame in decoded] == [frame.offset for frame in slices]
    assert b"".join(frame.data for frame in decoded) == data


def test_an_unknown_kind_is_skipped() -> None:
    assert decode_frame(b"\xfe whatever a later version means by it") is None


def test_a_cause_of_a_later_version_is_other() -> None:
    data = encode_frame(FailedFrame(b"i" * 16, Cause.BUSY))
    assert decode_frame(data.replace(b"busy", b"mood")) == FailedFrame(b"i" * 16, Cause.OTHER)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(MAX_FRAME_BYTES + 1),
        b"\x02short",
        b"\x04" + bytes(20),
        encode_frame(RequestFrame(b"not 16", RequestChunk("x"), 1)),
        encode_frame(AnswerFrame(b"i" * 16, NotFound("x"), MAX_BODY_BYTES + 1)),
        encode_frame(AnswerFrame(b"i" * 16, NotFound("x"), -1)),
        encode_frame(RequestFrame(b"i" * 16, RequestChunk("x"), 1, "t" * 56)),
    ],
)
def test_bad_frames_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_frame(data)
