"""The PeerServer over real sockets: what its machine decides gets out, and sockets end as they should."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from services.rendezvous.app import Rendezvous
from services.rendezvous.limits import PEER_SOCKETS
from shared.settings.config import RendezvousSettings
from shared.websocket.server import SocketLimits
from tests.services.rendezvous.conftest import Sockets, receive, until

OPEN = {"type": "OPEN"}


async def test_two_peers_signal_through_it(sockets: Sockets) -> None:
    a, b = await sockets.peer("a"), await sockets.peer("b")
    assert [await receive(a), await receive(b)] == [OPEN, OPEN]
    await b.send_str('{"type":"HEARTBEAT"}')
    await b.send_str('{"type":"OFFER","payload":{"connectionId":"dc_1"},"dst":"a"}')
    assert await receive(a) == {"type": "OFFER", "src": "b", "dst": "a", "payload": {"connectionId": "dc_1"}}
    await a.send_bytes(b'{"type":"ANSWER","payload":1,"dst":"b"}')
    assert await receive(b) == {"type": "ANSWER", "src": "a", "dst": "b", "payload": 1}
    await a.send_str('{"type":"LEAVE","dst":"b"}')
    assert await receive(b) == {"type": "LEAVE", "src": "a", "dst": "b"}


async def test_a_refused_socket_hears_why_and_is_closed(sockets: Sockets) -> None:
    a = await sockets.peer("a")
    assert await receive(a) == OPEN
    for ws, reason in (
        (await sockets.peer("a", token="u"), {"type": "ID-TAKEN", "payload": {"msg": "ID is taken"}}),
        (await sockets.peer("b", key="x"), {"type": "INVALID-KEY", "payload": {"msg": "Invalid key provided"}}),
    ):
        assert await receive(ws) == reason
        assert await receive(ws) == aiohttp.WSCloseCode.OK
    assert (await sockets.health())["refused"]["peerServer"] == {"forbidden": 1, "id_taken": 1}


async def test_the_same_token_takes_the_old_sockets_place(sockets: Sockets) -> None:
    old, b = await sockets.peer("a"), await sockets.peer("b")
    assert [await receive(old), await receive(b)] == [OPEN, OPEN]
    new = await sockets.peer("a")
    assert await receive(old) == aiohttp.WSCloseCode.OK
    await b.send_str('{"type":"OFFER","payload":1,"dst":"a"}')
    assert (await receive(new))["type"] == "OFFER", "no OPEN before it"


async def test_the_end_of_a_socket_frees_its_id(sockets: Sockets) -> None:
    a = await sockets.peer("a")
    assert await receive(a) == OPEN
    await a.close()

    async def is_free() -> bool:
        return bool((await sockets.health())["peers"] == 0)

    await until(is_free)
    assert await receive(await sockets.peer("a", token="u")) == OPEN


async def test_expire_comes_by_the_timer(sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.wire.peerjs.server.EXPIRE_AFTER_S", 0.05)
    a = await sockets.peer("a")
    assert await receive(a) == OPEN
    await a.send_str('{"type":"OFFER","payload":1,"dst":"gone"}')
    assert await receive(a) == {"type": "EXPIRE", "src": "gone", "dst": "a"}


async def test_a_message_that_is_far_too_long_closes_the_socket(sockets: Sockets) -> None:
    a = await sockets.peer("a")
    assert await receive(a) == OPEN
    await a.send_str("x" * 200_000)
    assert await receive(a) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

    async def is_counted() -> bool:
        return bool((await sockets.health())["refused"]["peerServer"] == {"too_large": 1})

    await until(is_counted)


@contextlib.asynccontextmanager
async def serving(settings: RendezvousSettings, limits: SocketLimits = PEER_SOCKETS) -> AsyncIterator[Sockets]:
    server = Rendezvous(settings, peer_limits=limits)
    await server.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            yield Sockets(http, server.url)
    finally:
        await server.close()


async def test_a_fast_sender_is_slowed_and_loses_nothing() -> None:
    async with serving(RendezvousSettings(), replace(PEER_SOCKETS, burst=5.0, messages_per_s=200.0)) as sockets:
        a, b = await sockets.peer("a"), await sockets.peer("b")
        assert [await receive(a), await receive(b)] == [OPEN, OPEN]
        for number in range(30):
            await a.send_str(json.dumps({"type": "CANDIDATE", "payload": number, "dst": "b"}))
        assert [(await receive(b))["payload"] for _ in range(30)] == list(range(30))
        assert (await sockets.health())["slowed"]["peerServer"] > 0


async def test_a_burst_of_candidates_is_not_slowed(sockets: Sockets) -> None:
    a, b = await sockets.peer("a"), await sockets.peer("b")
    assert [await receive(a), await receive(b)] == [OPEN, OPEN]
    for number in range(300):
        await a.send_str(json.dumps({"type": "CANDIDATE", "payload": number, "dst": "b"}))
    assert [(await receive(b))["payload"] for _ in range(300)] == list(range(300))
    assert (await sockets.health())["slowed"]["peerServer"] == 0


async def test_one_that_does_not_read_is_cut_off() -> None:
    async with serving(RendezvousSettings(), replace(PEER_SOCKETS, queued_bytes=1_000)) as sockets:
        a, b = await sockets.peer("a"), await sockets.peer("b")
        assert [await receive(a), await receive(b)] == [OPEN, OPEN]
        await a.send_str(json.dumps({"type": "OFFER", "payload": "x" * 2_000, "dst": "b"}))
        assert await receive(b) == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
        assert (await sockets.health())["refused"]["peerServer"] == {"busy": 1}
        await a.send_str('{"type":"LEAVE","dst":"a"}')
        assert (await receive(a))["type"] == "LEAVE", "the others go on"


async def test_a_socket_over_the_limit_hears_why() -> None:
    async with serving(RendezvousSettings(max_sockets_per_address=1)) as clients:
        first = await clients.peer("a")
        assert await receive(first) == OPEN
        refused = await clients.peer("b")
        reason = await receive(refused)
        assert reason["type"] == "ERROR"
        assert "too many sockets from your address" in reason["payload"]["msg"]
        assert await receive(refused) == aiohttp.WSCloseCode.TRY_AGAIN_LATER
        assert (await clients.health())["refused"]["peerServer"] == {"sockets_of_address": 1}
        announcer = await clients.announcer()
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await clients.announcer()
        assert caught.value.status == 503
        await announcer.close()
        await first.close()

        async def admits() -> bool:
            return bool(await receive(await clients.peer("b")) == OPEN)

        await until(admits)


async def test_the_clients_of_a_trusted_proxy_are_counted_one_by_one() -> None:
    settings = RendezvousSettings(max_sockets_per_address=1, trusted_proxies=["127.0.0.1"])
    async with serving(settings) as clients:
        for number in range(3):
            url = f"{clients.url}/peerjs?key=peerjs&id=p{number}&token=t"
            ws = await clients.http.ws_connect(url, headers={"X-Forwarded-For": f"198.51.100.{number}"})
            assert await receive(ws) == OPEN
        again = await clients.http.ws_connect(
            f"{clients.url}/peerjs?key=peerjs&id=p9&token=t", headers={"X-Forwarded-For": "203.0.113.1, 198.51.100.2"}
        )
        assert (await receive(again))["type"] == "ERROR", "what a client wrote itself is not believed"


async def test_two_hundred_peers_behind_one_address_and_fifty_dialled_at_once() -> None:
    async with serving(RendezvousSettings()) as clients:
        peers = [await clients.peer(f"peer-{number}") for number in range(200)]
        assert [await receive(ws) for ws in peers] == [OPEN] * 200
        for number in range(1, 51):
            await peers[0].send_str(json.dumps({"type": "OFFER", "payload": number, "dst": f"peer-{number}"}))
        assert [(await receive(peers[number]))["payload"] for number in range(1, 51)] == list(range(1, 51))
        for number in range(1, 51):
            await peers[number].send_str(json.dumps({"type": "ANSWER", "payload": number, "dst": "peer-0"}))
        assert sorted([(await receive(peers[0]))["payload"] for _ in range(50)]) == list(range(1, 51))


async def test_a_compressed_frame_is_refused_and_a_compressed_body_not_inflated(sockets: Sockets) -> None:
    query = {"key": "peerjs", "id": "a", "token": "t"}
    ws = await sockets.http.ws_connect(f"{sockets.url}/peerjs", params=query, compress=15)
    assert not ws.compress, "asked for, and not granted"
    bomb = zlib.compress(bytes(50_000_000), 9)
    request = sockets.http.get(f"{sockets.url}/peerjs/id", data=bomb, headers={"Content-Encoding": "deflate"})
    async with request as response:
        assert response.status == 200
    assert (await sockets.health())["status"] == "ok"


async def test_a_broken_timer_is_acted_on(rendezvous: Rendezvous, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(now: float) -> None:
        raise RuntimeError

    monkeypatch.setattr(rendezvous._peer_sockets._machine, "handle_timer", broken)
    rendezvous._peer_sockets._rearm.set()
    async with asyncio.timeout(5.0):
        await rendezvous.failed()


async def test_draining_says_goodbye(rendezvous: Rendezvous, sockets: Sockets) -> None:
    a, b = await sockets.peer("a"), await sockets.announcer()
    assert await receive(a) == OPEN
    draining = asyncio.create_task(rendezvous.close())
    assert [await receive(a), await receive(b)] == [aiohttp.WSCloseCode.GOING_AWAY] * 2
    await draining
