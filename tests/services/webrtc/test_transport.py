"""The transport over a real signalling socket and real data channels, on loopback."""

from __future__ import annotations

import asyncio
import os

import pytest

from services.webrtc.limits import REFUSED_NO_WORKER, REFUSED_SOURCE_RATE, REFUSED_SPEECH, SOURCE_BURST
from shared.errors import Cause, TransportError
from shared.ids import LinkId, peerjs_id
from shared.rtc.contract import LinkFactory
from shared.transport.contract import PeerHint, StateChanged
from shared.transports import TransportState
from tests.fakes.waiting import until
from tests.services.webrtc.conftest import MakeNode
from tests.services.webrtc.node import Node, Worker
from tests.services.webrtc.peer_server import FakePeerServer

READY = StateChanged(TransportState.READY)


async def ready(*nodes: Node) -> None:
    await until(lambda: all(worker.state == READY for node in nodes for worker in node.workers))


async def link(a: Node, b: Node) -> tuple[LinkId, LinkId]:
    """Dial b from a's first worker."""
    await a.worker.transport.dial(b.hint, 5)
    await until(lambda: any(worker.ups for worker in b.workers))
    return a.worker.ups[-1].link, next(worker.ups[-1].link for worker in b.workers if worker.ups)


async def test_a_dial_makes_one_link_with_the_same_binding_at_both_ends(make_node: MakeNode) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    await link(a, b)
    [dialled], [answered] = a.worker.ups, b.worker.ups
    assert dialled.dialer
    assert not answered.dialer
    assert dialled.expected_key == b.key
    assert answered.expected_key is None
    assert dialled.binding == answered.binding
    assert len(dialled.binding) == 64


async def test_records_go_both_ways_whole_and_in_order(make_node: MakeNode) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    at_a, at_b = await link(a, b)
    there = [os.urandom(65_535) for _ in range(16)]
    back = [os.urandom(100) for _ in range(16)]

    async def send(worker: Worker, link_id: LinkId, records: list[bytes]) -> None:
        for record in records:
            await worker.transport.send(link_id, record)

    await asyncio.gather(send(a.worker, at_a, there), send(b.worker, at_b, back))
    await until(lambda: len(b.worker.records(at_b)) == 16 and len(a.worker.records(at_a)) == 16)
    assert b.worker.records(at_b) == there
    assert a.worker.records(at_a) == back


async def test_close_says_down_once_at_each_end(make_node: MakeNode) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    at_a, at_b = await link(a, b)
    await a.worker.transport.close(at_a, Cause.UNAUTHENTICATED)
    await until(lambda: b.worker.downs)
    assert [(down.link, down.cause) for down in a.worker.downs] == [(at_a, Cause.UNAUTHENTICATED)]
    assert [(down.link, down.cause) for down in b.worker.downs] == [(at_b, Cause.CLOSED)]
    with pytest.raises(TransportError) as closed:
        await a.worker.transport.send(at_a, b"late")
    assert closed.value.cause is Cause.CLOSED
    await a.worker.transport.close(at_a, Cause.CLOSED)
    await a.worker.transport.close(LinkId("unknown"), Cause.CLOSED)
    with pytest.raises(TransportError) as large:
        await a.worker.transport.send(at_a, bytes(65_536))
    assert large.value.cause is Cause.TOO_LARGE


async def test_dials_of_one_peer_share_an_hop(make_node: MakeNode) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    await asyncio.gather(*(a.worker.transport.dial(b.hint, 5) for _ in range(5)))
    await a.worker.transport.dial(b.hint, 5)
    assert len(a.worker.ups) == 1


async def test_an_unknown_peer_is_known_to_be_unknown(make_node: MakeNode) -> None:
    a = await make_node("a")
    await ready(a)
    key = bytes(32)
    with pytest.raises(TransportError) as failed:
        await a.worker.transport.dial(PeerHint(key, peerjs_id(key)), 3)
    assert failed.value.cause is Cause.PEER_UNKNOWN
    assert a.worker.ups == []


async def test_a_peer_that_does_not_answer_is_a_dial_timeout(make_node: MakeNode, server: FakePeerServer) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    b.hub.freeze(b.worker.bus.instance)
    with pytest.raises(TransportError) as failed:
        await a.worker.transport.dial(b.hint, 0.3)
    assert failed.value.cause is Cause.DIAL_TIMEOUT
    b.hub.thaw(b.worker.bus.instance)


