"""Workers of one node as they run: processes of their own on a real nats-server, with ports that are set."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.chunk.identity import Identity
from services.supervisor.machine.node import wire_ports
from services.webtorrent.transport import WebtorrentTransport
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Accepted, Certify, Dial, Dialled, Inbound, InboundAnswer, SendRequest
from shared.bus.messages.records import LinkChanged, WorkerStatus
from shared.bus.messages.subjects import QUEUE_MANAGER, Subjects
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.layout import ensure_layout
from shared.content.messages import NotFound, RequestChunk
from shared.errors import Cause, SwarmbridgeError
from shared.settings.config import ENV_PREFIX, WebtorrentSettings, child_environment
from tests.fakes.nats_server import nats_server
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.services.webtorrent.raw_peer import PROTOCOL, handshake
from tests.services.webtorrent.swarm_parts import config, tracker_server, write_document
from tests.services.webtorrent.test_trackers import json_peer

WITHIN_S = 40.0
HOST = "127.0.0.1"
WIRE = "webtorrent"
PORT_TRIES = 20


@dataclass
class Workers:
    """A node's bus, with what chunk and manager answer in this process, and its webtorrent workers as processes."""

    bus: NatsBus
    settings: dict[str, str]
    identity: Identity
    subjects: Subjects = field(default_factory=lambda: Subjects("n1"))
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    statuses: dict[str, WorkerStatus] = field(default_factory=dict)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        await self.bus.serve(self.subjects.certify, Certify, self.identity.certify)
        await self.bus.serve(self.subjects.event("status"), WorkerStatus, self._status)
        await self.bus.serve(self.subjects.inbound(WIRE), Inbound, self._inbound, queue=QUEUE_MANAGER)

    async def _status(self, status: WorkerStatus, incoming: Incoming) -> None:
        self.statuses[status.worker] = status

    async def _inbound(self, call: Inbound, incoming: Incoming) -> InboundAnswer:
        assert isinstance(call.request, RequestChunk)
        self.asked.set()
        await self.may_answer.wait()
        return InboundAnswer(NotFound(call.request.ref), None)

    async def start_one(self, more: dict[str, str]) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.webtorrent"), env=child_environment({**self.settings, **more})
        )
        self.processes.append(process)
        return process

    async def start(self, port: int, count: int) -> None:
        """As a node's supervisor starts so many; each listens before this returns."""
        configured = {f"{ENV_PREFIX}WEBTORRENT_PORT": str(port)}
        for number in range(1, count + 1):
            await self.start_one({**configured, **wire_ports(WebtorrentSettings(port=port), number)})
        for number in range(count):
            await peer_id_at(port + number)


@asynccontextmanager
async def node(folder: Path, **webtorrent: str) -> AsyncIterator[Workers]:
    async with nats_server(folder / "nats") as nats:
        bus = await nats_bus.connect(nats.url, "test-1")
        await ensure_layout(bus.connection, "n1")
        settings = {
            "NODE_ID": "n1",
            "NODE_HOME": str(folder),
            "BUS_URL": nats.url,
            "WEBTORRENT_HOST": HOST,
            "WEBTORRENT_DHT": "no",
            "WEBTORRENT_TRACKERS": "no",
            **webtorrent,
        }
        named = {f"{ENV_PREFIX}{name}": value for name, value in settings.items()}
        workers = Workers(bus, named, Identity(bytes(range(32))))
        try:
            await workers.serve()
            yield workers
        finally:
            workers.may_answer.set()
            await asyncio.gather(*(end(process) for process in workers.processes))
            await bus.close()


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


async def peer_id_at(port: int) -> bytes:
    """Wait until a worker listens there. Returns: its wire peer id."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(handshake())
                ours = await reader.readexactly(68)
            except (OSError, asyncio.IncompleteReadError):  # nobody yet, or the wire before this one is still there
                await asyncio.sleep(0.05)
                continue
            writer.transport.abort()
            assert ours.startswith(PROTOCOL)
            return ours[48:]


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody had a moment ago."""
    for _ in range(PORT_TRIES):
        first = free_port(HOST)
        try:
            for number in range(1, count):
                with_port(first + number)
        except (OSError, OverflowError):
            continue
        return first
    raise AssertionError("no ports in a row are free")


def with_port(port: int) -> None:
    """Raises: OSError: somebody has it."""
    with socket.socket() as probe:
        probe.bind((HOST, port))


