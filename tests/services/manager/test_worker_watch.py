"""Pings of workers: few, and soon enough when one is killed or stopped. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from services.manager.worker_watch import FIRST_PING_S, LAST_PING_S, LOOK_INTERVAL_S, MAX_MISSES, PING_TIMEOUT_S
from shared.bus import calls
from shared.bus.messages.envelopes import LinkProgress, Receipt, SendRequest
from tests.fakes.virtual_time import run_virtual
from tests.services.manager.node import FakeWorker, Node, answer, hops, stay_silent
from tests.services.manager.rig import BROADCAST, WEBRTC, WEBTORRENT

LASTS_S = 3.0


async def report_progress(worker: FakeWorker, call: SendRequest) -> None:
    """A body that arrives steadily, and then the answer."""
    for count in range(round(LASTS_S / 0.05)):
        await worker.tell(call.manager, LinkProgress(call.request_id, call.hop, count))
        await asyncio.sleep(0.05)
    await answer(worker, call)


async def answer_late(worker: FakeWorker, call: SendRequest) -> None:
    await asyncio.sleep(LASTS_S)
    await answer(worker, call)


async def started() -> tuple[Node, FakeWorker]:
    """A node whose only transport is webrtc, and whose peer cannot ack: a slow answer is waited for."""
    node = Node(asyncio.get_running_loop().time)
    await node.start(linked=(WEBRTC,))
    for transport in (WEBTORRENT, BROADCAST):
        await node.flags.set(transport, False)
    await node.warm()
    node.workers[WEBRTC].acks = False
    node.workers[WEBRTC].pinged = 0
    return node, node.workers[WEBRTC]


def pings_of(behave: Callable[[FakeWorker, SendRequest], object], deliveries: int) -> int:
    async def main() -> int:
        node, worker = await started()
        worker.behave = behave  # type: ignore[assignment]
        receipts = await asyncio.gather(*(node.deliver(30.0) for _ in range(deliveries)))
        assert {receipt.outcome for receipt in receipts} == {"confirmed"}
        await node.close()
        return worker.pinged

    return run_virtual(main, [calls])


@pytest.mark.parametrize("deliveries", [1, 50])
def test_a_worker_that_reports_progress_is_not_pinged(deliveries: int) -> None:
    assert pings_of(report_progress, deliveries) <= 2


@pytest.mark.parametrize("deliveries", [1, 50])
def test_one_that_waits_for_a_slow_peer_is_pinged_four_times_a_second(deliveries: int) -> None:
    assert 2 <= pings_of(answer_late, deliveries) <= LASTS_S / LAST_PING_S + 3


def test_one_that_holds_nothing_of_ours_is_not_pinged() -> None:
    async def main() -> int:
        node, worker = await started()
        await asyncio.sleep(LASTS_S)
        await node.close()
        return worker.pinged

    assert run_virtual(main, [calls]) == 0


@pytest.mark.parametrize(
    ("waited_s", "noticed_s"),
    [(0.0, FIRST_PING_S + 2 * LOOK_INTERVAL_S), (2.0, LAST_PING_S + 2 * LOOK_INTERVAL_S)],
)
def test_a_killed_worker_is_noticed(waited_s: float, noticed_s: float) -> None:
    receipt, lost_s = loss(waited_s, lambda node, name: node.hub.kill(name))
    assert ("webrtc", "failed", "worker_lost") in hops(receipt)
    assert lost_s <= noticed_s


def test_a_stopped_worker_is_noticed() -> None:
    receipt, lost_s = loss(2.0, lambda node, name: node.hub.freeze(name))
    assert ("webrtc", "failed", "worker_lost") in hops(receipt)
    assert lost_s <= MAX_MISSES * LAST_PING_S + PING_TIMEOUT_S + 2 * LOOK_INTERVAL_S


def loss(waited_s: float, harm: Callable[[Node, str], None]) -> tuple[Receipt, float]:
    """How the delivery ended whose worker was harmed, and how long after that its hop did."""

    async def main() -> tuple[Receipt, float]:
        node, worker = await started()
        loop = asyncio.get_running_loop()
        worker.behave = stay_silent
        delivering = loop.create_task(node.deliver(30.0))
        while not worker.asked or worker.asked[-1] in node.answers:
            await asyncio.sleep(0.001)
        await asyncio.sleep(waited_s)
        harmed_at = loop.time()
        harm(node, worker.bus.instance)
        while not any(record.cause == "worker_lost" for record in node.records):
            await asyncio.sleep(0.001)
        lost_s = loop.time() - harmed_at
        receipt = await delivering
        await node.close()
        return receipt, lost_s

    return run_virtual(main, [calls])
