"""Nodes of webrtc workers on in-memory buses, with what `serve_transport` and the chunk service do for them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path

from services.webrtc.transport import Timing, WebrtcTransport
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import (
    Done,
    PeerjsToken,
    PeerjsTokenRequest,
    Ping,
    Pong,
    SignalMessage,
    WorkerCommand,
)
from shared.bus.messages.subjects import Subjects
from shared.ids import LinkId, peerjs_id
from shared.rtc import available
from shared.rtc.contract import LinkFactory
from shared.settings.config import WebrtcSettings
from shared.settings.rendezvous import PeerServer
from shared.settings.rendezvous_follower import DocumentFollower
from shared.speech.contract import SEALED_NATIVE
from shared.transport.contract import LinkDown, LinkUp, PeerHint, RecordReceived, StateChanged, TransportEvent
from tests.fakes.memory_bus import MemoryHub

QUICK = Timing(lease_ttl_s=2.0, watch_every_s=0.1, signalling_grace_s=0.5)


class Worker:
    """One webrtc worker process, as far as the transport can tell."""

    def __init__(
        self, node: Node, instance: str, load: Callable[[], LinkFactory], speeches: Collection[str] = (SEALED_NATIVE,)
    ) -> None:
        self.node = node
        self.bus = node.hub.bus(instance)
        self.events: list[TransportEvent] = []
        self.transport = WebrtcTransport(
            self.bus,
            node.subjects,
            WebrtcSettings(host="127.0.0.1", room=node.room),
            DocumentFollower(str(node.document)),
            timing=QUICK,
            load=load,
            speeches=speeches,
        )
        self.transport.set_identity(node.key)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.serve()
        self.run()

    async def serve(self) -> None:
        """The worker's own subject, without running the transport."""
        await self.bus.serve(self.node.subjects.worker(self.bus.instance), WorkerCommand, self._command)

    def run(self) -> None:
        self._task = asyncio.create_task(self.transport.run(self.events.append))

    async def stop(self) -> None:
        """Cancel `run`, as the flag or a shutdown does."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def kill(self) -> None:
        """SIGKILL: its bus is dead first, then its sockets."""
        self.node.hub.kill(self.bus.instance)
        await self.stop()

    async def _command(self, command: WorkerCommand, incoming: Incoming) -> Pong | Done:
        if isinstance(command, Ping):
            return Pong()
        if isinstance(command, SignalMessage):
            await self.transport.signal(command.message)
        return Done()

    @property
    def state(self) -> StateChanged | None:
        states = [event for event in self.events if isinstance(event, StateChanged)]
        return states[-1] if states else None

    @property
    def ups(self) -> list[LinkUp]:
        return [event for event in self.events if isinstance(event, LinkUp)]

    @property
    def downs(self) -> list[LinkDown]:
        return [event for event in self.events if isinstance(event, LinkDown)]

    def records(self, link: LinkId) -> list[bytes]:
        return [event.record for event in self.events if isinstance(event, RecordReceived) and event.link == link]


class Node:
    """One node: a bus account, an identity, a rendezvous document, workers."""

    def __init__(self, name: str, folder: Path, servers: list[PeerServer]) -> None:
        self.hub = MemoryHub()
        self.subjects = Subjects(name)
        self.key = hashlib.sha256(name.encode()).digest()
        self.peer_id = peerjs_id(self.key)
        self.hint = PeerHint(self.key, self.peer_id)
        self.document = folder / f"{name}.json"
        self.workers: list[Worker] = []
        self.token = f"token-{name}"
        self.room = ""
        self.write_document(servers)

    def write_document(self, servers: list[PeerServer]) -> None:
        self._servers = [{"url": server.url, "key": server.key} for server in servers]
        self.write_ice([])

    def write_ice(self, urls: list[str], username: str = "", credential: str = "") -> None:
        """The document with the same PeerServers and these STUN or TURN servers."""
        ice = [{"urls": [url], "username": username, "credential": credential} for url in urls]
        self.document.write_text(json.dumps({"peerServers": self._servers, "iceServers": ice}))

    async def start(
        self,
        workers: int = 1,
        load: Callable[[], LinkFactory] = available.load,
        speeches: Collection[str] = (SEALED_NATIVE,),
    ) -> Node:
        chunk = self.hub.bus("chunk-1")
        await chunk.serve(self.subjects.peerjs_token, PeerjsTokenRequest, self._give_token)
        for number in range(workers):
            worker = Worker(self, f"webrtc-{number}", load, speeches)
            self.workers.append(worker)
            await worker.start()
        return self

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self.workers))

    @property
    def worker(self) -> Worker:
        return self.workers[0]

    async def _give_token(self, call: PeerjsTokenRequest, incoming: Incoming) -> PeerjsToken:
        return PeerjsToken(self.token)
