"""Two managers and two chunk instances a node: killing one of them in the middle of a transfer loses nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.node import Node
from services.supervisor.machine.pair import Pair
from services.supervisor.machine.processes import Child
from shared.gateway_api.async_client import AsyncGatewayClient
from shared.gateway_api.structs import Transfer

pytestmark = pytest.mark.e2e

FILE_MIB = 24
KILL_AFTER_CHUNKS = 5
DEADLINE_S = 40.0
COUNTS = {"manager": 2, "chunk": 2}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    nodes = Pair(tmp_path / "pair", COUNTS)
    try:
        await nodes.start(find_binary())
        yield nodes
    finally:
        await nodes.clear()


async def ended(api: AsyncGatewayClient, transfer: str) -> Transfer:
    """Wait for a transfer's end."""
    async with asyncio.timeout(DEADLINE_S):
        while (now := await api.transfer(transfer)).state == "running":
            await asyncio.sleep(0.02)
    assert now.state == "done", now.cause
    return now


async def moved_while_killing(pair: Pair, source: Path, victims: list[tuple[Node, str, int]]) -> None:
    """Put on A, get on B; each victim is killed and started again in the middle of a transfer of its own."""
    for number, (node, service, index) in enumerate(victims):
        content = os.urandom(FILE_MIB * 2**20)
        await asyncio.to_thread(source.write_bytes, content)
        put = await ended(pair.a.api, await pair.a.api.put(source, f"{number}.bin"))
        assert put.link
        transfer = await pair.b.api.fetch(put.link)
        victim: Child = node.processes(service)[index]
        await confirmed_chunks(pair.b.api, transfer, KILL_AFTER_CHUNKS)
        await victim.kill()
        got = await ended(pair.b.api, transfer)
        victim.start()
        assert got.manifest
        assert await pair.b.api.content_sha256(got.manifest) == hashlib.sha256(content).hexdigest()


async def confirmed_chunks(api: AsyncGatewayClient, transfer: str, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            now = await api.transfer(transfer)
            attempts = await api.attempts(transfer, 1000)
            if len({one.delivery for one in attempts if one.outcome == "confirmed"}) > count:
                assert now.state == "running", "it was over too soon"
                return
            await asyncio.sleep(0.01)


async def test_killing_a_manager_or_a_chunk_instance_loses_nothing(pair: Pair, tmp_path: Path) -> None:
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
    everyone = [
        (node, service, index) for node in (pair.b, pair.a) for service in ("manager", "chunk") for index in (0, 1)
    ]
    await moved_while_killing(pair, tmp_path / "source.bin", everyone)
