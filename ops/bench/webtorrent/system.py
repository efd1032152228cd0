"""A file through the whole system: two whole nodes, `get` over WebTorrent alone, from store to store."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ops.bench.start import tree
from ops.bench.webtorrent.ends import TRANSFER_LIMIT_S, LegFailed, Taken, cpu_s
from services.supervisor.machine.interrupts import unbroken
from services.supervisor.machine.node import Node
from services.supervisor.machine.pair import Pair
from shared.transports import TransportName

OTHERS = ("webrtcTransport", "broadcastTransport")
"""Flags that are off, so that nothing but WebTorrent carries."""
MIB = 2**20
POLL_S = 0.01


class System:
    """Two nodes that know each other. Made by `running_system`."""

    def __init__(self, pair: Pair, work: Path) -> None:
        self._pair = pair
        self._work = work

    async def start(self, nats_binary: Path) -> None:
        """Raises: CannotStart; LegFailed."""
        await self._pair.start(nats_binary)
        for node in (self._pair.a, self._pair.b):
            for flag in OTHERS:
                await node.api.set_flag(flag, False)
        await self.fetch(MIB)  # so that they are linked

    async def fetch(self, size_bytes: int) -> Taken:
        """Put a fresh file on A, then get it on B; the get alone counts. Raises: LegFailed."""
        source = self._work / "file"
        await asyncio.to_thread(_write_random, source, size_bytes)
        link = await _ended(self._pair.a, await self._pair.a.api.put(source, source.name))
        pids = [pid for pid in tree(os.getpid()) if pid != os.getpid()]
        before_s, started_s = cpu_s(pids), time.perf_counter()
        transfer_id = await self._pair.b.api.fetch(link)
        first_byte_s = await self._first_byte(transfer_id, started_s)
        await _ended(self._pair.b, transfer_id)
        seconds = time.perf_counter() - started_s
        used_s = cpu_s(pids) - before_s
        found = await self._pair.b.api.transfer(transfer_id)
        if set(found.by_transport) != {TransportName.WEBTORRENT.value}:
            raise LegFailed(f"not over WebTorrent alone: {found.by_transport}")
        source.unlink()
        return Taken(size_bytes, first_byte_s, seconds, used_s)

    async def _first_byte(self, transfer_id: str, started_s: float) -> float:
        """When its first chunk is stored: smaller steps are not shown."""
        while True:
            transfer = await self._pair.b.api.transfer(transfer_id)
            if transfer.bytes_done or transfer.state != "running":
                return time.perf_counter() - started_s
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def running_system(work: Path, nats_binary: Path) -> AsyncIterator[System]:
    """Everything is ended and removed at the end. Raises: CannotStart; LegFailed."""
    pair = Pair(work / "pair")
    try:
        system = System(pair, work)
        await system.start(nats_binary)
        yield system
    finally:
        await unbroken(pair.clear())


async def _ended(node: Node, transfer_id: str) -> str:
    async with asyncio.timeout(TRANSFER_LIMIT_S):
        while True:
            transfer = await node.api.transfer(transfer_id)
            if transfer.state == "failed":
                raise LegFailed(f"the whole system: {transfer.cause or 'other'}")
            if transfer.state == "done":
                return transfer.link
            await asyncio.sleep(POLL_S)


def _write_random(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size_bytes, MIB):
            file.write(os.urandom(min(MIB, size_bytes - start)))
