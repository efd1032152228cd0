"""Envelopes: round trips, growth by appended fields, unknown causes, and nonsense."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.bus.messages import envelopes
from shared.bus.messages.codec import decode_envelope, decode_reply, encode_done, encode_envelope, encode_refusal
from shared.bus.messages.envelopes import BodyCall, Done, Envelope, LinkProgress, ManagerMessage, Ping, PullRange, Range
from shared.errors import Cause, RemoteFailure, SwarmbridgeError

ALL_STRUCTS = [
    struct
    for struct in vars(envelopes).values()
    if isinstance(struct, type)
    and issubclass(struct, msgspec.Struct)
    and struct.__module__ == envelopes.__name__
    and struct not in (envelopes.Envelope, envelopes.Reply)
]


@pytest.mark.parametrize("struct", ALL_STRUCTS, ids=lambda struct: struct.__name__)
def test_every_struct_has_a_decoder(struct: type[msgspec.Struct]) -> None:
    """A field called like a type it uses (`bytes`) breaks a struct only when its decoder is made."""
    with pytest.raises(SwarmbridgeError):
        decode_envelope(b"\x00", struct)


@settings(max_examples=50)
@given(st.binary(max_size=32), st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 2**53))
def test_round_trip(token: bytes, offset: int, length: int, deadline_ms: int) -> None:
    body = PullRange(token, offset, length)
    envelope: Envelope[PullRange] = decode_envelope(encode_envelope(body, deadline_ms, "tp"), BodyCall)
    assert (envelope.body, envelope.deadline_ms, envelope.traceparent) == (body, deadline_ms, "tp")


@settings(max_examples=100)
@given(st.binary(max_size=64))
@example(msgspec.msgpack.encode([1, 0, "~"]).replace(b"~", b"\xff"))
@example(b"\x91" * 5_000)
def test_nonsense_is_only_ever_invalid(data: bytes) -> None:
    with pytest.raises(SwarmbridgeError) as error:
        decode_envelope(data, ManagerMessage)
    assert error.value.cause is Cause.INVALID
    with pytest.raises(RemoteFailure):
        decode_reply(data, Range)


def test_a_field_appended_by_a_newer_version_is_ignored() -> None:
    data = msgspec.msgpack.encode([1, 0, "", ["progress", b"i", 2, 3, "new"], "newer"])
    assert decode_envelope(data, ManagerMessage).body == LinkProgress(b"i", 2, 3)


def test_another_version_is_refused() -> None:
    with pytest.raises(SwarmbridgeError):
        decode_envelope(msgspec.msgpack.encode([2, 0, "", ["ping", []]]), Ping)
    with pytest.raises(RemoteFailure):
        decode_reply(msgspec.msgpack.encode([2, None, 0, []]), Done)


def test_replies_carry_causes_even_unknown_ones() -> None:
    assert decode_reply(encode_done(None), Done) == Done()
    with pytest.raises(RemoteFailure) as failure:
        decode_reply(encode_refusal(Cause.BUSY, 0.25), Done)
    assert (failure.value.cause, failure.value.retry_after_s) == (Cause.BUSY, 0.25)
    with pytest.raises(RemoteFailure) as failure:
        decode_reply(msgspec.msgpack.encode([1, "of_tomorrow", 0, None]), Done)
    assert failure.value.cause is Cause.OTHER


def test_bytes_are_not_copied() -> None:
    reply = encode_done(Range(memoryview(bytes(1000))))
    assert decode_reply(reply, Range).data.obj is reply
