"""The native frame codec.

Layout:   kind:u8 | rest

    1 REQUEST   msgpack [request_id, request, remaining_ms, traceparent]
    2 ACK       request_id:16                  the request is being worked on
    3 ANSWER    msgpack [request_id, answer, body_bytes]
    4 BODY      request_id:16 | offset:u32 | data     in order, until body_bytes have come
    5 FAILED    msgpack [request_id, cause, retry_after_ms]
    6 CANCEL    request_id:16                  the caller wants no (more of an) answer
    7 PING      token:u64      8 PONG  token:u64
    9 GOODBYE   (empty)                        draining: open another link
                the cause's word, ASCII        close this link: there is to be none, for this cause
   10 ANNOUNCE  msgpack [[manifest id, …]]     which manifests the sender holds

An unknown kind is skipped, so that later versions may add some. Integers are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, assert_never

import msgspec

from shared.content.messages import MAX_ANNOUNCED, MAX_BODY_BYTES, MAX_MANIFEST_ID_CHARS, PeerAnswer, PeerRequest
from shared.errors import Cause, RemoteProtocolError
from shared.ids import REQUEST_ID_BYTES
from shared.undecodable import UNDECODABLE

MAX_FRAME_BYTES = 65_519
"""Plaintext of one Noise message (65,535) without its tag."""

BODY_HEADER = struct.Struct(">B16sI")
MAX_BODY_SLICE_BYTES = MAX_FRAME_BYTES - BODY_HEADER.size

MAX_TRACEPARENT_CHARS = 55
MAX_CAUSE_BYTES = 32
"""Longer than every word of ours; a newer version's is read as OTHER."""

ManifestId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MANIFEST_ID_CHARS)]

_PING = struct.Struct(">BQ")
_KIND_REQUEST, _KIND_ACK, _KIND_ANSWER, _KIND_BODY, _KIND_FAILED = 1, 2, 3, 4, 5
_KIND_CANCEL, _KIND_PING, _KIND_PONG, _KIND_GOODBYE, _KIND_ANNOUNCE = 6, 7, 8, 9, 10


class RequestFrame(msgspec.Struct, array_like=True, frozen=True):
    """remaining_ms: time the caller still gives it, relative: peers' clocks are not ours."""

    request_id: bytes
    request: PeerRequest
    remaining_ms: int
    traceparent: str = ""


class AnswerFrame(msgspec.Struct, array_like=True, frozen=True):
    request_id: bytes
    answer: PeerAnswer
    body_bytes: int


class FailedFrame(msgspec.Struct, array_like=True, frozen=True):
    request_id: bytes
    cause: Cause
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class AckFrame:
    request_id: bytes


@dataclass(frozen=True, slots=True)
class BodyFrame:
    """data is a view into the received frame: copy it before the frame is released."""

    request_id: bytes
    offset: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class CancelFrame:
    request_id: bytes


@dataclass(frozen=True, slots=True)
class PingFrame:
    token: int


@dataclass(frozen=True, slots=True)
class PongFrame:
    token: int


@dataclass(frozen=True, slots=True)
class GoodbyeFrame:
    """cause: why the link must end, which its receiver does at once; None = we drain, what is in flight goes on."""

    cause: Cause | None = None


class AnnounceFrame(msgspec.Struct, array_like=True, frozen=True):
    manifests: Annotated[tuple[ManifestId, ...], msgspec.Meta(max_length=MAX_ANNOUNCED)]


Frame = (
    RequestFrame
    | AckFrame
    | AnswerFrame
    | BodyFrame
    | FailedFrame
    | CancelFrame
    | PingFrame
    | PongFrame
    | GoodbyeFrame
    | AnnounceFrame
)

_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(RequestFrame)
_answer_decoder = msgspec.msgpack.Decoder(AnswerFrame)
_failed_decoder = msgspec.msgpack.Decoder(FailedFrame)
_announce_decoder = msgspec.msgpack.Decoder(AnnounceFrame)


