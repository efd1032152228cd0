"""The primary comes back: after its workers were killed, and after its circuit had opened. On real workers.

One pair of nodes, with two managers each; deliveries go on one after another all the time, so
that each transport change is one in what the hops stream says was confirmed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.node import Node
from services.supervisor.machine.pair import Pair
from shared.bus.messages.envelopes import Receipt
from shared.clock import monotonic
from shared.content.link import ContentLink
from shared.content.messages import RequestManifest
from shared.errors import Cause
from tests.chaos.watch import Watch, put, watching

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

COUNTS = {"manager": 2}
PRIMARY = "webrtc"
BACK_WITHIN_S = 10.0
STEADY_S = 3.0
"""How long the primary must then carry everything."""
START_WITHIN_S = 15.0
FALLS_WITHIN_S = 10.0
RECORDED_WITHIN_S = 5.0
PACE_S = 0.03
MEDIA_MIB = 6
READY = ("ready", "active")


@dataclass
class Stage:
    """The pair, and what node B's caller asks node A for."""

    pair: Pair
    watch: Watch
    link: ContentLink

    async def deliver(self) -> Receipt:
        receipt = await self.watch.caller.deliver(self.link.holders[0], RequestManifest(self.link.digest))
        assert receipt.outcome == "confirmed", receipt.cause
        return receipt

    def recorded(self, receipt: Receipt) -> bool:
        delivery = receipt.delivery_id.hex()
        return all((delivery, hop.number) in self.watch.stored_ms for hop in receipt.hops)


@dataclass
class Traffic:
    """Deliveries one after another. carried: the transport of each, in order; hedges that won are left out."""

    stage: Stage
    carried: list[str]
    hedged_count: int = 0

    async def run(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            receipt = await self.stage.deliver()
            winner = next(hop for hop in receipt.hops if hop.outcome == "confirmed")
            if winner.hedged:
                self.hedged_count += 1
            else:
                self.carried.append(winner.transport)
            # Managers judge a circuit by the stream: the next delivery is to find this one in it.
            await until(partial(self.stage.recorded, receipt), RECORDED_WITHIN_S)
            await asyncio.sleep(PACE_S)

    @property
    def changes(self) -> int:
        return sum(one != other for one, other in pairwise(self.carried))


@asynccontextmanager
async def traffic_on(stage: Stage) -> AsyncIterator[Traffic]:
    """While the block runs; then for STEADY_S, over which nothing must change again."""
    traffic, enough = Traffic(stage, []), asyncio.Event()
    running = asyncio.create_task(traffic.run(enough))
    try:
        yield traffic
        await asyncio.wait({running}, timeout=STEADY_S)
    finally:
        enough.set()
        await running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    base = tmp_path_factory.mktemp("return")
    pair = Pair(base / "pair", COUNTS)
    try:
        await pair.start(find_binary())
        link = await put(pair.a.api, base / "small.bin", os.urandom(1000))
        async with watching(pair.b) as watch:
            found = Stage(pair, watch, link)
            await carried_by(found, PRIMARY, START_WITHIN_S)
            yield found
    finally:
        await pair.clear()


async def carried_by(stage: Stage, transport: str, within_s: float) -> float:
    """Deliver until one is confirmed on the transport. Returns: how long that took, in seconds."""
    started_at = monotonic()
    async with asyncio.timeout(within_s):
        while not any(
            hop.transport == transport and hop.outcome == "confirmed" for hop in (await stage.deliver()).hops
        ):
            await asyncio.sleep(PACE_S)
    return monotonic() - started_at


async def primary_ready(node: Node) -> None:
    async with asyncio.timeout(START_WITHIN_S):
        while (row := (await node.api.transports())[PRIMARY]).state not in READY or not row.workers:
            await asyncio.sleep(PACE_S)


async def until(condition: Callable[[], object], within_s: float) -> float:
    """Returns: how long it took, in seconds."""
    started_at = monotonic()
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(PACE_S / 3)
    return monotonic() - started_at


async def fetched(stage: Stage, base: Path, name: str) -> dict[str, int]:
    """A real transfer from A to B. Returns: confirmed bytes by transport."""
    link = await put(stage.pair.a.api, base / name, os.urandom(MEDIA_MIB * 2**20))
    transfer = await stage.pair.b.api.fetch(f"swarmbridge:{link.digest}?h={link.holders[0]}")
    async with asyncio.timeout(30.0):
        while (now := await stage.pair.b.api.transfer(transfer)).state == "running":
            await asyncio.sleep(PACE_S)
    assert now.state == "done", now.cause
    return now.by_transport


async def test_the_primary_is_back_after_it_was_killed(stage: Stage, tmp_path: Path) -> None:
    nodes = (stage.pair.a, stage.pair.b)
    async with traffic_on(stage) as traffic:
        await until(lambda: len(traffic.carried) >= 20, FALLS_WITHIN_S)
        await asyncio.gather(*(node.kill(PRIMARY) for node in nodes))
        await until(lambda: traffic.carried[-1] == "webtorrent", FALLS_WITHIN_S)
        without = await fetched(stage, tmp_path, "without.bin")
        for node in nodes:
            node.revive(PRIMARY)
        await asyncio.gather(*(primary_ready(node) for node in nodes))
        back_s = await until(lambda: traffic.carried[-1] == PRIMARY, BACK_WITHIN_S)
        after = await fetched(stage, tmp_path, "after.bin")
    print(
        f"back {back_s:.2f} s after its workers were ready; {len(traffic.carried)} deliveries, "
        f"{traffic.changes} changes, {traffic.hedged_count} won by a hedge; transfers {without} and {after}"
    )
    assert PRIMARY not in without
    assert PRIMARY in after
    assert traffic.changes == 2


async def test_an_open_circuit_demotes_the_primary_until_it_works_again(stage: Stage) -> None:
    """A's worker is stopped: it is silent on links that are open."""
    worker = stage.pair.a.processes(PRIMARY)[0].pid
    assert worker is not None
    await carried_by(stage, PRIMARY, BACK_WITHIN_S)
    before = len(stage.watch.records)

    def skippers() -> set[str]:
        return {record.manager for record in stage.watch.records[before:] if record.cause is Cause.CIRCUIT_OPEN}

    async with traffic_on(stage) as traffic:
        os.kill(worker, signal.SIGSTOP)
        try:
            demoted_s = await until(lambda: len(skippers()) == COUNTS["manager"], FALLS_WITHIN_S)
            carried = len(traffic.carried)
        finally:
            os.kill(worker, signal.SIGCONT)
        back_s = await until(lambda: PRIMARY in traffic.carried[carried:], BACK_WITHIN_S)
        returned = len(traffic.carried)
    print(
        f"both managers went round it after {demoted_s:.2f} s; back {back_s:.2f} s after it went on; "
        f"{len(traffic.carried)} deliveries, {traffic.changes} changes, {traffic.hedged_count} won by a hedge"
    )
    assert traffic.carried[returned:].count(PRIMARY) == len(traffic.carried) - returned
