"""Interest as the routing table: a subscription in queue group `link` for each peer with a live link.

Subscribing and unsubscribing take a round trip to the bus each; one task a peer does them in order, so that
a link that flaps never ends up with the wrong one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from shared.bus.contract import Bus, Handler, Subscription
from shared.bus.messages.envelopes import SendRequest
from shared.bus.messages.subjects import QUEUE_LINK, Subjects
from shared.errors import BusError
from shared.ids import PeerToken

RETRY_S = 0.5
"""After the bus refused a subscription: it reconnects by itself, this asks again."""


class PeerInterest:
    """Keeps the bus's interest equal to the set of wanted peers."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        transport: str,
        handler: Callable[[PeerToken], Handler[SendRequest]],
        start: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._transport = transport
        self._handler = handler
        self._start = start
        self._wanted: set[PeerToken] = set()
        self._held: dict[PeerToken, Subscription] = {}
        self._settling: dict[PeerToken, asyncio.Task[None]] = {}
        self._ready: dict[PeerToken, asyncio.Event] = {}

    def want(self, peer: PeerToken) -> None:
        self._wanted.add(peer)
        ready = self._ready.setdefault(peer, asyncio.Event())
        if peer in self._held:
            ready.set()  # dropped a moment ago, and not forgotten yet
        self._settle(peer)

    def drop(self, peer: PeerToken) -> None:
        self._wanted.discard(peer)
        ready = self._ready.pop(peer, None)
        if ready is not None:
            ready.set()  # whoever waits for it looks again, and finds no link
        self._settle(peer)

    async def routed(self, peer: PeerToken) -> None:
        """Wait until requests for the peer reach us, or are not to reach us any more."""
        ready = self._ready.get(peer)
        if ready is not None:  # else nobody wants the peer, and nobody would ever set it
            await ready.wait()

    def drop_all(self) -> None:
        for peer in list(self._wanted):
            self.drop(peer)

    async def settled(self) -> None:
        """Wait until interest is as wanted."""
        while self._settling:
            await asyncio.wait(list(self._settling.values()))

    def _settle(self, peer: PeerToken) -> None:
        if peer not in self._settling:
            self._settling[peer] = self._start(self._settle_peer(peer), "route")

    async def _settle_peer(self, peer: PeerToken) -> None:
        try:
            # The wish may change while the bus is waited for. No await between the last look and `del`: a later wish
            # finds no task, and starts one.
            while (peer in self._wanted) != (peer in self._held):
                try:
                    await self._change(peer)
                except BusError:
                    await asyncio.sleep(RETRY_S)
        finally:
            del self._settling[peer]

    async def _change(self, peer: PeerToken) -> None:
        if peer in self._wanted:
            subject = self._subjects.link(self._transport, peer)
            self._held[peer] = await self._bus.serve(subject, SendRequest, self._handler(peer), queue=QUEUE_LINK)
            ready = self._ready.get(peer)
            if ready is not None:  # else it was dropped meanwhile: interest that is about to go is no route
                ready.set()
        else:
            await self._held.pop(peer).close()
