"""The worker as it runs: its own processes, a real nats-server, the project's own rendezvous."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from services.chunk.identity import Identity
from services.webrtc.lease import LEASE_KEY, LeaseRecord
from shared.bus.messages.envelopes import Certify, PeerjsTokenRequest
from shared.bus.messages.records import WorkerStatus
from shared.bus.messages.subjects import BUCKET_LEASES, Subjects
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.layout import ensure_layout
from shared.clock import monotonic
from shared.ids import peerjs_id, token_key
from shared.settings.config import child_environment
from shared.settings.rendezvous import PeerServer
from shared.transport.contract import PeerHint
from tests.fakes.nats_server import nats_server
from tests.fakes.waiting import until
from tests.services.webrtc.node import Node

REPLACED_WITHIN_S = 3.0
START_TIMEOUT_S = 20.0


@dataclass
class Machine:
    """One node's webrtc workers as processes, with the chunk service's two words about identity in this one."""

    folder: Path
    bus: NatsBus
    server: PeerServer
    settings: dict[str, str]
    subjects: Subjects = field(default_factory=lambda: Subjects("n1"))
    identity: Identity = field(default_factory=lambda: Identity(bytes(range(32))))
    workers: list[asyncio.subprocess.Process] = field(default_factory=list)
    statuses: dict[str, WorkerStatus] = field(default_factory=dict)
    pids: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def hint(self) -> PeerHint:
        key = token_key(self.identity.token)
        assert key is not None
        return PeerHint(key, peerjs_id(key))

    async def start(self) -> None:
        await self.bus.serve(self.subjects.certify, Certify, self.identity.certify)
        await self.bus.serve(self.subjects.peerjs_token, PeerjsTokenRequest, self.identity.peerjs_token)
        await self.bus.serve(self.subjects.event("status"), WorkerStatus, self._status)
        for _ in range(2):
            self.workers.append(await start_process("services.webrtc", self.settings))
        await until(lambda: self.ready_count() == 2, START_TIMEOUT_S)

    def ready_count(self) -> int:
        return sum(status.state == "ready" for status in self.statuses.values())

    async def _status(self, status: WorkerStatus, incoming: object) -> None:
        self.statuses[status.worker] = status

    async def lease(self) -> LeaseRecord | None:
        entry = await (await self.bus.kv(BUCKET_LEASES)).get(LEASE_KEY)
        return None if entry is None or entry.value is None else msgspec.json.decode(entry.value, type=LeaseRecord)

    async def open_holder(self, other_than: str = "") -> str:
        """The holder once its socket is open."""
        while True:
            record = await self.lease()
            if record is not None and record.open and record.holder not in ("", other_than):
                return record.holder
            await asyncio.sleep(0.01)


async def start_process(module: str, settings: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env=child_environment(settings), stderr=asyncio.subprocess.PIPE
    )


async def end(process: asyncio.subprocess.Process, number: signal.Signals = signal.SIGTERM) -> None:
    if process.returncode is None:
        process.send_signal(number)
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    rendezvous = await start_process("services.rendezvous", {"SWARMBRIDGE_NODE_HOME": str(tmp_path / "meet")})
    address = tmp_path / "meet" / "rendezvous.json"
    await until(address.exists, START_TIMEOUT_S)
    server = PeerServer(json.loads(address.read_text())["url"] + "/")
    document = tmp_path / "document.json"
    document.write_text(json.dumps({"peerServers": [{"url": server.url}]}))
    async with nats_server(tmp_path / "nats") as nats:
        bus = await nats_bus.connect(nats.url, "test-1")
        await ensure_layout(bus.connection, "n1")
        settings = {
            "SWARMBRIDGE_NODE_ID": "n1",
            "SWARMBRIDGE_NODE_HOME": str(tmp_path),
            "SWARMBRIDGE_BUS_URL": nats.url,
            "SWARMBRIDGE_RENDEZVOUS_DOCUMENT": str(document),
            "SWARMBRIDGE_WEBRTC_HOST": "127.0.0.1",
        }
        machine = Machine(tmp_path, bus, server, settings)
        await machine.start()
        yield machine
        await asyncio.gather(*(end(worker) for worker in machine.workers))
        await bus.close()
    await end(rendezvous)


async def holder_process(machine: Machine, holder: str) -> asyncio.subprocess.Process:
    """The process whose first log line names that instance."""
    for worker in machine.workers:
        assert worker.stderr is not None
        async with asyncio.timeout(5):
            while "started" not in (line := (await worker.stderr.readline()).decode()):
                pass
        if holder in line:
            return worker
    raise AssertionError("no such worker")


async def test_a_holder_killed_with_sigkill_is_replaced_in_time_and_the_node_can_be_dialled(machine: Machine) -> None:
    holder = await machine.open_holder()
    process = await holder_process(machine, holder)
    os.kill(process.pid, signal.SIGKILL)
    killed_at = monotonic()
    async with asyncio.timeout(REPLACED_WITHIN_S):
        await machine.open_holder(other_than=holder)
    assert monotonic() - killed_at < REPLACED_WITHIN_S
    dialer = await Node("dialer", machine.folder, [machine.server]).start()
    await until(lambda: dialer.worker.state is not None and dialer.worker.state.state == "ready")
    await dialer.worker.transport.dial(machine.hint, 5)
    await until(lambda: dialer.worker.ups)
    await dialer.stop()


async def test_a_worker_asked_to_stop_hands_over_and_ends_well(machine: Machine) -> None:
    holder = await machine.open_holder()
    process = await holder_process(machine, holder)
    process.terminate()
    async with asyncio.timeout(REPLACED_WITHIN_S):
        await machine.open_holder(other_than=holder)
    assert await asyncio.wait_for(process.wait(), 10) == 0
