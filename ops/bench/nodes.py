"""The stage of the real thing: two whole nodes, real transports, one real nats-server, and a caller beside B.

A holds the files. B asks through its manager, which can be replaced by a ladder. Faults are signals to processes
that this stage started itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ops.bench.caller import Caller, Order
from ops.bench.policies import Policy
from services.supervisor.machine.interrupts import unbroken
from services.supervisor.machine.node import Node
from services.supervisor.machine.pair import Pair
from services.supervisor.machine.processes import Child
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.conversations import ADMIN
from shared.bus.messages.envelopes import Dial, Dialled
from shared.bus.messages.records import WorkerStatus
from shared.bus.messages.subjects import Subjects
from shared.bus.nats import bus as nats_bus
from shared.clock import monotonic
from shared.content.chunks import verify_chunk
from shared.content.link import parse_link
from shared.content.manifest import Manifest, parse_manifest, verify_manifest
from shared.content.messages import ChunkData, ManifestData, PeerAnswer, RequestChunk, RequestManifest
from shared.errors import BusError, Cause, RemoteProtocolError
from shared.ids import new_instance_id
from shared.transports import ORDER

SMALL_BYTES = 64 * 1024
"""A chunk whose transfer takes next to nothing, so that what is measured is the reaction."""
LARGE_BYTES = 2**20
"""swarm-space's chunk: long enough on the way to be killed in the middle of."""
RECOVERY_LIMIT_S = 30.0
"""A killed worker is back, signalled, dialled and linked well within this."""
DIAL_TIMEOUT_S = 6.0
POLL_S = 0.05
TRANSFER_LIMIT_S = 30.0
HEALTHY_IN_A_ROW = 12
"""Deliveries over the first transport before the next fault: more good ones than a fault's bad ones, so that the
manager's error budget (half of the last 20) stays in credit and each fault meets a closed circuit."""
PRIMARY = ORDER[0].value
SECOND = ORDER[1].value


class BenchFailed(Exception):
    """The stage could not be brought into the state that a measurement needs."""


class _BenchPair(Pair):
    """The supervisor's two nodes, and their rendezvous within reach."""

    @property
    def rendezvous(self) -> Child:
        return next(child for child in self._children if child.program.name == "rendezvous")


