"""Two workers over a transport in memory: requests, refusals, faults, flags, drain.

What does not concern the seal holds for both speeches, whoever dialled: the worker knows the contract alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.bus import bodies
from shared.bus.messages.envelopes import AnnounceManifests, CancelRequest, Done, LinkAnswer
from shared.content.messages import NotFound, RequestChunk
from shared.errors import Cause, NoResponders, RemoteFailure
from shared.ids import LinkId
from shared.transport.contract import Capabilities, RecordReceived
from shared.transports import TransportName
from shared.worker.session import LinkSession
from tests.fakes.json_speech import BOTH
from tests.fakes.loop_transport import LoopTransport
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.shared.worker.couple import BODY, ID, Couple

ASK = RequestChunk("chunk-a")


@pytest.fixture(params=BOTH)
def speech(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["near-dials", "far-dials"])
async def couple(request: pytest.FixtureRequest, speech: str) -> AsyncIterator[Couple]:
    couple = Couple(speech, near_dials=request.param)
    yield couple
    await couple.stop()


@pytest.fixture
async def sealed() -> AsyncIterator[Couple]:
    couple = Couple()
    yield couple
    await couple.stop()


async def test_a_chunk_crosses_two_nodes(couple: Couple) -> None:
    await couple.start()
    await couple.link()
    accepted = await couple.send()
    assert accepted.worker == "worker-1"
    assert (accepted.acks, accepted.confirms) == (couple.sealed, True)
    await until(lambda: couple.near.answers)
    answer = couple.near.answers[0]
    assert answer.body is not None
    assert await bodies.pull(couple.near.puller, couple.near.subjects, answer.body, timeout_s=5.0) == BODY
    if couple.sealed:
        assert couple.near.progress[0].bytes == 0, "the acknowledgement comes first"
    stamp = couple.far.asked[0].stamp
    role = "member" if couple.sealed else "guest"
    assert (stamp.role, stamp.peer, stamp.transport) == (role, couple.near.token, "webrtc")


async def test_what_the_peer_lacks_is_an_answer(couple: Couple) -> None:
    await couple.start()
    await couple.link()
    await couple.send(ref="chunk-b")
    await until(lambda: couple.near.answers)
    assert couple.near.answers[0].answer == NotFound("chunk-b")


async def test_a_stranger_is_stamped_guest(couple: Couple) -> None:
    couple.far.members = []
    await couple.start()
    await couple.link()
    await couple.send()
    await until(lambda: couple.far.asked)
    assert couple.far.asked[0].stamp.role == "guest"


async def test_interest_is_the_route(couple: Couple) -> None:
    await couple.start()
    with pytest.raises(NoResponders):
        await couple.send()
    await couple.link()
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


async def test_a_key_that_is_not_the_expected_one_is_refused(sealed: Couple) -> None:
    await sealed.start()
    impostor = WorkerNode(b"\x03" * 32)
    await impostor.start(LoopTransport(sealed.net))
    await until(lambda: len(sealed.net.listening) == 3)
    sealed.net.listening[sealed.far.key] = sealed.net.listening[impostor.key]
    with pytest.raises(RemoteFailure) as refusal:
        await sealed.link()
    assert refusal.value.cause is Cause.UNAUTHENTICATED
    await until(lambda: sealed.near.status and sealed.near.status.last_error is Cause.UNAUTHENTICATED)
    assert impostor.asked == []
    sealed.net.listening[sealed.far.key] = sealed.far_transport
    await impostor.stop()


async def test_an_unknown_peer_is_its_cause(couple: Couple) -> None:
    await couple.start()
    stranger = WorkerNode(b"\x04" * 32, sealed=couple.sealed)
    with pytest.raises(RemoteFailure) as refusal:
        await couple.near.dial(stranger.token)
    assert refusal.value.cause is Cause.PEER_UNKNOWN


@pytest.mark.parametrize("fault", ["replayed", "reordered", "changed", "lost"])
async def test_a_record_tampered_with_closes_the_link(sealed: Couple, fault: str) -> None:
    await sealed.start()
    await sealed.link()
    original = sealed.near_transport.deliver
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

    sealed.near_transport.deliver = tamper  # type: ignore[method-assign]
    await sealed.send()
    await until(lambda: sealed.near.failures)
    assert sealed.near.failures[0].cause is Cause.UNAUTHENTICATED
    assert sealed.near.answers == []


async def test_a_body_survives_the_loss_of_its_holder(couple: Couple, monkeypatch: pytest.MonkeyPatch) -> None:
    await couple.start(chunk_instances=2)
    await couple.link()
    couple.far.bodies["chunk-a"] = BODY * 3  # more than is pulled ahead
    slices = 0
    send_body = LinkSession.send_body

    async def watch(session: LinkSession, request_id: bytes, data: memoryview) -> None:
        nonlocal slices
        slices += 1
        if slices == 2:
            holder = next(h for h in couple.far.holders if h.count)
            couple.far.hub.kill(f"chunk-{couple.far.holders.index(holder)}")
        await send_body(session, request_id, data)

    monkeypatch.setattr(LinkSession, "send_body", watch)
    await couple.send()
    await until(lambda: couple.near.answers, 10.0)
    body = couple.near.answers[0].body
    assert body is not None
    assert await bodies.pull(couple.near.puller, couple.near.subjects, body, timeout_s=5.0) == BODY * 3
    assert len(couple.far.asked) == 2


async def test_the_rest_of_a_body_that_is_gone_is_a_failure(couple: Couple, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header is out, its holder dies, and the other instance finds nothing: the peer must not wait for it."""
    await couple.start(chunk_instances=2)
    await couple.link()
    couple.far.bodies["chunk-a"] = BODY * 3  # more than is pulled ahead
    send_body = LinkSession.send_body

    async def lose(session: LinkSession, request_id: bytes, data: memoryview) -> None:
        holder = next(h for h in couple.far.holders if h.count)
        couple.far.bodies.clear()
        couple.far.hub.kill(f"chunk-{couple.far.holders.index(holder)}")
        monkeypatch.undo()
        await send_body(session, request_id, data)

    monkeypatch.setattr(LinkSession, "send_body", lose)
    await couple.send()
    await until(lambda: couple.near.failures, 10.0)
    assert couple.near.failures[0].cause is Cause.SOURCE_LOST
    couple.far.bodies["chunk-a"] = BODY
    await couple.send(b"s" * 16)
    await until(lambda: couple.near.answers)


