"""Several workers of one node: one socket, one id, any number of links."""

from __future__ import annotations

import asyncio
import json

from services.webrtc.lease import LEASE_KEY
from shared.bus.messages.subjects import BUCKET_LEASES
from shared.errors import Cause
from shared.transport.contract import StateChanged
from shared.transports import TransportState
from tests.fakes.waiting import until
from tests.services.webrtc.conftest import MakeNode
from tests.services.webrtc.node import Node, Worker
from tests.services.webrtc.peer_server import FakePeerServer

READY = StateChanged(TransportState.READY)
REPLACED_WITHIN_S = 3.0


async def ready(*nodes: Node) -> None:
    await until(lambda: all(worker.state == READY for node in nodes for worker in node.workers))


def holder(node: Node) -> Worker | None:
    """The worker whose socket it is: the one that serves signal.send."""
    serving = [one.bus for one in node.hub.interests if one.pattern == node.subjects.signal_send]
    assert len(serving) <= 1
    return next((worker for worker in node.workers if worker.bus in serving), None)


def sure_holder(node: Node) -> Worker:
    worker = holder(node)
    assert worker is not None
    return worker


async def test_one_socket_for_all_and_every_worker_dials_through_it(
    make_node: MakeNode, server: FakePeerServer
) -> None:
    a, b = await make_node("a", workers=3), await make_node("b")
    await ready(a, b)
    assert set(server.sockets) == {a.peer_id, b.peer_id}
    sure_holder(a)
    await asyncio.gather(*(worker.transport.dial(b.hint, 5) for worker in a.workers))
    await until(lambda: len(b.worker.ups) == 3)
    assert [len(worker.ups) for worker in a.workers] == [1, 1, 1]


async def test_offers_are_spread_over_the_workers(make_node: MakeNode) -> None:
    b = await make_node("b", workers=3)
    dialers = [await make_node(f"a{number}") for number in range(8)]
    await ready(b, *dialers)
    await asyncio.gather(*(dialer.worker.transport.dial(b.hint, 5) for dialer in dialers))
    await until(lambda: sum(len(worker.ups) for worker in b.workers) == 8)
    assert sum(bool(worker.ups) for worker in b.workers) > 1


async def test_a_killed_holder_is_replaced_and_others_links_live_on(
    make_node: MakeNode, server: FakePeerServer
) -> None:
    a, b = await make_node("a", workers=3), await make_node("b")
    await ready(a, b)
    dead = sure_holder(a)
    for worker in a.workers:
        await worker.transport.dial(b.hint, 5)
    a.workers.remove(dead)
    await dead.kill()
    async with asyncio.timeout(REPLACED_WITHIN_S):
        await until(lambda: holder(a) is not None and a.peer_id in server.sockets)
        await ready(a)
    for worker in a.workers:
        assert worker.downs == []
        await worker.transport.send(worker.ups[0].link, b"alive")
    newcomer = await make_node("c")
    await ready(newcomer)
    await newcomer.worker.transport.dial(a.hint, 5)


async def test_a_stopped_holder_hands_over_at_once(make_node: MakeNode) -> None:
    a = await make_node("a", workers=2)
    await ready(a)
    first = sure_holder(a)
    a.workers.remove(first)
    await first.stop()
    await until(lambda: a.workers[0].state == READY and holder(a) is a.workers[0], timeout_s=2)


async def test_a_draining_holder_gives_up_the_lease_and_keeps_its_links(make_node: MakeNode) -> None:
    a, b = await make_node("a", workers=2), await make_node("b")
    await ready(a, b)
    first = sure_holder(a)
    await first.transport.dial(b.hint, 5)
    await first.transport.drain()
    await until(lambda: holder(a) not in (None, first))
    assert first.downs == []
    await first.transport.send(first.ups[0].link, b"still")


async def test_a_holder_without_the_bus_closes_its_socket_after_a_ttl(
    make_node: MakeNode, server: FakePeerServer
) -> None:
    a = await make_node("a")
    await ready(a)
    a.hub.disconnect(a.worker.bus.instance)
    await until(lambda: a.peer_id not in server.sockets)
    a.hub.reconnect(a.worker.bus.instance)
    await until(lambda: a.peer_id in server.sockets)


async def test_the_lease_is_vacant_after_the_last_worker(make_node: MakeNode) -> None:
    a = await make_node("a")
    await ready(a)
    await a.worker.stop()
    entry = await (await a.hub.bus("looker").kv(BUCKET_LEASES)).get(LEASE_KEY)
    assert entry is None or b'"holder":""' in (entry.value or b"")


async def test_a_changed_document_moves_the_node(make_node: MakeNode, server: FakePeerServer) -> None:
    a = await make_node("a")
    await ready(a)
    other = FakePeerServer()
    await other.start()
    a.write_document([other.entry])
    await until(lambda: a.peer_id in other.sockets and a.peer_id not in server.sockets)
    await a.stop()
    await other.stop()


async def test_nodes_meet_through_the_one_server_that_both_reach(make_node: MakeNode, server: FakePeerServer) -> None:
    a, b = await make_node("a"), await make_node("b")
    other = FakePeerServer()
    await other.start()
    a.write_document([other.entry, server.entry])
    await ready(a, b)
    await until(lambda: a.peer_id in other.sockets)
    await a.worker.transport.dial(b.hint, 5)
    assert len(a.worker.ups) == 1
    await a.stop()
    await other.stop()


async def test_a_broken_document_is_degraded_and_the_last_good_one_serves(
    make_node: MakeNode, server: FakePeerServer
) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    a.document.write_text("no document")
    await until(lambda: a.worker.state == StateChanged(TransportState.DEGRADED, Cause.MISCONFIGURED))
    await a.worker.transport.dial(b.hint, 5)
    a.write_document([server.entry])
    await ready(a)


async def test_a_server_that_is_none_is_our_fault_and_harms_no_other(
    make_node: MakeNode, server: FakePeerServer
) -> None:
    a = await make_node("a")
    await ready(a)
    a.document.write_text('{"peerServers": [{"url": "http://a..b/"}]}')
    await until(lambda: a.worker.state == StateChanged(TransportState.DEGRADED, Cause.MISCONFIGURED))
    a.document.write_text(json.dumps({"peerServers": [{"url": "http://a..b/"}, {"url": server.entry.url}]}))
    await ready(a)
