"""Requests of peers, through a manager to a chunk instance."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from services.manager.routing.intake import MAX_OPEN_A_GUEST
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import ROLE_GUEST, BodyRef, Inbound, InboundAnswer, Stamp
from shared.bus.messages.subjects import QUEUE_CHUNK
from shared.content.messages import RequestManifest
from shared.errors import Cause, RemoteFailure
from shared.ids import guest_token
from shared.transports import ORDER
from tests.fakes.memory_bus import MemoryBus
from tests.fakes.waiting import until
from tests.services.manager.node import ANSWER, PEER, SUBJECTS, Node, hops
from tests.services.manager.rig import WEBRTC

CALL = Inbound(Stamp("webrtc", "member", PEER, "link-1"), b"r" * 16, RequestManifest("00"))


async def start_chunk(node: Node, name: str) -> MemoryBus:
    bus = node.hub.bus(name)

    async def message(call: Inbound, incoming: Incoming) -> InboundAnswer:
        return InboundAnswer(ANSWER, BodyRef(name, b"token", 10))

    await bus.serve(SUBJECTS.chunk_message, Inbound, message, queue=QUEUE_CHUNK)
    return bus


async def ask(node: Node, transport: str = "webrtc", timeout_s: float = 8.0, call: Inbound = CALL) -> InboundAnswer:
    worker = node.workers[WEBRTC].bus
    stamped = msgspec.structs.replace(call, stamp=msgspec.structs.replace(call.stamp, transport=transport))
    return await worker.request(SUBJECTS.inbound(transport), stamped, InboundAnswer, timeout_s)


@pytest.mark.parametrize("transport", [name.value for name in ORDER])
async def test_it_is_handed_to_a_chunk_instance(node: Node, transport: str) -> None:
    await node.start()
    await start_chunk(node, "chunk-a")
    answer = await ask(node, transport)
    assert (answer.answer, answer.body) == (ANSWER, BodyRef("chunk-a", b"token", 10))


async def test_a_stamp_of_another_transport_is_refused(node: Node) -> None:
    """A worker stamps what came over its own links: the body of the answer is held for that transport alone."""
    await node.start()
    await start_chunk(node, "chunk-a")
    with pytest.raises(RemoteFailure) as failure:
        await node.workers[WEBRTC].bus.request(SUBJECTS.inbound("broadcast"), CALL, InboundAnswer, 8.0)
    assert failure.value.cause is Cause.INVALID


async def test_a_frozen_chunk_instance_is_passed_over(node: Node) -> None:
    await node.start()
    await start_chunk(node, "chunk-a")
    await start_chunk(node, "chunk-b")
    node.hub.freeze("chunk-a")
    asking = [asyncio.create_task(ask(node)) for _ in range(3)]
    await asyncio.sleep(0)
    node.hub.kill("chunk-a")
    answers = await asyncio.gather(*asking)
    assert {answer.body.instance for answer in answers if answer.body is not None} == {"chunk-b"}


async def test_no_chunk_instance_is_our_own_loss(node: Node) -> None:
    await node.start()
    with pytest.raises(RemoteFailure) as failure:
        await ask(node)
    assert failure.value.cause is Cause.SOURCE_LOST


async def test_four_strangers_whose_look_ups_hang_leave_the_node_to_everybody_else(node: Node) -> None:
    await node.start()
    bus = node.hub.bus("chunk-a")

    async def message(call: Inbound, incoming: Incoming) -> InboundAnswer:
        if call.stamp.role == ROLE_GUEST and call.stamp.peer in strangers:
            await asyncio.Event().wait()
        return InboundAnswer(ANSWER, None)

    await bus.serve(SUBJECTS.chunk_message, Inbound, message, queue=QUEUE_CHUNK, max_concurrent=4096)
    strangers = [guest_token(f"stranger-{number}") for number in range(4)]
    asking = [
        asyncio.create_task(ask(node, call=replace(CALL, stamp=Stamp("webrtc", ROLE_GUEST, stranger, "link"))))
        for stranger in strangers
        for _ in range(200)
    ]
    await until(lambda: sum(task.done() for task in asking) == 4 * (200 - MAX_OPEN_A_GUEST))
    guest = replace(CALL, stamp=Stamp("webrtc", ROLE_GUEST, guest_token("somebody"), "link"))
    for call in [CALL, guest] * 20:
        assert (await ask(node, call=call)).answer == ANSWER
    failures = await asyncio.gather(*asking, return_exceptions=True)
    assert {failure.cause for failure in failures if isinstance(failure, RemoteFailure)} == {Cause.BUSY}


async def test_a_switched_off_transport_takes_nothing_in(node: Node) -> None:
    await node.start()
    await start_chunk(node, "chunk-a")
    await node.flags.set(WEBRTC, False)
    await until(lambda: not node.managers["manager-1"].process.flags.enabled(WEBRTC))
    with pytest.raises(RemoteFailure) as failure:
        await ask(node)
    assert failure.value.cause is Cause.DISABLED


async def test_a_peer_that_asks_us_is_known_to_have_a_link(node: Node) -> None:
    await node.start(linked=(WEBRTC,))
    await start_chunk(node, "chunk-a")
    await ask(node)
    assert hops(await node.deliver()) == [("webrtc", "confirmed", "")]
    assert node.workers[WEBRTC].dialled == 0