class Nodes:
    """Both nodes. small, large: what to ask for. Made by `running_nodes`."""

    def __init__(self, pair: _BenchPair, bus: Bus) -> None:
        self._pair = pair
        self._bus = bus
        self._subjects = Subjects(pair.b.name)
        self.caller = Caller(bus, self._subjects)
        self._peer = ""
        self._heard: dict[str, set[str]] = {}
        self._frozen: set[Child] = set()
        self.small: Order
        self.large: Order

    async def start(self, sources: Path) -> None:
        """Put the files on A and learn their manifests over the nodes' own links."""
        await self.caller.start()
        await self._bus.serve(self._subjects.event("status"), WorkerStatus, self._status)
        self._peer = (await self._pair.a.api.node()).peer
        self.small = await self._order(sources / "small.bin", SMALL_BYTES)
        self.large = await self._order(sources / "large.bin", LARGE_BYTES)

    async def close(self) -> None:
        for child in list(self._frozen):
            self.thaw(child)
        await self.caller.close()
        await self._bus.close()

    # ── who decides ──

    async def use(self, policy: Policy) -> None:
        """Have B's deliveries decided by this policy's process."""
        (manager,) = self._pair.b.processes("manager")
        await manager.kill()
        manager.program = dataclasses.replace(manager.program, arguments=policy.command())
        manager.start()
        await self.all_linked()

    # ── the healthy state ──

    async def all_linked(self) -> None:
        """Every transport of B has a link to A, and a delivery takes the first one. Raises: BenchFailed."""
        for transport in ORDER:
            await self.link(transport.value)
        deadline = monotonic() + RECOVERY_LIMIT_S
        in_a_row = 0
        while in_a_row < HEALTHY_IN_A_ROW:
            sample = await self.caller.deliver(self.small)
            in_a_row = in_a_row + 1 if sample.confirmed and sample.on_primary else 0
            if monotonic() > deadline:
                raise BenchFailed(f"{PRIMARY} did not carry again within {RECOVERY_LIMIT_S:.0f} s")
            if not in_a_row:
                await asyncio.sleep(POLL_S)

    async def link(self, transport: str) -> None:
        """Have a link over `transport`, dialling as often as it takes. Raises: BenchFailed."""
        deadline = monotonic() + RECOVERY_LIMIT_S
        while True:
            try:
                await self._bus.request(self._subjects.dial(transport), Dial(self._peer), Dialled, DIAL_TIMEOUT_S)
            except BusError as error:
                if monotonic() > deadline:
                    raise BenchFailed(f"no {transport} link: {error.cause.value}") from None
                await asyncio.sleep(POLL_S)
            else:
                return

    # ── faults ──

    def worker(self, transport: str) -> Child:
        """B's worker, the caller's side."""
        return self._pair.b.processes(transport)[0]

    def far_worker(self, transport: str) -> Child:
        """A's worker, the peer's side."""
        return self._pair.a.processes(transport)[0]

    @property
    def rendezvous(self) -> Child:
        return self._pair.rendezvous

    def freeze(self, child: Child) -> None:
        """SIGSTOP; thawed at the end whatever happens."""
        self._frozen.add(child)
        _signal(child, signal.SIGSTOP)

    def thaw(self, child: Child) -> None:
        self._frozen.discard(child)
        _signal(child, signal.SIGCONT)

    async def restart(self, *transports: str) -> None:
        """Kill B's workers of these transports and wait until new ones have reported: up, and without links."""
        self._heard.clear()
        workers = [self.worker(transport) for transport in transports]
        await asyncio.gather(*(worker.kill() for worker in workers))
        before = {transport: set(self._heard.get(transport, ())) for transport in transports}
        for worker in workers:
            worker.start()
        deadline = monotonic() + RECOVERY_LIMIT_S
        while any(not self._heard.get(transport, set()) - before[transport] for transport in transports):
            if monotonic() > deadline:
                raise BenchFailed("a restarted worker did not report")
            await asyncio.sleep(POLL_S)

    # ── within ──

    async def _status(self, status: WorkerStatus, incoming: Incoming) -> None:
        if status.state != "idle":
            self._heard.setdefault(status.transport, set()).add(status.worker)

    async def _order(self, source: Path, size: int) -> Order:
        await asyncio.to_thread(source.write_bytes, os.urandom(size))
        link = parse_link(await self._put(self._pair.a, source))
        found: list[Manifest] = []

        def keep(answer: PeerAnswer, body: bytes) -> None:
            if not isinstance(answer, ManifestData):
                raise RemoteProtocolError("no manifest", Cause.INTEGRITY_MISMATCH)
            manifest = parse_manifest(body)
            verify_manifest(manifest, link.digest)
            found.append(manifest)

        sample = await self.caller.deliver(Order(self._peer, RequestManifest(link.digest), keep))
        if not found:
            raise BenchFailed(f"the manifest did not come (after {sample.elapsed_ms:.0f} ms)")
        manifest, ref = found[0], found[0].chunks[0]

        def check(answer: PeerAnswer, body: bytes) -> None:
            if not isinstance(answer, ChunkData):
                raise RemoteProtocolError("no chunk", Cause.INTEGRITY_MISMATCH)
            verify_chunk(answer, body, manifest, ref)

        return Order(self._peer, RequestChunk(ref), check)

    async def _put(self, node: Node, source: Path) -> str:
        transfer = await node.api.put(source, source.name)
        async with asyncio.timeout(TRANSFER_LIMIT_S):
            while (now := await node.api.transfer(transfer)).state == "running":  # noqa: ASYNC110 - known over HTTP
                await asyncio.sleep(POLL_S)
        if not now.link:
            raise BenchFailed("A did not take the file")
        return now.link


def _signal(child: Child, number: signal.Signals) -> None:
    """By the id of a child that has not been reaped: no other process can have it."""
    if child.pid is not None:
        os.kill(child.pid, number)


@asynccontextmanager
async def running_nodes(work: Path, binary: Path) -> AsyncIterator[Nodes]:
    """Both nodes in `work`, with their files in place; everything is ended and removed at the end."""
    pair = _BenchPair(work / "pair")
    nodes: Nodes | None = None
    try:
        await pair.start(binary)
        url, seed_file = pair.admin[pair.b.name]
        bus = await nats_bus.connect(
            url,
            new_instance_id("chunk"),
            seed=seed_file.read_text().strip(),
            service=ADMIN,
        )
        nodes = Nodes(pair, bus)
        await nodes.start(work)
        await nodes.all_linked()
        yield nodes
    finally:
        if nodes is not None:
            await unbroken(nodes.close())
        await unbroken(pair.clear())