async def test_signalling_down_degrades_and_up_again_mends_while_links_go_on(
    make_node: MakeNode, server: FakePeerServer
) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    at_a, at_b = await link(a, b)
    await server.stop()
    await until(lambda: a.worker.state == StateChanged(TransportState.DEGRADED, Cause.SIGNALLING_UNAVAILABLE))
    await a.worker.transport.send(at_a, b"still here")
    await until(lambda: b.worker.records(at_b) == [b"still here"])
    key = bytes(32)
    with pytest.raises(TransportError) as failed:
        await a.worker.transport.dial(PeerHint(key, peerjs_id(key)), 3)
    assert failed.value.cause is Cause.SIGNALLING_UNAVAILABLE
    await server.start()
    await ready(a, b)
    assert a.worker.downs == []


async def test_a_taken_id_is_said(make_node: MakeNode, server: FakePeerServer) -> None:
    a = await make_node("a")
    await ready(a)
    thief = Node("a", a.document.parent, [server.entry])
    thief.token = "another"
    await thief.start()
    await until(lambda: thief.worker.state == StateChanged(TransportState.DEGRADED, Cause.ID_TAKEN))
    await thief.stop()


async def test_cancelling_run_closes_all_and_it_may_run_again(make_node: MakeNode, server: FakePeerServer) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    await link(a, b)
    await a.worker.stop()
    assert len(a.worker.downs) == 1
    assert a.peer_id not in server.sockets
    await until(lambda: b.worker.downs)
    with pytest.raises(TransportError) as closed:
        await a.worker.transport.dial(b.hint, 1)
    assert closed.value.cause is Cause.CLOSED
    a.worker.events.clear()
    a.worker.run()
    await ready(a)
    await link(a, b)


def offer_of(peer: str, node: Node, metadata: dict[str, object]) -> dict[str, object]:
    payload = {
        "sdp": {"type": "offer", "sdp": "v=0\r\n"},
        "type": "data",
        "connectionId": f"dc_{peer}",
        "metadata": metadata,
        "label": "data",
        "reliable": True,
        "serialization": "binary",
    }
    return {"type": "OFFER", "src": peer, "dst": node.peer_id, "payload": payload}


async def test_a_browsers_offer_is_turned_away_with_a_word_and_counted(
    make_node: MakeNode, server: FakePeerServer
) -> None:
    a = await make_node("a")
    await ready(a)
    await server.say(a.peer_id, offer_of("peer-browser", a, {"userId": "someone"}))
    await until(lambda: {"type": "EXPIRE", "dst": "peer-browser"} in server.relayed)
    assert a.worker.transport.refused == {REFUSED_SPEECH: 1}
    assert a.worker.ups == []


async def test_an_offer_that_no_worker_takes_is_turned_away_with_a_word(
    make_node: MakeNode, server: FakePeerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await make_node("a")
    await ready(a)
    monkeypatch.setattr("services.webrtc.links.MAX_LINKS", 0)
    await server.say(a.peer_id, offer_of("peer-node", a, {"swarmbridge": 1}))
    await until(lambda: {"type": "EXPIRE", "dst": "peer-node"} in server.relayed)
    assert a.worker.transport.refused[REFUSED_NO_WORKER] == 1


async def test_offers_over_the_rate_are_turned_away_with_a_word(make_node: MakeNode, server: FakePeerServer) -> None:
    a = await make_node("a")
    await ready(a)
    for number in range(int(SOURCE_BURST) + 1):
        await server.say(a.peer_id, offer_of("peer-many", a, {"userId": str(number)}))
    await until(lambda: a.worker.transport.refused[REFUSED_SOURCE_RATE] == 1)
    await until(lambda: server.relayed.count({"type": "EXPIRE", "dst": "peer-many"}) >= 2)


async def test_without_aiortc_the_worker_stays_degraded(make_node: MakeNode) -> None:
    def broken() -> LinkFactory:
        raise TransportError(Cause.IMPORT_FAILED)

    a = await make_node("a", load=broken)
    await until(lambda: a.worker.state == StateChanged(TransportState.DEGRADED, Cause.IMPORT_FAILED))
    with pytest.raises(TransportError) as failed:
        await a.worker.transport.dial(PeerHint(bytes(32), "peer-x"), 1)
    assert failed.value.cause is Cause.IMPORT_FAILED
