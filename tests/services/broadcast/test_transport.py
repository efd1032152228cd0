"""Links over the mesh: nobody there, somebody gone, limits, and messages that lie."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from services.broadcast import transport as transport_module
from services.broadcast.limits import MAX_RECORD_BYTES, REFUSED_LINKS, REFUSED_MESSAGE, REFUSED_ORDER, WINDOW_RECORDS
from services.broadcast.messages import CloseLink, LinkMessage, LinkOpened, OpenLink, Post, Probe
from services.broadcast.transport import BroadcastTransport
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Done
from shared.bus.messages.subjects import QUEUE_LINK, broadcast_node, broadcast_worker
from shared.errors import Cause, LocalProtocolError, NoResponders, RemoteFailure, TransportError
from shared.ids import member_token, peerjs_id
from shared.transport.contract import PeerHint, StateChanged
from shared.transports import TransportState
from shared.wire.sealed.binding import broadcast_binding
from tests.conformance.suite import Pair
from tests.fakes.memory_bus import MemoryBus, MemoryHub
from tests.fakes.waiting import until
from tests.services.broadcast.conftest import CHANNEL, ORIGIN, BroadcastEnd


class Mesh:
    def __init__(self) -> None:
        self.hub = MemoryHub()
        self.ends: list[BroadcastEnd] = []

    async def end(self, instance: str, key: bytes = b"", channel: str = CHANNEL) -> BroadcastEnd:
        end = BroadcastEnd(self.hub.bus(instance), key, channel)
        self.ends.append(end)
        await end.start()
        await until(lambda: end.states)
        return end


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    mesh = Mesh()
    yield mesh
    for end in mesh.ends:
        await end.stop()


async def test_nobody_there_is_known_at_once(mesh: Mesh) -> None:
    near = await mesh.end("near")
    started = time.monotonic()
    with pytest.raises(TransportError) as error:
        await near.transport.dial(PeerHint(bytes(32), "peer-x"), 10.0)
    assert error.value.cause is Cause.NO_LISTENER
    assert time.monotonic() - started < 0.5


async def test_another_channel_is_another_world(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far", channel="another")
    with pytest.raises(TransportError) as error:
        await near.transport.dial(far.hint, 1.0)
    assert error.value.cause is Cause.NO_LISTENER


async def test_the_binding_names_scope_and_both_links(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    up, far_up = await Pair(near, far).link()
    assert up.binding == broadcast_binding(ORIGIN, CHANNEL, bytes.fromhex(up.link), bytes.fromhex(far_up.link))
    assert (up.expected_key, far_up.expected_key) == (far.key, None)


@pytest.mark.parametrize(("how", "cause"), [("kill", Cause.NO_LISTENER), ("freeze", Cause.SILENT)])
async def test_a_record_to_a_peer_that_is_gone_ends_the_link(mesh: Mesh, how: str, cause: Cause) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    up, _ = await Pair(near, far).link()
    getattr(mesh.hub, how)("far")
    await near.transport.send(up.link, b"to nobody")
    await near.until(lambda: bool(near.downs), "the link is down", 3.0)
    assert [(down.link, down.cause) for down in near.downs] == [(up.link, cause)]
    with pytest.raises(TransportError):
        await near.transport.send(up.link, b"again")
    if how == "freeze":
        mesh.hub.thaw("far")


async def test_an_idle_link_to_a_killed_peer_is_noticed(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    await Pair(near, far).link()
    mesh.hub.kill("far")
    await near.until(lambda: bool(near.downs), "the link is down", 4.0)
    assert near.downs[0].cause is Cause.NO_LISTENER


async def test_an_idle_link_stays(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.broadcast.link.PROBE_AFTER_S", 0.05)
    monkeypatch.setattr(transport_module, "PROBE_INTERVAL_S", 0.02)
    near, far = await mesh.end("near"), await mesh.end("far")
    up, far_up = await Pair(near, far).link()
    await asyncio.sleep(0.3)
    assert not near.downs
    assert not far.downs
    await near.transport.send(up.link, b"still here")
    await far.until(lambda: bool(far.records.get(far_up.link)), "the record is there")


async def test_records_before_a_close_arrive(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    up, far_up = await Pair(near, far).link()
    for number in range(WINDOW_RECORDS):
        await near.transport.send(up.link, bytes([number]))
    await near.transport.close(up.link, Cause.DRAINING)
    await far.until(lambda: bool(far.downs), "the remote peer is down")
    assert far.records[far_up.link] == [bytes([number]) for number in range(WINDOW_RECORDS)]
    assert far.downs[0].cause is Cause.DRAINING


async def test_send_waits_for_room(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    up, far_up = await Pair(near, far).link()
    mesh.hub.freeze("far")
    sent: list[int] = []

    async def send_many() -> None:
        for number in range(3 * WINDOW_RECORDS):
            await near.transport.send(up.link, bytes([number]))
            sent.append(number)

    task = asyncio.create_task(send_many())
    await asyncio.sleep(0.05)
    assert len(sent) == WINDOW_RECORDS
    mesh.hub.thaw("far")
    await task
    await far.until(lambda: len(far.records.get(far_up.link, ())) == 3 * WINDOW_RECORDS, "all is there")


async def test_large_records_share_four_mebibytes(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    up, far_up = await Pair(near, far).link()
    mesh.hub.freeze("far")
    sent: list[int] = []

    async def send_many() -> None:
        for number in range(4):
            await near.transport.send(up.link, bytes([number]) * MAX_RECORD_BYTES)
            sent.append(number)

    task = asyncio.create_task(send_many())
    await asyncio.sleep(0.05)
    assert len(sent) == 2
    mesh.hub.thaw("far")
    await task
    await far.until(lambda: len(far.records.get(far_up.link, ())) == 4, "all is there")


async def test_a_waiting_send_ends_with_its_link(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    up, _ = await Pair(near, far).link()
    mesh.hub.freeze("far")
    for _ in range(WINDOW_RECORDS):
        await near.transport.send(up.link, b"x")
    waiting = asyncio.create_task(near.transport.send(up.link, b"x"))
    await asyncio.sleep(0.01)
    await near.transport.close(up.link, Cause.CLOSED)
    with pytest.raises(TransportError) as error:
        await waiting
    assert error.value.cause is Cause.CLOSED
    mesh.hub.thaw("far")


async def test_one_link_too_many(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far, third = await mesh.end("near"), await mesh.end("far"), await mesh.end("third")
    await Pair(near, far).link()
    await near.transport.dial(third.hint, 1.0)
    await third.transport.dial(far.hint, 1.0)
    monkeypatch.setattr(transport_module, "MAX_LINKS", 2)
    other = await mesh.end("other")
    with pytest.raises(TransportError) as error:
        await other.transport.dial(far.hint, 1.0)
    assert error.value.cause is Cause.BUSY
    with pytest.raises(TransportError) as error:
        await near.transport.dial(other.hint, 1.0)
    assert error.value.cause is Cause.BUSY
    assert near.broadcast.refused[REFUSED_LINKS] == far.broadcast.refused[REFUSED_LINKS] == 1


async def say(bus: MemoryBus, instance: str, message: LinkMessage) -> Done:
    return await bus.request(broadcast_worker(ORIGIN, CHANNEL, instance), message, Done, 1.0)


async def test_messages_that_lie(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    _, far_up = await Pair(near, far).link()
    stranger = mesh.hub.bus("stranger")
    node = broadcast_node(ORIGIN, CHANNEL, member_token(far.key))
    for opening in (
        OpenLink(b"short", "worker"),
        OpenLink(bytes(16), "w.>"),
        OpenLink(bytes(16), ""),
        OpenLink(bytes(16), "w" * 65),
    ):
        with pytest.raises(RemoteFailure) as failure:
            await stranger.request(node, opening, LinkOpened, 1.0)
        assert failure.value.cause is Cause.INVALID
    assert far.broadcast.refused[REFUSED_MESSAGE] == 4
    unknown: list[LinkMessage] = [
        Probe(bytes(16)),
        Post(b"", 0, memoryview(b"x")),
        CloseLink(bytes(99), Cause.CLOSED),
    ]
    for message in unknown:
        with pytest.raises(RemoteFailure) as failure:
            await say(stranger, "far", message)
        assert failure.value.cause is Cause.CLOSED
    with pytest.raises(RemoteFailure) as failure:
        await say(stranger, "far", Post(bytes.fromhex(far_up.link), 1000, memoryview(b"x")))
    assert failure.value.cause is Cause.INVALID
    assert far.broadcast.refused[REFUSED_ORDER] == 1
    await near.until(lambda: bool(near.downs), "the near end knows")
    assert (far.downs[0].cause, near.downs[0].cause) == (Cause.INVALID, Cause.INVALID)
    assert len(far.ups) == 1


@pytest.mark.parametrize("answer", [LinkOpened(b"short", "w"), LinkOpened(bytes(16), "a.b")])
async def test_an_answer_that_lies_makes_no_link(mesh: Mesh, answer: LinkOpened) -> None:
    near, liar = await mesh.end("near"), mesh.hub.bus("liar")

    async def handler(call: OpenLink, incoming: Incoming) -> LinkOpened:
        return answer

    await liar.serve(broadcast_node(ORIGIN, CHANNEL, member_token(bytes(32))), OpenLink, handler, queue=QUEUE_LINK)
    with pytest.raises(TransportError) as error:
        await near.transport.dial(PeerHint(bytes(32), peerjs_id(bytes(32))), 1.0)
    assert error.value.cause is Cause.INVALID
    assert not near.ups


async def test_a_dial_that_the_dialler_gave_up_leaves_no_link_behind(mesh: Mesh) -> None:
    far, stranger = await mesh.end("far"), mesh.hub.bus("stranger")
    node = broadcast_node(ORIGIN, CHANNEL, member_token(far.key))
    await stranger.request(node, OpenLink(bytes(16), "stranger"), LinkOpened, 1.0)
    assert len(far.ups) == 1
    await far.until(lambda: bool(far.downs), "the link is down", 4.0)


async def test_two_workers_of_one_node_share_its_dials(mesh: Mesh) -> None:
    key = bytes(range(32))
    near, one, two = await mesh.end("near"), await mesh.end("far-1", key), await mesh.end("far-2", key)
    for _ in range(24):
        await near.transport.dial(one.hint, 1.0)
    assert len(one.ups) + len(two.ups) == 24
    assert one.ups
    assert two.ups
    await two.stop()
    await near.transport.dial(one.hint, 1.0)


async def test_the_state_follows_the_mesh(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    await until(lambda: near.states == [StateChanged(TransportState.READY)])
    mesh.hub.disconnect("near")
    with pytest.raises(TransportError) as error:
        await near.transport.dial(far.hint, 1.0)
    assert error.value.cause is Cause.SIGNALLING_UNAVAILABLE
    await until(lambda: near.states[-1] == StateChanged(TransportState.DEGRADED, Cause.SIGNALLING_UNAVAILABLE))
    mesh.hub.reconnect("near")
    await until(lambda: near.states[-1] == StateChanged(TransportState.READY))
    await Pair(near, far).link()


async def test_a_mesh_that_is_away_at_the_start(mesh: Mesh) -> None:
    far = BroadcastEnd(mesh.hub.bus("far"))
    mesh.ends.append(far)
    mesh.hub.disconnect("far")
    await far.start()
    await until(lambda: far.states == [StateChanged(TransportState.DEGRADED, Cause.SIGNALLING_UNAVAILABLE)])
    mesh.hub.reconnect("far")
    await until(lambda: far.states[-1] == StateChanged(TransportState.READY))
    await Pair(await mesh.end("near"), far).link()


async def test_a_stopped_transport_answers_nobody(mesh: Mesh) -> None:
    near, far = await mesh.end("near"), await mesh.end("far")
    await far.stop()
    with pytest.raises(TransportError) as error:
        await near.transport.dial(far.hint, 1.0)
    assert error.value.cause is Cause.NO_LISTENER
    with pytest.raises(TransportError) as error:
        await far.transport.dial(near.hint, 1.0)
    assert error.value.cause is Cause.DISABLED
    with pytest.raises(NoResponders):
        await say(mesh.hub.bus("stranger"), "far", Probe(bytes(16)))


async def test_it_needs_an_identity_first() -> None:
    with pytest.raises(LocalProtocolError):
        await BroadcastTransport(MemoryHub().bus("x"), ORIGIN, CHANNEL).run(lambda event: None)
