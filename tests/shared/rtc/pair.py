"""Two data-channel links in one process, signalled by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from shared.errors import Cause
from shared.rtc import available
from shared.rtc.contract import DataChannel, LinkEvents, LinkSettings
from tests.fakes.waiting import until

LOOPBACK = LinkSettings(host="127.0.0.1")


@dataclass
class End:
    """One link and what happened to it."""

    settings: LinkSettings = LOOPBACK
    messages: list[bytes] = field(default_factory=list)
    received_bytes: int = 0
    opened: int = 0
    closed: list[Cause] = field(default_factory=list)

    def __post_init__(self) -> None:
        make = available.load()
        self.link: DataChannel = make(self.settings, LinkEvents(self._open, self._message, self.closed.append))

    def _open(self) -> None:
        self.opened += 1

    def _message(self, message: bytes) -> None:
        self.messages.append(message)
        self.received_bytes += len(message)


async def connect(dialer: End, listener: End) -> None:
    """Offer, answer, open."""
    offer = await dialer.link.offer("test")
    await dialer.link.accept_answer(await listener.link.accept_offer(offer))
    await until(lambda: dialer.opened and listener.opened)


async def close(*ends: End) -> None:
    await asyncio.gather(*(end.link.close() for end in ends))
