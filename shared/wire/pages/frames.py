"""What a page's script and a broadcast worker say to each other: MessagePack arrays, a word first, one a message.

    the script says                                    the worker says
    hello  version, secret16, browser16, joins         welcome  version, page16
    join   [channel, since_ms]                         joined   channel
    leave  channel                                     present  channel, pages
    post   channel, number, value                      taken    channel, number, listeners
                                                       refused  channel, number, cause
                                                       message  channel, sender16, number, value
    ping                                               pong, slowed

A page is known to others by a digest of its secret (`page_id`), so that nobody can go on in its name after a
reconnect. `browser` is what tabs that see each other natively share; nobody else is given it.

Values are bytes here (`values`): a worker carries them and does not look inside.
Source: ours; docs/broadcast.md.
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec

from shared.errors import Cause, RemoteProtocolError
from shared.undecodable import UNDECODABLE

VERSION = 1
ID_BYTES = 16
MAX_CHANNEL_CHARS = 128
"""Ours: of a channel's name; longer ones are nobody's."""
MAX_JOINS = 16
"""Ours: channels that a page is on."""
MAX_NUMBER = 2**53 - 1
"""The largest whole number that a page counts exactly."""
MAX_SINCE_MS = 3_600_000
T = TypeVar("T")
JOIN = -1
"""As a refusal's number: not a post was refused but the channel itself."""


class Join(msgspec.Struct, array_like=True, frozen=True, tag="join"):
    """since_ms: send again what was posted no longer ago; 0 = nothing, the page has just opened the channel."""

    channel: str
    since_ms: int = 0


class Hello(msgspec.Struct, array_like=True, frozen=True, tag="hello"):
    """Comes first, once."""

    version: int
    secret: bytes
    browser: bytes
    joins: list[Join]


class Leave(msgspec.Struct, array_like=True, frozen=True, tag="leave"):
    channel: str


class PagePost(msgspec.Struct, array_like=True, frozen=True, tag="post"):
    """number: counts up by one with every post of this page on this channel, from 1. Said again until `taken`."""

    channel: str
    number: int
    value: bytes


class PagePing(msgspec.Struct, array_like=True, frozen=True, tag="ping"):
    """A script cannot see WebSocket pings, so it has its own."""


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag="welcome"):
    """page: as others know it."""

    version: int
    page: bytes


class Joined(msgspec.Struct, array_like=True, frozen=True, tag="joined"):
    channel: str


class Present(msgspec.Struct, array_like=True, frozen=True, tag="present"):
    """pages: on this channel now, the page itself included."""

    channel: str
    pages: int


class PostTaken(msgspec.Struct, array_like=True, frozen=True, tag="taken"):
    """Every worker of the channel has the post. listeners: pages and nodes that were there to hear it; 0 = nobody."""

    channel: str
    number: int
    listeners: int


class PostRefused(msgspec.Struct, array_like=True, frozen=True, tag="refused"):
    """number: of the post, or JOIN."""

    channel: str
    number: int
    cause: Cause


class Message(msgspec.Struct, array_like=True, frozen=True, tag="message"):
    """sender, number: what the receiver tells doubles by."""

    channel: str
    sender: bytes
    number: int
    value: bytes


class PagePong(msgspec.Struct, array_like=True, frozen=True, tag="pong"):
    """Answers PagePing."""


class PageSlowed(msgspec.Struct, array_like=True, frozen=True, tag="slowed"):
    """The page posts faster than it may: it is read more slowly, and nothing is lost."""


FromPage = Hello | Join | Leave | PagePost | PagePing
FromWorker = Welcome | Joined | Present | PostTaken | PostRefused | Message | PagePong | PageSlowed

_from_page: msgspec.msgpack.Decoder[FromPage] = msgspec.msgpack.Decoder(FromPage)
_encoder = msgspec.msgpack.Encoder()


def decode_from_page(data: bytes) -> FromPage:
    """One frame of a script. Raises: RemoteProtocolError(INVALID): no frame of ours, or out of its bounds."""
    frame = _decoded(_from_page, data)
    if isinstance(frame, Hello):
        _check(len(frame.secret) == ID_BYTES and len(frame.browser) == ID_BYTES and len(frame.joins) <= MAX_JOINS)
        for join in frame.joins:
            _check_join(join)
    elif isinstance(frame, Join):
        _check_join(frame)
    elif isinstance(frame, PagePost):
        # A page counts from 1, and exactly only as far as a double does.
        _check(0 < frame.number <= MAX_NUMBER)
    return frame


def encode_frame(frame: FromPage | FromWorker) -> bytes:
    return _encoder.encode(frame)


def page_id(secret: bytes) -> bytes:
    """Under which id others know the page with this secret."""
    return hashlib.sha256(b"swarmbridge-page-v1\0" + secret).digest()[:ID_BYTES]


def _decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except UNDECODABLE:
        raise RemoteProtocolError("no frame of a page") from None


def _check_join(join: Join) -> None:
    _check(0 < len(join.channel) <= MAX_CHANNEL_CHARS and 0 <= join.since_ms <= MAX_SINCE_MS)


def _check(good: bool) -> None:
    if not good:
        raise RemoteProtocolError("a frame out of its bounds")
