"""The PeerServer over real sockets: what its machine decides gets out, and sockets end as they should."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from services.rendezvous import sockets as module
from services.rendezvous.admission import Admission
from services.rendezvous.app import Rendezvous
from shared.settings.config import RendezvousSettings
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


async def test_a_fast_sender_is_slowed_and_loses_nothing(sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGE_BURST", 5.0)
    monkeypatch.setattr(module, "MESSAGES_PER_S", 200.0)
    a, b = await sockets.peer("a"), await sockets.peer("b")
    assert [await receive(a), await receive(b)] == [OPEN, OPEN]
    for number in range(30):
        await a.send_str(json.dumps({"type": "CANDIDATE", "payload": number, "dst": "b"}))
    assert [(await receive(b))["payload"] for _ in range(30)] == list(range(30))
    assert (await sockets.health())["slowed"]["peerServer"] > 0


async def test_one_that_does_not_read_is_cut_off(sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 1_000)
    a, b = await sockets.peer("a"), await sockets.peer("b")
    assert [await receive(a), await receive(b)] == [OPEN, OPEN]
    await a.send_str(json.dumps({"type": "OFFER", "payload": "x" * 2_000, "dst": "b"}))
    assert await receive(b) == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    assert (await sockets.health())["refused"]["peerServer"] == {"busy": 1}
    await a.send_str('{"type":"LEAVE","dst":"a"}')
    assert (await receive(a))["type"] == "LEAVE", "the others go on"


async def test_sockets_over_the_limit_get_503() -> None:
    server = Rendezvous(RendezvousSettings(), admission=Admission(max_per_address=1))
    await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            clients = Sockets(http, server.url)
            first = await clients.peer("a")
            assert await receive(first) == OPEN
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await clients.peer("b")
            assert caught.value.status == 503
            assert (await clients.health())["refused"]["peerServer"] == {"busy": 1}
            await first.close()

            async def admits() -> bool:
                try:
                    return bool(await receive(await clients.peer("b")) == OPEN)
                except aiohttp.WSServerHandshakeError:
                    return False

            await until(admits)
    finally:
        await server.close()


async def test_draining_says_goodbye(rendezvous: Rendezvous, sockets: Sockets) -> None:
    a, b = await sockets.peer("a"), await sockets.announcer()
    assert await receive(a) == OPEN
    draining = asyncio.create_task(rendezvous.close())
    assert [await receive(a), await receive(b)] == [aiohttp.WSCloseCode.GOING_AWAY] * 2
    await draining
