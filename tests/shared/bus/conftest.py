"""Two worlds to run the bus contract in: the fake in memory, and a real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from shared.bus.contract import Bus
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.layout import ensure_layout
from shared.bus.serving import BusCounts
from tests.fakes.memory_bus import MemoryBus, MemoryHub
from tests.fakes.nats_server import NatsServer, nats_server
from tests.fakes.waiting import until

NODE = "n1"


class CountingBus(Bus, Protocol):
    counts: BusCounts


class World(Protocol):
    async def bus(self, instance: str) -> CountingBus: ...
    async def kill(self, bus: CountingBus) -> None:
        """As SIGKILL of the bus's process."""

    async def interrupt(self, *buses: CountingBus) -> None:
        """Cut the buses off and let them come back; return when they have."""


class MemoryWorld:
    def __init__(self) -> None:
        self.hub = MemoryHub()

    async def bus(self, instance: str) -> MemoryBus:
        return self.hub.bus(instance)

    async def kill(self, bus: CountingBus) -> None:
        self.hub.kill(bus.instance)

    async def interrupt(self, *buses: CountingBus) -> None:
        for bus in buses:
            self.hub.disconnect(bus.instance)
        for bus in buses:
            self.hub.reconnect(bus.instance)


class NatsWorld:
    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.buses: list[NatsBus] = []

    async def bus(self, instance: str) -> NatsBus:
        bus = await nats_bus.connect(self.server.url, instance)
        self.buses.append(bus)
        return bus

    async def kill(self, bus: CountingBus) -> None:
        assert isinstance(bus, NatsBus)
        self.buses.remove(bus)
        await bus.connection.close()

    async def interrupt(self, *buses: CountingBus) -> None:
        before = [bus.counts.reconnects for bus in buses]
        await self.server.kill()
        await self.server.start()
        await until(lambda: all(bus.counts.reconnects > count for bus, count in zip(buses, before, strict=True)))

    async def interrupt_all(self) -> None:
        await self.interrupt(*self.buses)


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    async with nats_server(tmp_path / "nats") as server:
        nats = NatsWorld(server)
        admin = await nats.bus("admin")
        await ensure_layout(admin.connection, NODE)
        yield nats
        for bus in list(nats.buses):
            await bus.close()
