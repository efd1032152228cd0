"""A data-channel link as its owner sees it, without importing aiortc; `available.load` gives the real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shared.errors import Cause
from shared.settings.rendezvous import IceServer

MAX_RECORD_BYTES = 65_535
"""One Noise message (docs/seal.md)."""
MAX_MESSAGE_BYTES = 262_144
"""The longest message of Chrome, aiortc and libdatachannel (docs/data-channels.md)."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """host: the address to gather on, "" = all, DEFAULT_ROUTE = the one to the outside. ice_servers: STUN and TURN.

    max_message_bytes: the longest message sent or taken, at most MAX_MESSAGE_BYTES.
    advertise: an address beside each of ours under which the same port reaches us (a NAT that maps one to one), "" =
    none. ports: the UDP ports that may be bound, None = any.
    unordered: take a channel that lets messages overtake each other. text: take text messages, as their UTF-8 bytes;
    a remote peer that has sent one is answered in text.
    """

    host: str = ""
    ice_servers: tuple[IceServer, ...] = ()
    max_message_bytes: int = MAX_RECORD_BYTES
    advertise: str = ""
    ports: range | None = None
    unordered: bool = False
    text: bool = False


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """Callbacks on the event loop, quick and synchronous.

    on_open: messages can be sent. on_message: one message. on_closed: exactly once, with nothing after it;
    ICE_FAILED where it never opened, INVALID or TOO_LARGE for a bad peer, CLOSED, or the owner's own cause.
    """

    on_open: Callable[[], None]
    on_message: Callable[[bytes], None]
    on_closed: Callable[[Cause], None]


class DataChannel(Protocol):
    """One peer connection with one reliable channel; see `link.DataChannelLink`."""

    refused_candidates: int

    @property
    def is_open(self) -> bool: ...

    @property
    def ordered(self) -> bool: ...

    @property
    def has_path(self) -> bool: ...

    @property
    def queued_bytes(self) -> int: ...

    async def offer(self, label: str, *, ordered: bool = True) -> str: ...
    async def accept_offer(self, sdp: str) -> str: ...
    async def accept_answer(self, sdp: str) -> None: ...
    async def add_candidate(self, candidate: str, mid: str | None, line_index: int | None) -> None: ...
    def fingerprints(self) -> tuple[bytes, bytes]: ...
    async def send(self, data: bytes) -> None: ...
    async def close(self, cause: Cause = Cause.CLOSED) -> None: ...


LinkFactory = Callable[[LinkSettings, LinkEvents], DataChannel]
