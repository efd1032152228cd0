"""One node on a real nats-server: real managers, a fake worker a transport, callers, and what all of them did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.supervisor.machine.node import lay_out
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Ping, Pong, Receipt
from shared.bus.messages.records import HopRecord
from shared.bus.messages.subjects import STREAM_HOPS, Subjects
from shared.bus.nats import bus as nats_bus
from shared.content.messages import RequestManifest
from shared.errors import BusError
from shared.ids import member_token, peer_name, service_of
from shared.settings.config import FlagSettings
from shared.settings.flags import Flags
from shared.transports import ORDER, TransportName
from tests.chaos.caller import DEADLINE_S, Caller
from tests.chaos.managers import Manager, Managers
from tests.chaos.workers import FakeWorker
from tests.fakes.nats_server import nats_server

NODE = "chaos"
SUBJECTS = Subjects(NODE)
PEER = member_token(bytes(range(32)))
PEER_NAME = peer_name(PEER)
REQUEST = RequestManifest("00")
SERVES_WITHIN_S = 5.0
POLL_S = 0.01


@dataclass
class ChaosNode:
    """records: the hops stream as it grows, from its beginning. flags: of a process that is connected."""

    managers: Managers
    flags: Flags
    bus: Bus
    workers: dict[TransportName, FakeWorker] = field(default_factory=dict)
    callers: list[Caller] = field(default_factory=list)
    records: list[HopRecord] = field(default_factory=list)

    async def deliver(self, timeout_s: float = DEADLINE_S) -> Receipt:
        return await self.callers[0].deliver(PEER, REQUEST, timeout_s)

    async def deliver_many(self, count: int, window: int) -> list[Receipt]:
        """So many deliveries, `window` of them at a time, by all callers in turn."""
        numbers = iter(range(count))
        receipts: list[Receipt] = []

        async def keep_asking() -> None:
            for number in numbers:
                receipt = await self.callers[number % len(self.callers)].deliver(PEER, REQUEST)
                receipts.append(receipt)

        await asyncio.gather(*(keep_asking() for _ in range(window)))
        return receipts

    @property
    def confirmed_count(self) -> int:
        return sum(receipt.outcome == "confirmed" for caller in self.callers for receipt in caller.receipts.values())

    async def new_manager(self) -> Manager:
        """Start a manager and wait until it answers on its own subject."""
        manager = await self.managers.start()
        async with asyncio.timeout(SERVES_WITHIN_S):
            while not await self._answers(manager):
                await asyncio.sleep(POLL_S)
        return manager

    async def _answers(self, manager: Manager) -> bool:
        try:
            await self.bus.request(SUBJECTS.manager(manager.instance), Ping(), Pong, SERVES_WITHIN_S)
        except BusError:
            return False
        return True


@asynccontextmanager
async def chaos_node(directory: Path, *, managers: int, callers: int) -> AsyncIterator[tuple[ChaosNode, list[Manager]]]:
    """The node with its first managers; everything is ended at the end."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server(directory / "nats"))
        await lay_out(NODE, server.url, {})

        async def connected(instance: str) -> Bus:
            bus = await nats_bus.connect(server.url, instance, service=service_of(instance))
            stack.push_async_callback(bus.close)
            return bus

        watching = await connected("admin-1")
        flags = Flags(FlagSettings())
        await flags.start(watching)
        stack.push_async_callback(flags.close)
        processes = Managers(directory, NODE, server.url)
        stack.push_async_callback(processes.close)
        node = ChaosNode(processes, flags, watching)
        await watching.follow(STREAM_HOPS, HopRecord, lambda record, _: node.records.append(record))
        for transport in ORDER:
            worker = FakeWorker(await connected(f"{transport.value}-1"), SUBJECTS, transport, PEER)
            await worker.start()
            stack.push_async_callback(worker.close)
            node.workers[transport] = worker
        for number in range(callers):
            caller = Caller(await connected(f"chunk-{number + 1}"), SUBJECTS)
            await caller.start()
            stack.push_async_callback(caller.close)
            node.callers.append(caller)
        first = await asyncio.gather(*(node.new_manager() for _ in range(managers)))
        yield node, list(first)


def story(receipt: Receipt) -> list[tuple[str, str, str]]:
    return [(hop.transport, hop.outcome, hop.cause or "") for hop in receipt.hops]
