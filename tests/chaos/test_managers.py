"""N managers: one is killed or stopped in the middle of 1,000 deliveries, and a new one knows at once what they knew.

Managers are real processes on a real nats-server; workers and callers are small and remember
everything that they heard.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.bus.messages.envelopes import Receipt
from shared.clock import monotonic
from shared.errors import Cause
from shared.transports import TransportName
from tests.chaos.caller import DEADLINE_S
from tests.chaos.managers import Manager
from tests.chaos.node import ChaosNode, chaos_node, story
from tests.fakes.waiting import until

pytestmark = pytest.mark.e2e

DELIVERIES = 1_000
MIDDLE = 400
WINDOW = 200
"""Deliveries in flight at any moment: so many are with the victim when it dies, divided by the managers."""

STOPPED_S = 3.0
"""Long enough for its callers to have gone elsewhere, short enough that the server still routes to it."""
KNOWS_WITHIN_S = 1.0

FALLS_TO_BROADCAST = [
    ("broadcast", "confirmed", ""),
    ("webrtc", "failed", "refused"),
    ("webtorrent", "skipped", "disabled"),
]


@asynccontextmanager
async def in_the_middle(node: ChaosNode) -> AsyncIterator[None]:
    """1,000 deliveries; the block runs when MIDDLE of them have ended; then all of them are accounted for."""
    delivering = asyncio.create_task(node.deliver_many(DELIVERIES, WINDOW))
    try:
        await until(lambda: node.confirmed_count >= MIDDLE, 30.0)
        assert node.confirmed_count < DELIVERIES - WINDOW, "it was over too soon"
        yield
        async with asyncio.timeout(60.0):
            receipts = await delivering
    finally:
        delivering.cancel()
    account_for(node, receipts)


def account_for(node: ChaosNode, receipts: list[Receipt]) -> None:
    """Every delivery ended confirmed in time, its caller took one answer, the receiver handled each."""
    slowest_s = max(seconds for caller in node.callers for seconds in caller.elapsed_s.values())
    handled = sum((worker.log for worker in node.workers.values()), start=Counter[bytes]())
    again = sum(caller.calls.asked_again for caller in node.callers)
    late = sum(caller.calls.late for caller in node.callers)
    print(f"slowest {slowest_s * 1000:.0f} ms, {again} asked again, {late} late messages, {handled.total()} handled")
    assert len(receipts) == DELIVERIES
    assert {(receipt.outcome, receipt.cause) for receipt in receipts} == {("confirmed", None)}
    assert slowest_s < DEADLINE_S
    ids = {receipt.delivery_id for receipt in receipts}
    assert len(ids) == DELIVERIES
    assert handled.keys() >= ids, "the receivers' logs show each delivery"
    for caller in node.callers:
        assert set(caller.finals.values()) == {1}
        assert caller.taken.keys() == caller.receipts.keys()
    assert sum(len(caller.finals) for caller in node.callers) == DELIVERIES
    assert again > 0, "nobody was asked twice: the victim had nothing in flight"


@pytest.mark.parametrize("managers", [2, 4])
async def test_killing_a_manager_loses_no_delivery(tmp_path: Path, managers: int) -> None:
    async with chaos_node(tmp_path, managers=managers, callers=2) as (node, running), in_the_middle(node):
        await running[0].kill()


async def test_stopping_a_manager_loses_no_delivery(tmp_path: Path) -> None:
    """It never comes back: the server routes to it until it has missed the server's pings, for 4 to 6 s."""
    async with chaos_node(tmp_path, managers=2, callers=2) as (node, running), in_the_middle(node):
        running[0].freeze()


async def test_a_manager_that_was_stopped_and_goes_on_does_no_harm(tmp_path: Path) -> None:
    async with chaos_node(tmp_path, managers=3, callers=2) as (node, running):
        async with in_the_middle(node):
            running[0].freeze()
            await asyncio.sleep(STOPPED_S)  # what is measured here is a stop of this length
            running[0].thaw()
        left = {record.cause for record in node.records if record.manager == running[0].instance and record.cause}
        assert left <= {Cause.EXPIRED, Cause.SILENT}
        assert (await node.deliver()).outcome == "confirmed"


async def test_a_new_manager_knows_links_and_flags_within_a_second(tmp_path: Path) -> None:
    async with chaos_node(tmp_path, managers=2, callers=1) as (node, running):
        await node.deliver_many(20, 5)
        await node.flags.set(TransportName.WEBTORRENT, False)
        node.workers[TransportName.WEBRTC].fails_with = Cause.REFUSED
        receipt = await node.deliver()
        assert sorted(story(receipt)) == FALLS_TO_BROADCAST
        for manager in running:
            await manager.kill()
        dialled = sum(worker.dialled for worker in node.workers.values())
        fresh: Manager = await node.managers.start()
        receipt = await node.deliver()
        took_s = monotonic() - fresh.connected_at
        print(f"a new manager's first delivery was over {took_s * 1000:.0f} ms after it had connected")
        assert sorted(story(receipt)) == FALLS_TO_BROADCAST
        assert receipt.elapsed_ms < KNOWS_WITHIN_S * 1000
        assert took_s < KNOWS_WITHIN_S
        await until(lambda: sum(record.manager == fresh.instance for record in node.records) == len(receipt.hops))
        assert sum(worker.dialled for worker in node.workers.values()) == dialled, "it knew of links: no dial first"
