"""Blocked peers and full managers: what is refused at once, what is withdrawn, what is counted."""

from __future__ import annotations

import asyncio

import pytest

from services.manager import runs
from services.manager.routing import intake
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import CancelDelivery, InboundAnswer, Slowed
from shared.bus.messages.records import ManagerStatus
from shared.errors import BusTimeout, Cause, RemoteFailure
from shared.ids import peer_name
from shared.settings.blocklist import Blocklist, Direction
from tests.fakes.waiting import until
from tests.services.manager.node import PEER, SUBJECTS, Node, answer, hops, only_ack
from tests.services.manager.rig import WEBRTC
from tests.services.manager.test_inbound import ask, start_chunk

ALL_BLOCKED = [(name, "skipped", "blocked") for name in ("webrtc", "webtorrent", "broadcast")]


WAIT_S = 30.0
"""Of a delivery that is to last until the test ends it."""


async def heard_statuses(node: Node) -> list[ManagerStatus]:
    """What managers report from now on."""
    statuses: list[ManagerStatus] = []

    async def heard(status: ManagerStatus, incoming: Incoming) -> None:
        statuses.append(status)

    await node.caller.serve(SUBJECTS.event("manager"), ManagerStatus, heard)
    return statuses


async def blocklist(node: Node) -> Blocklist:
    """The operator's."""
    made = Blocklist()
    await made.start(node.hub.bus("gateway-1"))
    return made


async def test_a_delivery_to_a_blocked_peer_ends_at_once(node: Node) -> None:
    await node.start()
    await node.warm()
    await (await blocklist(node)).block(peer_name(PEER), Direction.OUTBOUND)
    asked_before = [len(worker.asked) for worker in node.workers.values()]
    receipt = await node.deliver()
    assert (receipt.outcome, receipt.cause) == ("failed", Cause.BLOCKED)
    assert hops(receipt) == ALL_BLOCKED
    assert [len(worker.asked) for worker in node.workers.values()] == asked_before


async def test_blocking_withdraws_what_is_in_flight_and_unblocking_lets_it_go_on(node: Node) -> None:
    await node.start()
    await node.warm()
    worker = node.workers[WEBRTC]
    worker.behave = only_ack
    delivering = asyncio.create_task(node.deliver())
    await until(lambda: len(worker.asked) > 2)
    blocks = await blocklist(node)
    await blocks.block(peer_name(PEER), Direction.OUTBOUND)
    receipt = await delivering
    assert receipt.cause is Cause.BLOCKED
    assert hops(receipt)[0] == ("webrtc", "failed", "blocked")
    assert [outcome for _, outcome, _ in hops(receipt)[1:]] == ["skipped", "skipped"]
    await until(lambda: worker.cancelled == [receipt.delivery_id])
    await blocks.unblock(peer_name(PEER))
    worker.behave = answer
    assert hops(await node.deliver()) == [("webrtc", "confirmed", "")]


async def test_inbound_alone_stops_only_what_the_peer_asks(node: Node) -> None:
    await node.start()
    await node.warm()
    await start_chunk(node, "chunk-a")
    await (await blocklist(node)).block(peer_name(PEER), Direction.INBOUND)
    assert hops(await node.deliver()) == [("webrtc", "confirmed", "")]
    with pytest.raises(RemoteFailure) as failure:
        await ask(node)
    assert failure.value.cause is Cause.BLOCKED


async def test_a_blocked_peer_is_neither_dialled_nor_probed(node: Node) -> None:
    await node.start(linked=())
    await (await blocklist(node)).block(peer_name(PEER), Direction.OUTBOUND)
    await node.deliver()
    await asyncio.sleep(0.6)  # one look of the prober
    assert [worker.dialled for worker in node.workers.values()] == [0, 0, 0]


async def test_a_peer_that_asks_too_fast_hears_when_to_come_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MEMBER_BURST", 2.0)
    monkeypatch.setattr(intake, "MEMBER_REQUESTS_PER_S", 0.5)
    await node.start()
    await start_chunk(node, "chunk-a")
    await ask(node, "webrtc")
    await ask(node, "broadcast")
    with pytest.raises(RemoteFailure) as failure:
        await ask(node, "webtorrent")
    assert failure.value.cause is Cause.RATE_LIMITED
    assert 0 < failure.value.retry_after_s <= 2.0


async def test_more_open_than_a_peer_may_have_is_busy(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_OPEN_A_PEER", 2)
    await node.start()
    await start_chunk(node, "chunk-a")
    node.hub.freeze("chunk-a")
    asking = [asyncio.create_task(ask(node)) for _ in range(3)]
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert [task.exception().cause for task in done] == [Cause.BUSY]  # type: ignore[union-attr]
    node.hub.thaw("chunk-a")
    assert all(isinstance(one, InboundAnswer) for one in await asyncio.gather(*waiting))
    await ask(node)


@pytest.mark.parametrize("limit", ["MAX_DELIVERIES_A_PEER", "MAX_DELIVERIES"])
async def test_deliveries_to_one_peer_and_in_all_are_bounded(
    node: Node, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    await node.start()
    await node.warm()
    statuses = await heard_statuses(node)
    monkeypatch.setattr(runs, limit, 1)
    for worker in node.workers.values():
        worker.behave = only_ack  # all of them: a hedge must not end the first delivery for us
    first = asyncio.create_task(node.deliver(WAIT_S, b"1" * 16))
    await until(lambda: b"1" * 16 in node.workers[WEBRTC].asked)
    second = asyncio.create_task(node.deliver(WAIT_S, b"2" * 16))
    await until(lambda: statuses and statuses[-1].refused.get("busy", 0) > 1)  # its caller goes on asking
    assert not any(b"2" * 16 in worker.asked for worker in node.workers.values())
    for worker in node.workers.values():
        worker.behave = answer
    await node.caller.publish(SUBJECTS.manager("manager-1"), CancelDelivery(b"1" * 16))
    assert (await first).outcome == "cancelled"
    assert (await second).outcome == "confirmed"


async def test_busy_slows_the_caller_before_it_falls_back(node: Node) -> None:
    await node.start()
    await node.warm()
    worker = node.workers[WEBRTC]
    worker.refuse = RemoteFailure(Cause.BUSY, retry_after_s=0.02)
    delivering = asyncio.create_task(node.deliver())
    await until(lambda: node.slowed)
    worker.refuse = None
    assert hops(await delivering) == [("webrtc", "confirmed", "")]
    worker.refuse = RemoteFailure(Cause.RATE_LIMITED, retry_after_s=3.0)
    assert hops(await node.deliver()) == [("webrtc", "failed", "rate_limited"), ("webtorrent", "confirmed", "")]
    assert [one.retry_after_ms for one in node.slowed][:: len(node.slowed) - 1] == [20, 3000]
    assert all(isinstance(one, Slowed) for one in node.slowed)


async def test_a_manager_says_what_it_has_and_what_it_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.start()
    statuses = await heard_statuses(node)
    monkeypatch.setattr(runs, "MAX_DELIVERIES", 0)
    with pytest.raises(BusTimeout):
        await node.deliver(timeout_s=0.1)
    await until(lambda: statuses and statuses[-1].refused.get("busy", 0) > 0)
    assert (statuses[-1].manager, statuses[-1].deliveries) == ("manager-1", 0)
