"""One node around one transport worker, on the bus in memory: what `serve_transport` needs and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.bus.bodies import BodyHolder
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import (
    Certificate,
    Certify,
    Dial,
    Dialled,
    Done,
    Inbound,
    InboundAnswer,
    LinkAnswer,
    LinkFailed,
    LinkProgress,
    ManagerMessage,
    PeerAnnounced,
    Ping,
    Pong,
)
from shared.bus.messages.records import WorkerStatus
from shared.bus.messages.subjects import QUEUE_CHUNK, QUEUE_MANAGER, Subjects
from shared.content.messages import ChunkData, NotFound, RequestChunk
from shared.ids import PeerToken, guest_token, member_token, peerjs_id
from shared.process.run import Process
from shared.settings.blocklist import Blocklist
from shared.settings.config import Config, NodeSettings, TelemetrySettings, TrustSettings
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from shared.transport.contract import Transport
from shared.transports import TransportName
from shared.wire.sealed.certificate import sign_certificate
from shared.worker.serve import serve_transport
from tests.fakes.json_speech import TEST_SPEECHES
from tests.fakes.memory_bus import MemoryBus, MemoryHub

CERTIFICATE_S = 24 * 3600


@dataclass
class WorkerNode:
    """`start` serves a transport. `said` is what its manager heard, `asked` what its chunk service was."""

    seed: bytes
    members: list[str] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    propagation: str = "join"
    environment: str = "production"
    clock_off_s: int = 0
    """How far its clock is ahead of ours, as its certificates show it."""
    sealed: bool = True
    """False: peers know it as a guest, by its PeerJS id."""

    def __post_init__(self) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        self.token: PeerToken = member_token(self.key) if self.sealed else guest_token(peerjs_id(self.key))
        self.hub = MemoryHub()
        self.subjects = Subjects("node")
        self.caller: MemoryBus = self.hub.bus("manager-1")
        self.puller: MemoryBus = self.hub.bus("chunk-puller")
        self.said: list[ManagerMessage] = []
        self.asked: list[Inbound] = []
        self.status: WorkerStatus | None = None
        self.announced: list[PeerAnnounced] = []
        self.holders: list[BodyHolder] = []
        self.crashed: list[str] = []
        self.serving: asyncio.Task[None] | None = None

    async def start(self, transport: Transport, *, chunk_instances: int = 1) -> None:
        bus = self.hub.bus("worker-1")
        await self._start_manager()
        for number in range(chunk_instances):
            await self._start_chunk(f"chunk-{number}")
        config = Config(
            node=NodeSettings(environment=self.environment),
            trust=TrustSettings(members=self.members),
            telemetry=TelemetrySettings(propagation=self.propagation),
        )
        self.flags = Flags(config.flags)
        await self.flags.start(bus)
        self.blocklist = Blocklist()
        await self.blocklist.start(bus)
        name = transport.name.value
        self.process = Process(
            name, bus.instance, config, bus, None, self.subjects, self.flags, self.blocklist, Tasks(self._crash)
        )
        self.serving = asyncio.create_task(serve_transport(self.process, transport, speeches=TEST_SPEECHES))

    def _crash(self, task: str) -> None:
        self.crashed.append(task)
        self.process.stopping.set()

    async def stop(self) -> None:
        if self.serving is not None:
            self.process.stopping.set()
            await self.serving
            await self.process.tasks.close()
            await self.flags.close()

    async def dial(
        self, peer: PeerToken, transport: str = TransportName.WEBRTC.value, timeout_s: float = 5.0
    ) -> Dialled:
        return await self.caller.request(self.subjects.dial(transport), Dial(peer), Dialled, timeout_s=timeout_s)

    @property
    def answers(self) -> list[LinkAnswer]:
        return [message for message in self.said if isinstance(message, LinkAnswer)]

    @property
    def failures(self) -> list[LinkFailed]:
        return [message for message in self.said if isinstance(message, LinkFailed)]

    @property
    def progress(self) -> list[LinkProgress]:
        return [message for message in self.said if isinstance(message, LinkProgress)]

    async def _start_manager(self) -> None:
        async def message(call: ManagerMessage, incoming: Incoming) -> Pong | Done:
            if isinstance(call, Ping):
                return Pong()
            self.said.append(call)
            return Done()

        async def inbound(call: Inbound, incoming: Incoming) -> InboundAnswer:
            return await self.caller.request(self.subjects.chunk_message, call, InboundAnswer, timeout_s=5.0)

        async def announced(event: PeerAnnounced, incoming: Incoming) -> None:
            self.announced.append(event)

        async def status(event: WorkerStatus, incoming: Incoming) -> None:
            self.status = event

        await self.caller.serve(self.subjects.manager(self.caller.instance), ManagerMessage, message)
        await self.caller.serve(self.subjects.event("status"), WorkerStatus, status)
        await self.caller.serve(self.subjects.announced("*"), PeerAnnounced, announced)
        for transport in TransportName:
            await self.caller.serve(self.subjects.inbound(transport), Inbound, inbound, queue=QUEUE_MANAGER)

    async def _start_chunk(self, instance: str) -> None:
        bus = self.hub.bus(instance)
        holder = BodyHolder(bus, self.subjects, max_total_bytes=64 * 2**20)
        await holder.start()
        self.holders.append(holder)

        async def certify(call: Certify, incoming: Incoming) -> Certificate:
            not_after_s = int(time.time()) + self.clock_off_s + CERTIFICATE_S
            signed = sign_certificate(self.seed, call.static_key, not_after_s)
            return Certificate(signed.identity_key, signed.not_after_s, signed.signature)

        async def message(call: Inbound, incoming: Incoming) -> InboundAnswer:
            self.asked.append(call)
            assert isinstance(call.request, RequestChunk)
            body = self.bodies.get(call.request.ref)
            if body is None:
                return InboundAnswer(NotFound(call.request.ref), None)
            header = ChunkData(call.request.ref, 0, 1, len(body) - 16, bytes(12), "text/plain", "x")
            return InboundAnswer(header, holder.hold(body, "worker"))

        await bus.serve(self.subjects.certify, Certify, certify, queue=QUEUE_CHUNK)
        await bus.serve(self.subjects.chunk_message, Inbound, message, queue=QUEUE_CHUNK)


Condition = Callable[[], object]
