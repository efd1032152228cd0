"""The flag and a real worker process: webtorrent on a real nats-server, seen from outside."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.chunk.identity import Identity
from shared.bus.messages.envelopes import Certify
from shared.bus.messages.records import WorkerStatus
from shared.bus.messages.subjects import Subjects
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.layout import ensure_layout
from shared.settings.chaos import ChaosFlag
from shared.settings.config import FlagSettings, child_environment
from shared.settings.flags import Flags
from shared.transports import TransportName
from tests.fakes.nats_server import nats_server
from tests.fakes.ports import free_port
from tests.fakes.waiting import POLL_S, until

WEBTORRENT = TransportName.WEBTORRENT
START_TIMEOUT_S = 20.0
NO_PEER = b"\x99" * 700
"""No handshake and no encryption that we know: turned away and counted."""


@dataclass
class Worker:
    """A webtorrent worker process. status: its last heartbeat."""

    bus: NatsBus
    url: str
    subjects: Subjects
    port: int
    home: Path
    status: WorkerStatus | None = None

    @property
    def chaos(self) -> dict[str, int]:
        return self.status.chaos if self.status is not None else {}

    async def hear(self) -> None:
        identity = Identity(bytes(range(32)))
        await self.bus.serve(self.subjects.certify, Certify, identity.certify)
        await self.bus.serve(self.subjects.event("status"), WorkerStatus, self._heard)

    async def _heard(self, status: WorkerStatus, incoming: object) -> None:
        self.status = status

    @asynccontextmanager
    async def running(self, **settings: str) -> AsyncIterator[None]:
        """The process, killed at the end. settings: of its environment."""
        self.status = None
        own = {
            "SWARMBRIDGE_NODE_ID": self.subjects.node,
            "SWARMBRIDGE_NODE_HOME": str(self.home),
            "SWARMBRIDGE_BUS_URL": self.url,
            "SWARMBRIDGE_WEBTORRENT_PORT": str(self.port),
            "SWARMBRIDGE_WEBTORRENT_DHT": "false",
            "SWARMBRIDGE_WEBTORRENT_TRACKERS": "false",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.webtorrent", env=child_environment({**own, **settings})
        )
        try:
            await until(lambda: self.status is not None, START_TIMEOUT_S)
            yield
        finally:
            process.kill()
            await process.wait()

    async def be(self, *, enabled: bool) -> WorkerStatus:
        """Wait until it says that it is on, or off."""
        await until(
            lambda: (
                self.status is not None
                and self.status.enabled is enabled
                and (self.status.state == "idle") is not enabled
            )
        )
        assert self.status is not None
        return self.status

    async def listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.transport.abort()
        return True

    async def up(self) -> None:
        """Wait until it is on and listens."""
        await self.be(enabled=True)
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await self.listens():
                await asyncio.sleep(POLL_S)

    async def be_a_stranger(self) -> None:
        """Connect, be turned away, and wait until it says that it turned somebody away."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(NO_PEER)
        await asyncio.wait_for(reader.read(), START_TIMEOUT_S)
        writer.transport.abort()
        await until(lambda: self.status is not None and self.status.refused.get("refused") == 1)


@asynccontextmanager
async def worker_machine(folder: Path, *, webtorrent: bool) -> AsyncIterator[tuple[Worker, Flags]]:
    async with nats_server(folder / "nats") as server:
        bus = await nats_bus.connect(server.url, "test-1")
        await ensure_layout(bus.connection, "n1")
        worker = Worker(bus, server.url, Subjects("n1"), free_port(), folder)
        await worker.hear()
        yield worker, Flags(FlagSettings(webtorrent=webtorrent))
        await bus.close()


async def test_off_tears_the_adapter_down_and_resets_its_counters_and_on_brings_it_back(tmp_path: Path) -> None:
    async with worker_machine(tmp_path, webtorrent=True) as (worker, flags), worker.running():
        await worker.up()
        await flags.start(worker.bus)
        await worker.be_a_stranger()
        await flags.set_chaos(WEBTORRENT, ChaosFlag(drop=5))
        await until(lambda: worker.chaos == {"ignored": 1})

        await flags.set(WEBTORRENT, False)
        off = await worker.be(enabled=False)
        assert (off.refused, off.last_error, off.peers, off.bytes_in) == ({}, None, [], 0)
        assert not await worker.listens()

        await flags.set(WEBTORRENT, True)
        await worker.up()
        assert (await worker.be(enabled=True)).refused == {}


async def test_the_feature_variable_starts_it_switched_off_until_somebody_switches_it_on(tmp_path: Path) -> None:
    async with worker_machine(tmp_path, webtorrent=False) as (worker, flags):
        async with worker.running(FEATURE_WEBTORRENT="false"):
            await worker.be(enabled=False)
            assert not await worker.listens()
            await flags.start(worker.bus)
            await flags.set(WEBTORRENT, True)
            await worker.up()
        async with worker.running(VITE_FEATURE_WEBTORRENT="0"):
            await worker.up()
