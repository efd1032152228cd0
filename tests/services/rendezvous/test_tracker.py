"""The tracker over real sockets, with our own tracker client at both ends."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from shared.clock import monotonic
from shared.wire.wstracker.client import (
    Announced,
    AnswerReceived,
    OfferReceived,
    Scraped,
    TrackerClient,
    TrackerEvent,
)
from shared.wire.wstracker.messages import Description, SwarmCounts, TrackerOffer
from tests.services.rendezvous.conftest import DEADLINE_S, Sockets, receive, until

SWARM = bytes(range(0xEC, 0x100))
OFFER = Description("offer", "v=0", {"swarm-space": {"wire": ["127.0.0.1:1"]}})
ANSWER = Description("answer", "v=0")


class Peer:
    """A tracker client on a socket of its own."""

    def __init__(self, number: int, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.peer_id = number.to_bytes(20, "big")
        self.machine = TrackerClient(SWARM, self.peer_id, monotonic())
        self._ws = ws

    async def flush(self) -> None:
        for text in self.machine.data_to_send():
            await self._ws.send_str(text)

    async def event(self) -> TrackerEvent:
        """The next thing the tracker tells us."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                events = self.machine.receive_text(await self._ws.receive_str(), monotonic())
                if events:
                    [event] = events
                    return event


@pytest.mark.parametrize("path", ["/announce", "/"])
async def test_two_peers_meet(sockets: Sockets, path: str) -> None:
    one, two = Peer(1, await sockets.announcer(path)), Peer(2, await sockets.announcer(path))
    one.machine.announce([], monotonic(), left=0)
    await one.flush()
    assert await one.event() == Announced(1, 0)
    offer = TrackerOffer(b"o" * 20, OFFER)
    two.machine.announce([offer], monotonic())
    await two.flush()
    assert await two.event() == Announced(1, 1)
    assert await one.event() == OfferReceived(two.peer_id, offer.offer_id, OFFER)
    one.machine.answer(two.peer_id, offer.offer_id, ANSWER, monotonic())
    await one.flush()
    assert await two.event() == AnswerReceived(one.peer_id, offer.offer_id, ANSWER)
    two.machine.scrape()
    await two.flush()
    assert await two.event() == Scraped(SwarmCounts(1, 1, 0))


async def test_a_lost_socket_leaves_its_swarm(sockets: Sockets) -> None:
    ws = await sockets.announcer()
    peer = Peer(1, ws)
    peer.machine.announce([], monotonic())
    await peer.flush()
    assert await peer.event() == Announced(0, 1)
    assert (await sockets.health())["swarms"] == 1
    await ws.close()

    async def is_gone() -> bool:
        health = await sockets.health()
        return (health["swarms"], health["members"], health["sockets"]["tracker"]) == (0, 0, 0)

    await until(is_gone)


async def test_a_broken_request_is_answered(sockets: Sockets) -> None:
    ws = await sockets.announcer()
    await ws.send_str("nonsense")
    assert await receive(ws) == {"failure reason": "not a tracker message"}
    assert (await sockets.health())["refused"]["tracker"] == {"invalid": 1}
