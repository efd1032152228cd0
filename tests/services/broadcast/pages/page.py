"""A page's script as `broadcast.js` is meant to be, without a socket: the model that the worker is tested with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import assert_never

import msgspec

from shared.wire.pages.frames import (
    VERSION,
    FromPage,
    FromWorker,
    Hello,
    Join,
    Joined,
    Message,
    PagePong,
    PagePost,
    PageSlowed,
    PostRefused,
    PostTaken,
    Present,
    Welcome,
    encode_frame,
)


class Page:
    """heard: (sender, number, value) of the channel, each once. taken: listeners by number."""

    def __init__(self, channel: str = "c", browser: bytes = b"", *, secret: bytes = b"") -> None:
        self.channel = channel
        self.secret = secret or os.urandom(16)
        self.browser = browser or os.urandom(16)
        self.id = b""
        self.outbox: list[PagePost] = []
        self.heard: list[tuple[bytes, int, bytes]] = []
        self.doubles = 0
        self.gaps = 0
        self.taken: dict[int, int] = {}
        self.refused: list[PostRefused] = []
        self.present = 0
        self.joined = False
        self.others: list[FromWorker] = []
        self.words: list[str] = []
        self._number = 0
        self._last: dict[bytes, int] = {}

    def hello(self, since_ms: int = 0, joins: Iterable[Join] | None = None) -> list[bytes]:
        """What is said on a new socket: who it is, then everything that is not acknowledged."""
        self.joined = False
        wanted = [Join(self.channel, since_ms)] if joins is None else list(joins)
        frames: list[FromPage] = [Hello(VERSION, self.secret, self.browser, wanted), *self.outbox]
        return [encode_frame(frame) for frame in frames]

    def post(self, value: bytes) -> bytes:
        self._number += 1
        post = PagePost(self.channel, self._number, value)
        self.outbox.append(post)
        return encode_frame(post)

    def receive(self, data: str | bytes) -> None:
        if isinstance(data, str):
            self.words.append(data)
            return
        frame = msgspec.msgpack.decode(data, type=FromWorker)
        match frame:
            case Welcome():
                self.id = frame.page
            case Joined():
                self.joined = True
            case Present():
                self.present = frame.pages
            case PostTaken():
                self.taken[frame.number] = frame.listeners
                self.outbox = [post for post in self.outbox if post.number != frame.number]
            case PostRefused():
                self.refused.append(frame)
                self.outbox = [post for post in self.outbox if post.number != frame.number]
            case Message():
                self._hear(frame)
            case PagePong() | PageSlowed():
                self.others.append(frame)
            case _:
                assert_never(frame)

    def values(self) -> list[bytes]:
        return [value for _, _, value in self.heard]

    def _hear(self, message: Message) -> None:
        last = self._last.get(message.sender)
        if last is not None and message.number <= last:
            self.doubles += 1
            return
        self.gaps += last is not None and message.number > last + 1
        self._last[message.sender] = message.number
        self.heard.append((message.sender, message.number, message.value))