def encode_frame(frame: Frame) -> bytes:
    """One frame as bytes; the caller keeps it within MAX_FRAME_BYTES (only BODY comes near)."""
    match frame:
        case RequestFrame():
            return bytes((_KIND_REQUEST,)) + _encoder.encode(frame)
        case AnswerFrame():
            return bytes((_KIND_ANSWER,)) + _encoder.encode(frame)
        case FailedFrame():
            return bytes((_KIND_FAILED,)) + _encoder.encode(frame)
        case AnnounceFrame():
            return bytes((_KIND_ANNOUNCE,)) + _encoder.encode(frame)
        case AckFrame():
            return bytes((_KIND_ACK,)) + frame.request_id
        case CancelFrame():
            return bytes((_KIND_CANCEL,)) + frame.request_id
        case BodyFrame():
            # Joined once: a body's bytes are copied here and nowhere else on their way to the seal.
            return b"".join((BODY_HEADER.pack(_KIND_BODY, frame.request_id, frame.offset), frame.data))
        case PingFrame():
            return _PING.pack(_KIND_PING, frame.token)
        case PongFrame():
            return _PING.pack(_KIND_PONG, frame.token)
        case GoodbyeFrame():
            return bytes((_KIND_GOODBYE,)) + (frame.cause.value.encode() if frame.cause is not None else b"")
        case _:
            assert_never(frame)


def decode_frame(data: bytes) -> Frame | None:
    """Decode one opened frame.

    Args:     data: kind and rest, 1..MAX_FRAME_BYTES bytes.
    Returns:  the frame, or None for a kind this version does not know.
    Raises:   RemoteProtocolError: empty, too short or long, or not the fields of its kind; close the link.
    """
    if not data or len(data) > MAX_FRAME_BYTES:
        raise RemoteProtocolError("frame is empty or too long", Cause.TOO_LARGE if data else Cause.INVALID)
    kind = data[0]
    # Nearly all frames are bodies: asked for first.
    if kind == _KIND_BODY:
        return _decode_body(data)
    if kind in (_KIND_ACK, _KIND_CANCEL):
        request_id = _exact(data, 1 + REQUEST_ID_BYTES)[1:]
        return AckFrame(request_id) if kind == _KIND_ACK else CancelFrame(request_id)
    if kind in (_KIND_PING, _KIND_PONG):
        (_, token) = _PING.unpack(_exact(data, _PING.size))
        return PingFrame(token) if kind == _KIND_PING else PongFrame(token)
    if kind == _KIND_GOODBYE:
        return _decode_goodbye(data[1:])
    if kind == _KIND_ANNOUNCE:
        return _decode_announce(data)
    if kind in (_KIND_REQUEST, _KIND_ANSWER, _KIND_FAILED):
        return _decode_packed(kind, data)
    return None


def _decode_body(data: bytes) -> BodyFrame:
    if len(data) <= BODY_HEADER.size:
        raise RemoteProtocolError("body frame without data")
    _, request_id, offset = BODY_HEADER.unpack_from(data)
    return BodyFrame(request_id, offset, memoryview(data)[BODY_HEADER.size :])


def _decode_packed(kind: int, data: bytes) -> Frame:
    # A view: the decoder copies what it keeps.
    view = memoryview(data)[1:]
    frame: RequestFrame | AnswerFrame | FailedFrame
    try:
        if kind == _KIND_REQUEST:
            frame = _request_decoder.decode(view)
        elif kind == _KIND_ANSWER:
            frame = _answer_decoder.decode(view)
        else:
            frame = _failed_decoder.decode(view)
    except UNDECODABLE:
        raise RemoteProtocolError("frame does not decode") from None
    # msgspec has checked types, and not lengths.
    if len(frame.request_id) != REQUEST_ID_BYTES:
        raise RemoteProtocolError("a request id is 16 bytes")
    if isinstance(frame, AnswerFrame) and not 0 <= frame.body_bytes <= MAX_BODY_BYTES:
        raise RemoteProtocolError("body too large", Cause.TOO_LARGE)
    if isinstance(frame, RequestFrame) and len(frame.traceparent) > MAX_TRACEPARENT_CHARS:
        raise RemoteProtocolError("traceparent too long", Cause.TOO_LARGE)
    return frame


def _decode_announce(data: bytes) -> AnnounceFrame:
    try:
        return _announce_decoder.decode(memoryview(data)[1:])
    except UNDECODABLE:
        raise RemoteProtocolError("an announcement that does not decode, or is too long") from None


def _decode_goodbye(word: bytes) -> GoodbyeFrame:
    if not word:
        return GoodbyeFrame()
    if len(word) > MAX_CAUSE_BYTES or not word.isascii():
        raise RemoteProtocolError("a cause is one short word")
    # A later version's word is OTHER (Cause._missing_): the link ends for it all the same.
    return GoodbyeFrame(Cause(word.decode("ascii")))


def _exact(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise RemoteProtocolError("frame has the wrong length")
    return data