async def test_each_process_is_a_peer_on_the_next_port_and_says_the_address_that_is_set(tmp_path: Path) -> None:
    port, advertised = free_ports(3), "127.0.0.9"
    wanted = {f"{advertised}:{port + number}" for number in range(3)}
    async with tracker_server() as tracker, json_peer(tracker) as peer:
        document = write_document(tmp_path / "document.json", trackers=[tracker.url])
        await peer.announce()
        more = {"WEBTORRENT_TRACKERS": "yes", "RENDEZVOUS_DOCUMENT": str(document)}
        async with node(tmp_path, WEBTORRENT_ADVERTISE=advertised, **more) as workers:
            await workers.start(port, 3)
            assert len({await peer_id_at(port + number) for number in range(3)}) == 3
            said: set[str] = set()
            async with asyncio.timeout(WITHIN_S):
                while said != wanted:
                    said.update((await peer.receive("offer"))["offer"]["swarm-space"]["wire"])
                    assert said <= wanted


async def test_of_two_that_no_supervisor_gave_ports_the_second_waits_for_the_place_of_the_first(tmp_path: Path) -> None:
    port = free_ports(1)
    async with node(tmp_path, WEBTORRENT_PORT=str(port)) as workers:
        first = await workers.start_one({})
        before = await peer_id_at(port)
        second = await workers.start_one({})
        await until(lambda: errors(workers) == [Cause.REFUSED], WITHIN_S)
        assert second.returncode is None, "it says why, and stays"
        assert await peer_id_at(port) == before
        first.kill()
        await first.wait()
        assert await peer_id_at(port) != before
        await until(lambda: not errors(workers), WITHIN_S)


def errors(workers: Workers) -> list[Cause | None]:
    return [each.last_error for each in workers.statuses.values() if each.state == "error"]


@pytest.fixture
async def remote() -> AsyncIterator[WorkerNode]:
    """Another node's worker, in this process."""
    one = WorkerNode(b"\x01" * 32)
    await one.start(WebtorrentTransport(config()))
    await until(lambda: one.status, WITHIN_S)
    yield one
    await one.stop()


class Changes:
    """Links of the remote worker as it publishes them."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Cause | None]] = []

    async def add(self, event: LinkChanged, incoming: Incoming) -> None:
        self.all.append((event.change, event.cause))

    def count(self, change: str) -> int:
        return sum(each == change for each, _ in self.all)


async def dial(remote: WorkerNode, workers: Workers, port: int) -> None:
    call = Dial(workers.identity.token, endpoints=[f"{HOST}:{port}"])
    await remote.caller.request(remote.subjects.dial(WIRE), call, Dialled, timeout_s=10.0)


async def test_a_peer_opens_another_link_before_the_drained_one_closes(tmp_path: Path, remote: WorkerNode) -> None:
    """What is in flight ends on the old one; nothing is lost, and at no time is the peer without a link."""
    port, changes = free_ports(2), Changes()
    await remote.caller.serve(remote.subjects.event("link"), LinkChanged, changes.add)
    async with node(tmp_path) as workers:
        await workers.start(port, 2)
        drained = workers.processes[0]
        await dial(remote, workers, port)
        link = remote.subjects.link(WIRE, workers.identity.token)
        call = SendRequest(b"r" * 16, "manager-1", 1, RequestChunk("a-chunk"))
        await remote.caller.request(link, call, Accepted, timeout_s=10.0)
        await asyncio.wait_for(workers.asked.wait(), WITHIN_S)
        drained.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S):
            while changes.count("opened") < 2:  # until its goodbye is here a dial finds the old link
                await dial(remote, workers, port + 1)
        assert changes.all == [("opened", None)] * 2, "the old link is there still"
        workers.may_answer.set()
        await until(lambda: [answer.answer for answer in remote.answers] == [NotFound("a-chunk")], WITHIN_S)
        assert await asyncio.wait_for(drained.wait(), WITHIN_S) == 0
        await until(lambda: changes.count("closed") == 1, WITHIN_S)
        assert not remote.failures
        again = SendRequest(b"s" * 16, "manager-1", 1, RequestChunk("another"))
        await remote.caller.request(link, again, Accepted, timeout_s=10.0)
        await until(lambda: len(remote.answers) == 2, WITHIN_S)


async def test_a_killed_process_takes_its_own_links_only(tmp_path: Path, remote: WorkerNode) -> None:
    port, changes = free_ports(2), Changes()
    await remote.caller.serve(remote.subjects.event("link"), LinkChanged, changes.add)
    async with node(tmp_path) as workers:
        workers.may_answer.set()
        await workers.start(port, 2)
        await dial(remote, workers, port)
        workers.processes[0].kill()
        await until(lambda: changes.count("closed") == 1, WITHIN_S)
        with pytest.raises(SwarmbridgeError):
            await dial(remote, workers, port)
        await dial(remote, workers, port + 1)
        link = remote.subjects.link(WIRE, workers.identity.token)
        call = SendRequest(b"r" * 16, "manager-1", 1, RequestChunk("a-chunk"))
        await remote.caller.request(link, call, Accepted, timeout_s=10.0)
        await until(lambda: len(remote.answers) == 1, WITHIN_S)