async def test_a_manager_that_takes_over_gets_the_answer(couple: Couple) -> None:
    await couple.start()
    await couple.link()
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
    await couple.link()
    couple.far.bodies["chunk-a"] = BODY * 3
    await couple.send()
    worker = couple.near.subjects.worker("worker-1")
    await couple.near.caller.request(worker, CancelRequest(ID), Done, timeout_s=5.0)
    await couple.send(b"t" * 16, ref="chunk-b")
    await until(lambda: couple.near.answers)
    assert [answer.request_id for answer in couple.near.answers] == [b"t" * 16]


async def test_the_flag_tears_down_and_brings_back(couple: Couple) -> None:
    await couple.start()
    await couple.link()
    await couple.near.flags.set(TransportName.WEBRTC, False)
    await until(lambda: couple.near.status and couple.near.status.state == "idle")
    with pytest.raises(RemoteFailure) as refusal:
        await couple.near.dial(couple.far.token)
    assert refusal.value.cause is Cause.DISABLED
    with pytest.raises(NoResponders):
        await couple.send()
    await couple.near.flags.set(TransportName.WEBRTC, True)
    await until(lambda: len(couple.net.listening) == 2)
    await couple.link()
    await couple.send()
    await until(lambda: couple.near.answers)


async def test_traffic_makes_it_active(couple: Couple) -> None:
    await couple.start()
    await until(lambda: couple.far.status and couple.far.status.state == "ready")
    await couple.link()
    await couple.send()
    await until(lambda: couple.far.status and couple.far.status.state == "active")
    assert couple.far.status is not None
    assert len(couple.far.status.peers) == 1
    assert couple.far.status.peers[0].startswith("peer-" if couple.sealed else "guest-")


