"""Two workers, sealed, over a transport in memory: requests, refusals, faults, flags, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.bus import bodies
from shared.bus.messages.envelopes import CancelRequest, Done, LinkAnswer
from shared.content.messages import NotFound, RequestChunk
from shared.errors import Cause, NoResponders, RemoteFailure
from shared.ids import LinkId
from shared.transports import TransportName
from tests.fakes.loop_transport import LoopTransport
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.shared.worker.couple import BODY, ID, Couple

ASK = RequestChunk("chunk-a")


@pytest.fixture
async def couple() -> AsyncIterator[Couple]:
    couple = Couple()
    yield couple
    await couple.stop()


async def test_a_chunk_crosses_two_nodes(couple: Couple) -> None:
    await couple.start()
    await couple.near.dial(couple.far.token)
    accepted = await couple.send()
    assert accepted.worker == "worker-1"
    await until(lambda: couple.near.answers)
    answer = couple.near.answers[0]
    assert answer.body is not None
    assert await bodies.pull(couple.near.asker, couple.near.subjects, answer.body, timeout_s=5.0) == BODY
    assert couple.near.progress[0].bytes == 0, "the acknowledgement comes first"
    stamp = couple.far.asked[0].stamp
    assert (stamp.role, stamp.peer, stamp.transport) == ("member", couple.near.token, "webrtc")


async def test_what_the_peer_lacks_is_an_answer(couple: Couple) -> None:
    await couple.start()
    await couple.near.dial(couple.far.token)
    await couple.send(ref="chunk-b")
    await until(lambda: couple.near.answers)
    assert couple.near.answers[0].answer == NotFound("chunk-b")


async def test_a_stranger_is_stamped_guest(couple: Couple) -> None:
    couple.far.members = []
    await couple.start()
    await couple.near.dial(couple.far.token)
    await couple.send()
    await until(lambda: couple.far.asked)
    assert couple.far.asked[0].stamp.role == "guest"


async def test_interest_is_the_route(couple: Couple) -> None:
    await couple.start()
    with pytest.raises(NoResponders):
        await couple.send()
    await couple.near.dial(couple.far.token)
    await couple.send()
    await couple.far.stop()
    couple.far.serving = None

    async def unreachable() -> None:
        while True:
            try:
                await couple.send(b"s" * 16)
                await asyncio.sleep(0.01)
            except NoResponders:
                return

    await asyncio.wait_for(unreachable(), 5.0)


async def test_a_key_that_is_not_the_expected_one_is_refused(couple: Couple) -> None:
    await couple.start()
    impostor = WorkerNode(b"\x03" * 32)
    await impostor.start(LoopTransport(couple.net))
    await until(lambda: len(couple.net.listening) == 3)
    couple.net.listening[couple.far.key] = couple.net.listening[impostor.key]
    with pytest.raises(RemoteFailure) as refusal:
        await couple.near.dial(couple.far.token)
    assert refusal.value.cause is Cause.UNAUTHENTICATED
    await until(lambda: couple.near.status and couple.near.status.last_error is Cause.UNAUTHENTICATED)
    assert impostor.asked == []
    couple.net.listening[couple.far.key] = couple.far_transport
    await impostor.stop()


async def test_an_unknown_peer_is_its_cause(couple: Couple) -> None:
    await couple.start()
    stranger = WorkerNode(b"\x04" * 32)
    with pytest.raises(RemoteFailure) as refusal:
        await couple.near.dial(stranger.token)
    assert refusal.value.cause is Cause.PEER_UNKNOWN


@pytest.mark.parametrize("fault", ["replayed", "reordered", "changed", "lost"])
async def test_a_record_tampered_with_closes_the_link(couple: Couple, fault: str) -> None:
    await couple.start()
    await couple.near.dial(couple.far.token)
    original = couple.near_transport.deliver
    seen: list[bytes] = []

    def tamper(link: LinkId, record: bytes) -> None:
        seen.append(record)
        if fault == "replayed":
            original(link, record)
            original(link, record)
        elif fault == "changed":
            original(link, bytes([record[0] ^ 1]) + record[1:])
        elif (fault == "lost" and len(seen) == 1) or (fault == "reordered" and len(seen) == 1):
            return
        else:
            original(link, record)

    couple.near_transport.deliver = tamper  # type: ignore[method-assign]
    await couple.send()
    await until(lambda: couple.near.failures)
    assert couple.near.failures[0].cause is Cause.UNAUTHENTICATED
    assert couple.near.answers == []


async def test_a_body_survives_the_loss_of_its_holder(couple: Couple) -> None:
    await couple.start(chunk_instances=2)
    await couple.near.dial(couple.far.token)
    original = couple.near_transport.deliver
    records = 0

    def watch(link: LinkId, record: bytes) -> None:
        nonlocal records
        records += 1
        if records == 4:
            holder = next(h for h in couple.far.holders if h.count)
            couple.far.hub.kill(f"chunk-{couple.far.holders.index(holder)}")
        original(link, record)

    couple.near_transport.deliver = watch  # type: ignore[method-assign]
    await couple.send()
    await until(lambda: couple.near.answers, 10.0)
    body = couple.near.answers[0].body
    assert body is not None
    assert await bodies.pull(couple.near.asker, couple.near.subjects, body, timeout_s=5.0) == BODY
    assert len(couple.far.asked) == 2


async def test_a_manager_that_takes_over_gets_the_answer(couple: Couple) -> None:
    await couple.start()
    await couple.near.dial(couple.far.token)
    await couple.send(manager="manager-gone")
    await until(lambda: couple.far.asked)
    await couple.send(manager="manager-1")
    await until(lambda: couple.near.answers)
    await couple.send(manager="manager-1")
    await until(lambda: len(couple.near.answers) == 2)
    assert len(couple.far.asked) == 1
    first, second = couple.near.answers
    assert first.body == second.body


async def test_a_cancel_reaches_the_peer(couple: Couple) -> None:
    await couple.start()
    await couple.near.dial(couple.far.token)
    couple.far.bodies["chunk-a"] = BODY * 3
    await couple.send()
    worker = couple.near.subjects.worker("worker-1")
    await couple.near.asker.request(worker, CancelRequest(ID), Done, timeout_s=5.0)
    await couple.send(b"t" * 16, ref="chunk-b")
    await until(lambda: couple.near.answers)
    assert [answer.request_id for answer in couple.near.answers] == [b"t" * 16]


async def test_the_flag_tears_down_and_brings_back(couple: Couple) -> None:
    await couple.start()
    await couple.near.dial(couple.far.token)
    await couple.near.flags.set(TransportName.WEBRTC, False)
    await until(lambda: couple.near.status and couple.near.status.state == "idle")
    with pytest.raises(RemoteFailure) as refusal:
        await couple.near.dial(couple.far.token)
    assert refusal.value.cause is Cause.DISABLED
    with pytest.raises(NoResponders):
        await couple.send()
    await couple.near.flags.set(TransportName.WEBRTC, True)
    await until(lambda: len(couple.net.listening) == 2)
    await couple.near.dial(couple.far.token)
    await couple.send()
    await until(lambda: couple.near.answers)


async def test_traffic_makes_it_active(couple: Couple) -> None:
    await couple.start()
    await until(lambda: couple.far.status and couple.far.status.state == "ready")
    await couple.near.dial(couple.far.token)
    await couple.send()
    await until(lambda: couple.far.status and couple.far.status.state == "active")
    assert couple.far.status is not None
    assert len(couple.far.status.peers) == 1
    assert couple.far.status.peers[0].startswith("peer-")


async def test_draining_answers_what_is_under_way(couple: Couple) -> None:
    await couple.start()
    await couple.near.dial(couple.far.token)
    await couple.send()
    await until(lambda: couple.far.asked)
    await couple.far.stop()
    couple.far.serving = None
    await until(lambda: couple.near.said and isinstance(couple.near.said[-1], LinkAnswer))


async def test_another_worker_of_our_own_node_is_no_peer(couple: Couple) -> None:
    await couple.start()
    double = WorkerNode(b"\x01" * 32)
    await double.start(LoopTransport(couple.net))
    await until(lambda: couple.net.listening.get(couple.near.key) is not couple.near_transport)
    with pytest.raises(RemoteFailure):
        await couple.near.dial(couple.near.token, timeout_s=1.0)
    assert couple.near.status is not None
    assert couple.near.status.peers == []
    await double.stop()
    couple.net.listening[couple.near.key] = couple.near_transport
