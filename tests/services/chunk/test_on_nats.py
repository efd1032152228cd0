"""Put and get over a real nats-server: KV keys, bodies, calls."""

from __future__ import annotations

import os
from pathlib import Path

from shared.bus.contract import Bus
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.layout import ensure_layout
from tests.fakes.nats_server import NatsServer, nats_server
from tests.services.chunk.nodes import Caller, ChunkInstance, FakeManager, FarNode
from tests.services.chunk.test_put_fetch import files, read_back

NAMES = ("chunk-1", "gateway-1", "manager-1", "webrtc-member")


class NatsBuses:
    """The processes of one node on one server."""

    def __init__(self, buses: dict[str, Bus]) -> None:
        self._buses = buses

    def bus(self, instance: str) -> Bus:
        return self._buses[instance]

    @classmethod
    async def connect(cls, server: NatsServer) -> NatsBuses:
        admin = await nats_bus.connect(server.url, "admin")
        await ensure_layout(admin.connection, "node")
        await admin.close()
        return cls({name: await nats_bus.connect(server.url, name) for name in NAMES})

    async def close(self) -> None:
        for bus in self._buses.values():
            await bus.close()


async def test_put_and_get_between_two_nodes(tmp_path: Path) -> None:
    data = os.urandom(2**20 + 77)
    async with nats_server(tmp_path / "nats-a") as server_a, nats_server(tmp_path / "nats-b") as server_b:
        buses_a, buses_b = await NatsBuses.connect(server_a), await NatsBuses.connect(server_b)
        a = await ChunkInstance(buses_a, tmp_path / "a", "chunk-1").start()
        b = await ChunkInstance(buses_b, tmp_path / "b", "chunk-1").start()
        caller_a, caller_b = await Caller(buses_a).start(), await Caller(buses_b).start()
        manager = await FakeManager(buses_b, FarNode(buses_a).forward).start()

        put = await caller_a.put(data)
        assert put.state == "done"
        got = await caller_b.fetch(put.link)
        assert (got.state, got.by_transport) == ("done", {"webrtc": len(data) + 32})
        assert await read_back(caller_b, put.manifest, 2) == data
        [status] = (await files(caller_b)).files
        assert (await files(caller_b, status.file_id)).files == [status]

        for part in (manager, caller_a, caller_b, a, b, buses_a, buses_b):
            await part.close()
