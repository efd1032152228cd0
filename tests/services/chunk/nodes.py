"""Chunk instances on buses in memory, a manager that carries deliveries between two nodes, and a caller."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from services.chunk.app import ChunkService
from shared.bus.bodies import BodyHolder, pull, release
from shared.bus.calls import Calls
from shared.bus.chunk_api import FetchFile, PutFile
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import (
    Answered,
    BodyRef,
    CancelDelivery,
    Deliver,
    Done,
    Inbound,
    InboundAnswer,
    ManagerMessage,
    Ping,
    Pong,
    Receipt,
    ReplyMessage,
    Stamp,
    Taken,
    TransferUpdate,
    Verdict,
)
from shared.bus.messages.subjects import QUEUE_MANAGER, Subjects
from shared.content.link import parse_link
from shared.errors import Cause
from shared.ids import PeerToken
from shared.settings.config import ChunkSettings, Config, NodeSettings
from shared.tasks.owned import Tasks

SUBJECTS = Subjects("node")
BUS_TIMEOUT_S = 5.0
Forward = Callable[[Deliver], Awaitable[tuple[InboundAnswer, bytes]]]


class Buses(Protocol):
    """One account: a bus for each process. `MemoryHub` is one."""

    def bus(self, instance: str) -> Bus: ...


class ChunkInstance:
    """One chunk process of a node; several may share a hub and a home."""

    def __init__(self, hub: Buses, home: Path, name: str, settings: ChunkSettings | None = None) -> None:
        self.bus = hub.bus(name)
        self.tasks = Tasks()
        config = Config(node=NodeSettings(home=str(home)), chunk=settings or ChunkSettings())
        self.service = ChunkService(self.bus, SUBJECTS, config, self.tasks)

    @property
    def token(self) -> PeerToken:
        return self.service.identity.token

    async def start(self) -> ChunkInstance:
        await self.service.start()
        return self

    async def close(self) -> None:
        await self.service.close()
        await self.tasks.close()


class Caller:
    """What a gateway does: holds a source, calls, keeps the updates."""

    def __init__(self, hub: Buses, name: str = "gateway-1") -> None:
        self.bus = hub.bus(name)
        self.bodies = BodyHolder(self.bus, SUBJECTS, max_total_bytes=64 * 2**20)
        self.calls = Calls(self.bus, SUBJECTS, SUBJECTS.chunk_instance)
        self.updates: list[TransferUpdate] = []
        self.events: list[TransferUpdate] = []

    async def start(self) -> Caller:
        await self.bodies.start()
        await self.calls.start()
        await self.bus.serve(SUBJECTS.event("transfer"), TransferUpdate, self._event)
        return self

    async def close(self) -> None:
        await self.calls.close()
        await self.bodies.close()

    async def put(
        self, data: bytes, name: str = "f.bin", content_class: str = "shared", *, again: bool = False
    ) -> TransferUpdate:
        call_id = os.urandom(16)
        body = PutFile(call_id, self.bus.instance, self.bodies.hold(data, "chunk"), name, "a/b", content_class, again)
        return await self._call("put", call_id, body)

    async def fetch(self, link: str, holders: list[str] | None = None, call_id: bytes = b"") -> TransferUpdate:
        call_id = call_id or os.urandom(16)
        parsed = parse_link(link)
        body = FetchFile(
            call_id, self.bus.instance, parsed.digest, list(parsed.holders) if holders is None else holders
        )
        return await self._call("fetch", call_id, body)

    async def fetch_named(self, manifest: str, holders: list[str]) -> TransferUpdate:
        call_id = os.urandom(16)
        return await self._call("fetch", call_id, FetchFile(call_id, self.bus.instance, manifest, holders))

    async def _call(self, subject: str, call_id: bytes, body: msgspec.Struct) -> TransferUpdate:
        final = await self.calls.call(SUBJECTS.chunk(subject), call_id, body, 30.0, self._update)
        assert isinstance(final, TransferUpdate)
        return final

    async def _update(self, message: ReplyMessage) -> bool:
        assert isinstance(message, TransferUpdate)
        self.updates.append(message)
        return message.state != "running"

    async def _event(self, update: TransferUpdate, incoming: Incoming) -> None:
        self.events.append(update)


class FakeManager:
    """Takes deliveries on one node's bus and carries each to `forward`; answers as a manager and worker do."""

    def __init__(self, hub: Buses, forward: Forward, name: str = "manager-1") -> None:
        self.bus = hub.bus(name)
        self.bodies = BodyHolder(self.bus, SUBJECTS, max_total_bytes=64 * 2**20)
        self.forward = forward
        self.transport = "webrtc"
        self.delivered: list[Deliver] = []
        self.verdicts: list[Verdict] = []
        self.tasks = Tasks()
        self._waiting: dict[bytes, asyncio.Future[Verdict]] = {}

    async def start(self) -> FakeManager:
        await self.bodies.start()
        await self.bus.serve(SUBJECTS.manager(self.bus.instance), ManagerMessage, self._message)
        await self.bus.serve(SUBJECTS.deliver, Deliver, self._deliver, queue=QUEUE_MANAGER)
        return self

    async def close(self) -> None:
        await self.tasks.close()
        await self.bodies.close()

    async def _message(self, message: ManagerMessage, incoming: Incoming) -> Pong | Done:
        if isinstance(message, Ping):
            return Pong([call for call in message.calls if call not in self._waiting])
        if isinstance(message, Verdict):
            self.verdicts.append(message)
            waiting = self._waiting.get(message.delivery_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        assert not isinstance(message, CancelDelivery)
        return Done()

    async def _deliver(self, deliver: Deliver, incoming: Incoming) -> Taken:
        self.delivered.append(deliver)
        if deliver.delivery_id not in self._waiting:
            self._waiting[deliver.delivery_id] = asyncio.get_running_loop().create_future()
            self.tasks.start(self._carry(deliver), name="carry")
        return Taken(self.bus.instance)

    async def _carry(self, deliver: Deliver) -> None:
        waiting = self._waiting[deliver.delivery_id]
        reply = SUBJECTS.reply(deliver.reply_to)
        answer, body = await self.forward(deliver)
        ref: BodyRef | None = self.bodies.hold(body, "chunk") if answer.body is not None else None
        await self.bus.request(
            reply,
            Answered(deliver.delivery_id, self.bus.instance, 0, self.transport, answer.answer, ref),
            Done,
            BUS_TIMEOUT_S,
        )
        verdict = await waiting
        del self._waiting[deliver.delivery_id]
        outcome = "confirmed" if verdict.cause is None else "failed"
        await self.bus.request(
            reply, Receipt(deliver.delivery_id, outcome, verdict.cause, [], 1.0), Done, BUS_TIMEOUT_S
        )


class FarNode:
    """The other node as a manager reaches it: asks its chunk service as a worker of the given role would."""

    def __init__(self, hub: Buses, role: str = "member", peer: str = "gme") -> None:
        self.bus = hub.bus(f"webrtc-{role}")
        self.role = role
        self.peer = peer

    async def ask(self, request: object) -> tuple[InboundAnswer, bytes]:
        stamp = Stamp("webrtc", self.role, self.peer, "link")
        inbound = Inbound(stamp, os.urandom(16), request)  # type: ignore[arg-type]
        answer = await self.bus.request(SUBJECTS.chunk_message, inbound, InboundAnswer, BUS_TIMEOUT_S)
        if answer.body is None:
            return answer, b""
        body = await pull(self.bus, SUBJECTS, answer.body, timeout_s=BUS_TIMEOUT_S)
        await release(self.bus, SUBJECTS, answer.body)
        return answer, body

    async def forward(self, deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        return await self.ask(deliver.request)


def cause_of(update: TransferUpdate) -> Cause | None:
    assert update.state == "failed", update
    return update.cause


def stored_files(home: Path) -> list[Path]:
    """The chunks and manifests in a node's store, as files."""
    return sorted(path for path in (home / "store").rglob("*") if path.is_file() and path.parent.name != "p")
