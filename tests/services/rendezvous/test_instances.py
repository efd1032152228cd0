"""Two rendezvous on one bus: peers registered on different ones meet, and outlive the loss of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from services.rendezvous import instances as module
from services.rendezvous.app import Rendezvous
from shared.settings.config import RendezvousSettings
from tests.fakes.memory_bus import MemoryHub
from tests.services.rendezvous.conftest import Sockets, receive, until

OPEN = {"type": "OPEN"}
SWARM = "s" * 20


class Two:
    def __init__(self, hub: MemoryHub, servers: list[Rendezvous], clients: list[Sockets]) -> None:
        self.hub, self.servers = hub, servers
        self.one, self.two = clients


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    hub = MemoryHub()
    servers = [Rendezvous(RendezvousSettings(), bus=hub.bus(name)) for name in ("rv-1", "rv-2")]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        for server in servers:
            await server.start()
        try:
            yield Two(hub, servers, [Sockets(http, server.url) for server in servers])
        finally:
            await asyncio.gather(*(server.close() for server in servers))


async def test_peers_of_different_instances_signal_to_each_other(two: Two) -> None:
    a, b = await two.one.peer("a"), await two.two.peer("b")
    assert [await receive(a), await receive(b)] == [OPEN, OPEN]
    await a.send_str('{"type":"OFFER","payload":0,"dst":"b"}')
    for number in range(1, 50):
        await a.send_str(json.dumps({"type": "CANDIDATE", "payload": number, "dst": "b"}))
    assert [(await receive(b))["payload"] for _ in range(50)] == list(range(50)), "in order"
    await b.send_str('{"type":"ANSWER","payload":1,"dst":"a"}')
    assert await receive(a) == {"type": "ANSWER", "src": "b", "dst": "a", "payload": 1}


async def test_an_id_is_taken_everywhere_and_moves_with_its_token(two: Two) -> None:
    a = await two.one.peer("a")
    assert await receive(a) == OPEN

    async def is_refused() -> bool:
        return bool((await receive(await two.two.peer("a", token="u")))["type"] == "ID-TAKEN")

    await until(is_refused)
    moved = await two.two.peer("a")
    assert await receive(moved) == OPEN
    assert await receive(a) == aiohttp.WSCloseCode.OK


async def test_what_waits_reaches_who_registers_on_the_other(two: Two) -> None:
    a = await two.one.peer("a")
    assert await receive(a) == OPEN
    await a.send_str('{"type":"OFFER","payload":1,"dst":"b"}')
    b = await two.two.peer("b")
    assert [(await receive(b))["type"] for _ in range(2)] == ["OPEN", "OFFER"]


async def test_peers_of_a_lost_instance_get_in_at_the_other_under_their_ids(two: Two) -> None:
    a, b = await two.one.peer("a"), await two.two.peer("b")
    assert [await receive(a), await receive(b)] == [OPEN, OPEN]
    two.hub.kill("rv-1")
    again = await two.two.peer("a")
    assert await receive(again) == OPEN
    await again.send_str('{"type":"OFFER","payload":1,"dst":"b"}')
    assert (await receive(b))["type"] == "OFFER"


async def test_without_the_bus_an_instance_serves_its_own(two: Two) -> None:
    two.hub.disconnect("rv-1")
    a, c = await two.one.peer("a"), await two.one.peer("c")
    assert [await receive(a), await receive(c)] == [OPEN, OPEN]
    await a.send_str('{"type":"OFFER","payload":1,"dst":"c"}')
    assert (await receive(c))["type"] == "OFFER"
    two.hub.reconnect("rv-1")
    b = await two.two.peer("b")
    assert await receive(b) == OPEN
    await b.send_str('{"type":"OFFER","payload":1,"dst":"a"}')
    assert (await receive(a))["type"] == "OFFER"


def announce(peer: str, offers: list[str]) -> str:
    written = [{"offer_id": each * 20, "offer": {"type": "offer", "sdp": "v=0"}} for each in offers]
    return json.dumps({"action": "announce", "info_hash": SWARM, "peer_id": peer * 20, "offers": written})


async def test_the_tracker_introduces_peers_of_different_instances(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await two.one.announcer(), await two.two.announcer()
    await a.send_str(announce("a", []))
    await b.send_str(announce("b", []))

    async def sees_both() -> bool:
        await b.send_str(announce("b", []))
        reply = await receive(b)
        return bool(reply["complete"] + reply["incomplete"] == 2)

    await until(sees_both)
    await b.send_str(announce("b", ["o"]))
    offer = await next_with(a, "offer")
    assert offer["peer_id"] == "b" * 20
    answer = {"to_peer_id": "b" * 20, "offer_id": "o" * 20, "answer": {"type": "answer", "sdp": "v=0"}}
    await a.send_str(json.dumps({"action": "announce", "info_hash": SWARM, "peer_id": "a" * 20, **answer}))
    assert (await next_with(b, "answer"))["peer_id"] == "a" * 20
    monkeypatch.setattr(module, "LOST_AFTER_S", 0.0)
    two.hub.kill("rv-1")

    async def sees_itself() -> bool:
        await b.send_str(announce("b", []))
        return bool((await next_with(b, "interval"))["incomplete"] == 1)

    await until(sees_itself)


async def next_with(ws: aiohttp.ClientWebSocketResponse, key: str) -> dict[str, object]:
    async with asyncio.timeout(5.0):
        while True:
            message = await receive(ws)
            if key in message:
                found: dict[str, object] = message
                return found
