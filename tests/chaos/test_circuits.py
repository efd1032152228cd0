"""Circuits on real managers: both agree on an open one, a new one knows it, and the transport comes back once.

Issue 4, line 3. The failures are a fake worker's; what is told of them goes through the real attempts stream.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from services.manager.breaker import FAILURES_TO_OPEN
from shared.clock import monotonic
from shared.errors import Cause
from shared.transport.names import TransportName
from tests.chaos.node import ChaosNode, chaos_node, story
from tests.fakes.waiting import until

pytestmark = pytest.mark.e2e

WEBRTC = TransportName.WEBRTC
BACK_WITHIN_S = 10.0
STEADY_S = 1.5
AROUND = [("webrtc", "skipped", "circuit_open"), ("webtorrent", "confirmed", "")]


async def open_circuit(node: ChaosNode) -> None:
    """Failures one after another: at the same time they would be one incident."""
    node.workers[WEBRTC].fails_with = Cause.REFUSED
    for _ in range(FAILURES_TO_OPEN):
        receipt = await node.deliver()
        assert story(receipt) == [("webrtc", "failed", "refused"), ("webtorrent", "confirmed", "")]
        await recorded(node, receipt.delivery_id)


async def recorded(node: ChaosNode, delivery_id: bytes) -> None:
    """The stream holds the delivery, so that every manager has heard of it (all follow it as we do)."""
    delivery = delivery_id.hex()
    await until(lambda: any(record.delivery == delivery and record.outcome == "confirmed" for record in node.records))


async def test_managers_agree_on_a_circuit_and_a_new_one_knows_it(tmp_path: Path) -> None:
    async with chaos_node(tmp_path, managers=2, askers=1) as (node, running):
        await node.deliver_many(20, 5)
        await open_circuit(node)
        receipts = await node.deliver_many(20, 1)
        assert [story(receipt) for receipt in receipts] == [AROUND] * len(receipts)
        await until(lambda: skipping(node) == {manager.instance for manager in running})
        fresh = await node.new_manager()
        for manager in running:
            await manager.kill()
        assert story(await node.deliver()) == AROUND
        await until(lambda: fresh.instance in skipping(node))


async def test_a_demoted_transport_comes_back_once(tmp_path: Path) -> None:
    async with chaos_node(tmp_path, managers=2, askers=1) as (node, _):
        await node.deliver_many(20, 5)
        await open_circuit(node)
        node.workers[WEBRTC].fails_with = None
        recovered_at = monotonic()
        carried: list[str] = []
        back_at = 0.0
        async with asyncio.timeout(BACK_WITHIN_S + STEADY_S + 5.0):
            while not back_at or monotonic() < back_at + STEADY_S:
                receipt = await node.deliver()
                carried.append(receipt.hops[-1].transport)
                if carried[-1] == "webrtc" and not back_at:
                    back_at = monotonic()
                await asyncio.sleep(0.01)  # the pace of the asker
        print(f"back after {back_at - recovered_at:.2f} s; {len(carried)} deliveries, {changes(carried)} changes")
        assert back_at - recovered_at < BACK_WITHIN_S
        assert changes(carried) == 1


def skipping(node: ChaosNode) -> set[str]:
    """The managers that went round the open circuit."""
    return {record.manager for record in node.records if record.cause is Cause.CIRCUIT_OPEN}


def changes(carried: list[str]) -> int:
    return sum(one != other for one, other in pairwise(carried))