async def test_draining_answers_what_is_in_flight(couple: Couple) -> None:
    await couple.start()
    await couple.link()
    await couple.send()
    await until(lambda: couple.far.asked)
    await couple.far.stop()
    couple.far.serving = None
    await until(lambda: couple.near.said and isinstance(couple.near.said[-1], LinkAnswer))


async def test_another_worker_of_our_own_node_is_no_peer(sealed: Couple) -> None:
    await sealed.start()
    double = WorkerNode(b"\x01" * 32)
    await double.start(LoopTransport(sealed.net))
    await until(lambda: sealed.net.listening.get(sealed.near.key) is not sealed.near_transport)
    with pytest.raises(RemoteFailure):
        await sealed.near.dial(sealed.near.token, timeout_s=1.0)
    assert sealed.near.status is not None
    assert sealed.near.status.peers == []
    await double.stop()
    sealed.net.listening[sealed.near.key] = sealed.near_transport


async def test_what_a_peer_announces_reaches_the_bus_with_who_said_it(couple: Couple) -> None:
    await couple.start()
    await couple.link()
    for node in (couple.near, couple.far):
        await node.caller.publish(node.subjects.announce, AnnounceManifests([f"held-by-{node.token[-4:]}"]))
    await until(lambda: couple.near.announced and couple.far.announced)
    for hears, says in ((couple.near, couple.far), (couple.far, couple.near)):
        [heard] = hears.announced
        assert heard.manifests == [f"held-by-{says.token[-4:]}"]
        assert (heard.stamp.peer, heard.stamp.role) == (says.token, "member" if couple.sealed else "guest")


async def test_what_was_announced_is_said_again_on_a_link_that_opens_later(couple: Couple) -> None:
    await couple.start()
    await couple.far.caller.publish(couple.far.subjects.announce, AnnounceManifests(["held"]))
    await couple.link()
    await until(lambda: couple.near.announced)
    assert couple.near.announced[0].manifests == ["held"]


async def test_a_link_for_a_speech_that_we_do_not_have_is_closed_and_counted() -> None:
    couple = Couple("klingon")
    await couple.start()
    with pytest.raises(RemoteFailure):
        await couple.near.dial(couple.far.token, timeout_s=1.0)
    await until(lambda: couple.far.status and couple.far.status.refused.get("speech") == 1)
    assert couple.far.status is not None
    assert couple.far.status.peers == []
    await couple.stop()


@pytest.mark.parametrize("lacks", ["order", "length"])
async def test_what_cannot_carry_a_seal_is_refused_before_a_word_is_said(lacks: str) -> None:
    couple = Couple()
    longest = 65_535 - (lacks == "length")
    couple.far_transport.capabilities = Capabilities(longest, ordered=lacks != "order", reliable=True)
    await couple.start()
    with pytest.raises(RemoteFailure):
        await couple.near.dial(couple.far.token, timeout_s=1.0)
    await until(lambda: couple.far.status and couple.far.status.refused.get("speech") == 1)
    await couple.stop()


async def test_a_record_longer_than_the_transport_promises_closes_the_link(couple: Couple) -> None:
    await couple.start()
    await couple.link()
    [link] = list(couple.near_transport.links)
    couple.near_transport.emit(RecordReceived(link, bytes(couple.near_transport.capabilities.max_record_bytes + 1)))
    await until(lambda: couple.near.status and couple.near.status.refused.get("too_large") == 1)
    await until(lambda: couple.far.status and not couple.far.status.peers)
