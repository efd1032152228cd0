"""Envelopes and replies to and from bytes: msgspec's msgpack, one cached decoder a type.

`memoryview` fields point into the received bytes (no copy). Causes that this version does not know decode as
OTHER; fields appended by a newer version are ignored.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from types import UnionType
from typing import Any, TypeVar, cast

import msgspec

from shared.bus.messages.envelopes import ENVELOPE_VERSION, Done, Envelope, Reply
from shared.errors import Cause, RemoteFailure, SwarmbridgeError
from shared.undecodable import UNDECODABLE

T = TypeVar("T")
R = TypeVar("R")

_ENCODER = msgspec.msgpack.Encoder()
DONE = Done()


def encode_envelope(body: msgspec.Struct, deadline_ms: int, traceparent: str) -> bytes:
    """deadline_ms: wall clock, 0 = none. traceparent: W3C, or ""."""
    return _ENCODER.encode(Envelope(ENVELOPE_VERSION, deadline_ms, traceparent, body))


def decode_envelope(data: bytes, body_type: type[T] | UnionType) -> Envelope[T]:
    """Raises: SwarmbridgeError(INVALID) where it is no envelope of this version around a `body_type`."""
    try:
        envelope = _envelope_decoder(cast(Hashable, body_type)).decode(data)
    except UNDECODABLE:
        raise SwarmbridgeError(Cause.INVALID, "not an envelope of the expected body") from None
    if envelope.version != ENVELOPE_VERSION:
        raise SwarmbridgeError(Cause.INVALID, "an envelope of another version")
    return envelope


def encode_done(body: msgspec.Struct | None) -> bytes:
    """The reply to a request that was served; None says only that it was."""
    return _ENCODER.encode(Reply(ENVELOPE_VERSION, None, 0, DONE if body is None else body))


def encode_refusal(cause: Cause, retry_after_s: float = 0.0) -> bytes:
    """The reply to a request that was not."""
    return _ENCODER.encode(Reply(ENVELOPE_VERSION, cause, round(retry_after_s * 1000), None))


def decode_reply(data: bytes, reply_type: type[R] | UnionType) -> R:
    """The served request's answer.

    Raises: RemoteFailure with the server's cause; RemoteFailure(INVALID) where it is no such reply.
    """
    try:
        reply = _reply_decoder(cast(Hashable, reply_type)).decode(data)
    except UNDECODABLE:
        raise RemoteFailure(Cause.INVALID) from None
    if reply.cause is not None:
        raise RemoteFailure(reply.cause, reply.retry_after_ms / 1000)
    if reply.version != ENVELOPE_VERSION or reply.body is None:
        raise RemoteFailure(Cause.INVALID)
    return cast(R, reply.body)


@cache
def _envelope_decoder(body_type: Hashable) -> msgspec.msgpack.Decoder[Envelope[Any]]:
    return msgspec.msgpack.Decoder(cast(Any, Envelope)[body_type])


@cache
def _reply_decoder(reply_type: Hashable) -> msgspec.msgpack.Decoder[Reply[Any]]:
    return msgspec.msgpack.Decoder(cast(Any, Reply)[reply_type])
