"""Two managers and two chunk instances a node: killing one of them in the middle of a transfer loses nothing.

How fast that is depends on the machine, and is not asked here. A transfer must end, and until it does it must go on:
one that stands still for STALLED_S hangs, whatever the load.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.pair import Pair
from services.supervisor.machine.processes import Child
from shared.clock import monotonic
from shared.gateway_api.async_client import AsyncGatewayClient
from shared.gateway_api.structs import Transfer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

FILE_MIB = 24
KILL_AFTER_CHUNKS = 5
STALLED_S = 30.0
"""Without one more confirmed byte: several times what any loss may cost (a killed process is noticed within 0.5 s, a
delivery that nobody answers ends after 10 s)."""

POLL_S = 0.02
COUNTS = {"manager": 2, "chunk": 2}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    nodes = Pair(tmp_path_factory.mktemp("failover") / "pair", COUNTS)
    try:
        await nodes.start(find_binary())
        yield nodes
    finally:
        await nodes.clear()


async def ended(api: AsyncGatewayClient, transfer: str) -> Transfer:
    """Wait for a transfer's end, for as long as it goes on. Prints its longest pause."""
    moved_at, done_bytes, longest_s = monotonic(), -1, 0.0
    while (now := await api.transfer(transfer)).state == "running":
        if now.bytes_done != done_bytes:
            moved_at, done_bytes = monotonic(), now.bytes_done
        longest_s = max(longest_s, monotonic() - moved_at)
        assert longest_s < STALLED_S, f"it stands still at {done_bytes} bytes"
        await asyncio.sleep(POLL_S)
    assert now.state == "done", now.cause
    print(f"longest pause {longest_s:.2f} s")
    return now


async def confirmed_chunks(api: AsyncGatewayClient, transfer: str, count: int) -> None:
    """Wait until so many are confirmed. Fails where the transfer was over before we looked."""
    while len({one.delivery for one in await api.hops(transfer, 1000) if one.outcome == "confirmed"}) <= count:
        assert (await api.transfer(transfer)).state == "running"
        await asyncio.sleep(POLL_S)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("service", ["manager", "chunk"])
@pytest.mark.parametrize("side", ["getting", "giving"])
async def test_killing_an_instance_in_the_middle_of_a_transfer_loses_nothing(
    pair: Pair, tmp_path: Path, side: str, service: str, index: int
) -> None:
    """Put on A, get on B."""
    source, content = tmp_path / f"{side}-{service}-{index}.bin", os.urandom(FILE_MIB * 2**20)
    await asyncio.to_thread(source.write_bytes, content)
    put = await ended(pair.a.api, await pair.a.api.put(source, source.name))
    assert put.link
    transfer = await pair.b.api.fetch(put.link)
    victim: Child = (pair.b if side == "getting" else pair.a).processes(service)[index]
    await confirmed_chunks(pair.b.api, transfer, KILL_AFTER_CHUNKS)
    await victim.kill()
    got = await ended(pair.b.api, transfer)
    victim.start()
    assert got.manifest
    assert await pair.b.api.content_sha256(got.manifest) == hashlib.sha256(content).hexdigest()


async def test_each_service_runs_as_often_as_it_was_asked_for(pair: Pair) -> None:
    assert pair.process_counts() == {
        "nats-server": 1,
        "rendezvous": 1,
        "chunk": 4,
        "manager": 4,
        "webrtc": 2,
        "webtorrent": 2,
        "broadcast": 2,
        "gateway": 2,
    }
