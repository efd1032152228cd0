"""Two webtorrent workers a node, nothing else switched on: links spread over them, and a transfer outlives a kill and
a drain.

How fast that is depends on the machine, and is not asked here: as in test_failover, a transfer that stands still for
STALLED_S hangs.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.node import Node
from services.supervisor.machine.pair import Pair
from services.supervisor.machine.processes import Child
from shared.content.link import format_link
from shared.gateway_api import calls
from shared.gateway_api.structs import Transfer, WorkerView
from shared.settings.flags import FLAG_NAMES
from shared.transports import TransportName
from tests.chaos.watch import put
from tests.e2e.test_failover import ended

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

WORKERS = 2
FILE_MIB = 40
DELAY_MS = 40
"""Before each request: else a fast machine has everything before the second worker is chosen."""
BYTES_BETWEEN = 4 * 2**20
"""Confirmed before the kill, and again before the drain."""
WITHIN_S = 40.0
POLL_S = 0.05
WIRE = TransportName.WEBTORRENT.value


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("wires") / "pair"
    nodes = Pair(folder, {WIRE: WORKERS}, environment="development")
    try:
        await nodes.start(find_binary())
        for node in (nodes.a, nodes.b):
            for transport in (TransportName.WEBRTC, TransportName.BROADCAST):
                await node.api.set_flag(FLAG_NAMES[transport], False)
        yield nodes
    finally:
        await nodes.clear()


async def workers(node: Node) -> list[WorkerView]:
    return (await node.api.transports())[WIRE].instances


async def all_linked(node: Node) -> list[WorkerView]:
    """Wait until each worker of the node has a link. Returns: what they say then."""
    found: list[WorkerView] = []
    try:
        async with asyncio.timeout(WITHIN_S):
            while not (len(found) == WORKERS and all(each.peers for each in found)):
                await asyncio.sleep(POLL_S)
                found = await workers(node)
    except TimeoutError:
        pytest.fail(f"not every worker of {node.name} is linked: {found}")
    return found


async def moved(node: Node, transfer: str, more_than: int) -> Transfer:
    """Wait until so many bytes are confirmed. Fails where the transfer has ended."""
    async with asyncio.timeout(WITHIN_S):
        while (now := await node.api.transfer(transfer)).bytes_done <= more_than:
            assert now.state == "running", now
            await asyncio.sleep(POLL_S)
    assert now.state == "running", "it was over before anything was done to it"
    return now


def process_of(node: Node, worker: str) -> Child:
    """The process that calls itself so."""
    (child,) = (each for each in node.processes(WIRE) if worker in each.program.log.read_text())
    return child


async def busiest(node: Node) -> Child:
    """The worker that has received the most; a status comes every second."""
    found = await workers(node)
    return process_of(node, max(found, key=lambda each: each.received_bytes).id)


async def end(child: Child, number: signal.Signals) -> None:
    """Signal a process; its supervisor starts it again."""
    assert child.pid is not None
    starts = child.start_count
    os.kill(child.pid, number)
    async with asyncio.timeout(WITHIN_S):
        while child.start_count == starts:
            await asyncio.sleep(POLL_S)


async def test_each_worker_is_a_wire_peer_and_links_are_spread_over_them(pair: Pair) -> None:
    """Each has its own wire, and a port of its own for the DHT, without which the second would be deaf there."""
    for node in (pair.a, pair.b):
        for worker in await all_linked(node):
            assert worker.measures["wires_tcp"] >= 1, worker
        async with asyncio.timeout(WITHIN_S):
            while not all(each.measures.get("dht_nodes", 0) > 0 for each in await workers(node)):
                await asyncio.sleep(POLL_S)


async def test_a_transfer_goes_on_through_a_kill_and_a_drain(pair: Pair, tmp_path: Path) -> None:
    content = os.urandom(FILE_MIB * 2**20)
    link = await put(pair.a.api, tmp_path / "wires.bin", content)
    await all_linked(pair.a)
    await all_linked(pair.b)
    await pair.b.api.ask(calls.set_chaos(WIRE, {"delayMs": DELAY_MS}))
    transfer = await pair.b.api.fetch(format_link(link))
    begun = await moved(pair.b, transfer, BYTES_BETWEEN)
    killed = await busiest(pair.b)
    await end(killed, signal.SIGKILL)
    halfway = await moved(pair.b, transfer, begun.bytes_done + BYTES_BETWEEN)
    (drained,) = (each for each in pair.b.processes(WIRE) if each is not killed)
    await end(drained, signal.SIGTERM)
    await moved(pair.b, transfer, halfway.bytes_done)
    got = await ended(pair.b.api, transfer)
    assert set(got.by_transport) == {WIRE}
    assert await pair.b.api.content_sha256(got.manifest) == hashlib.sha256(content).hexdigest()
    for number, child in (("SIGKILL", killed), ("SIGTERM", drained)):
        print(f"{child.program.name} ended by {number}, went on as start {child.start_count}")
    # Who came back is a peer again.
    await all_linked(pair.b)
