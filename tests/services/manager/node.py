"""One node in memory around real managers: small fake workers and a caller, which can be killed and frozen."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from services.manager.app import app
from shared.bus.calls import Calls
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import (
    Accepted,
    Answered,
    BodyRef,
    CancelRequest,
    Deliver,
    Dial,
    Dialled,
    Done,
    LinkAnswer,
    LinkFailed,
    LinkProgress,
    Ping,
    Pong,
    Receipt,
    ReplyMessage,
    SendRequest,
    Slowed,
    Verdict,
    WorkerCommand,
)
from shared.bus.messages.records import Diagnostic, HopRecord
from shared.bus.messages.subjects import QUEUE_DIAL, QUEUE_LINK, STREAM_HOPS, Subjects
from shared.clock import Clock, monotonic
from shared.content.messages import ManifestData, RequestManifest
from shared.errors import Cause, RemoteFailure
from shared.ids import member_token
from shared.process.run import Process
from shared.settings.blocklist import Blocklist
from shared.settings.config import Config, FlagSettings
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from shared.transports import ORDER, TransportName
from tests.fakes.memory_bus import MemoryBus, MemoryHub

PEER = member_token(bytes(range(32)))
SUBJECTS = Subjects("node")
ANSWER = ManifestData("00")
BODY_BYTES = 1_000

Behaviour = Callable[["FakeWorker", SendRequest], Awaitable[None]]
"""What a worker does once it has accepted a request."""


async def answer(worker: FakeWorker, call: SendRequest) -> None:
    await only_ack(worker, call)
    body = BodyRef(worker.bus.instance, b"token", BODY_BYTES)
    await worker.tell(call.manager, LinkAnswer(call.request_id, call.hop, ANSWER, body))


async def stay_silent(worker: FakeWorker, call: SendRequest) -> None:
    pass


async def only_ack(worker: FakeWorker, call: SendRequest) -> None:
    if worker.acks:
        await worker.tell(call.manager, LinkProgress(call.request_id, call.hop, 0))


def fail(cause: Cause) -> Behaviour:
    async def failing(worker: FakeWorker, call: SendRequest) -> None:
        await worker.tell(call.manager, LinkFailed(call.request_id, call.hop, cause))

    return failing


@dataclass
class FakeWorker:
    """linked: whether it has a link to PEER. dial_cause: why a dial fails, None = it opens the link.

    refuse: what it refuses requests with. acks, confirms: what the link's peer can. asked, cancelled: request ids.
    pinged: how often. on_asked: called for each request, first.
    """

    bus: MemoryBus
    transport: TransportName
    behave: Behaviour = answer
    dial_cause: Cause | None = None
    refuse: RemoteFailure | None = None
    acks: bool = True
    confirms: bool = True
    pinged: int = 0
    asked: list[bytes] = field(default_factory=list)
    cancelled: list[bytes] = field(default_factory=list)
    dialled: int = 0
    linked: bool = False
    on_asked: Callable[[SendRequest], None] = lambda call: None

    async def start(self, *, linked: bool) -> None:
        await self.bus.serve(SUBJECTS.worker(self.bus.instance), WorkerCommand, self._command)
        await self.bus.serve(SUBJECTS.dial(self.transport), Dial, self._dial, queue=QUEUE_DIAL)
        if linked:
            await self.link()

    async def link(self) -> None:
        self.linked = True
        subject = SUBJECTS.link(self.transport, PEER)
        self._route = await self.bus.serve(subject, SendRequest, self._send, queue=QUEUE_LINK)

    async def unlink(self) -> None:
        self.linked = False
        await self._route.close()

    async def tell(self, manager: str, message: LinkProgress | LinkAnswer | LinkFailed) -> None:
        await self.bus.publish(SUBJECTS.manager(manager), message)

    async def _command(self, command: WorkerCommand, incoming: Incoming) -> Pong | Done:
        if isinstance(command, CancelRequest):
            self.cancelled.append(command.request_id)
        self.pinged += isinstance(command, Ping)
        return Pong() if isinstance(command, Ping) else Done()

    async def _dial(self, call: Dial, incoming: Incoming) -> Dialled:
        self.dialled += 1
        if self.dial_cause is not None:
            raise RemoteFailure(self.dial_cause)
        if not self.linked:
            await self.link()
        return Dialled(self.bus.instance, "link-1")

    async def _send(self, call: SendRequest, incoming: Incoming) -> Accepted:
        self.on_asked(call)
        if self.refuse is not None:
            raise self.refuse
        self.asked.append(call.request_id)
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self.behave(self, call)))
        return Accepted(self.bus.instance, "link-1", 1.0, self.acks, self.confirms)


@dataclass
class ManagerProcess:
    """rules_changed_at: when it last heard of another flag or block."""

    process: Process
    running: asyncio.Task[None]
    rules_changed_at: float = 0.0

    async def stop(self) -> None:
        self.process.stopping.set()
        await self.running
        await self.process.tasks.close()

    async def end(self) -> None:
        """Without grace."""
        await self.process.tasks.close()
        self.running.cancel()
        await asyncio.wait({self.running})


class Node:
    """Managers, one worker a transport, one caller. `records` and `diagnostics` are what a gateway would see."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self.clock = clock
        self.hub = MemoryHub()
        self.workers: dict[TransportName, FakeWorker] = {}
        self.managers: dict[str, ManagerProcess] = {}
        self.records: list[HopRecord] = []
        self.diagnostics: list[Diagnostic] = []
        self.answers: Counter[bytes] = Counter()
        self.slowed: list[Slowed] = []
        self.verdicts: dict[str, Cause] = {}
        self.flags = Flags(FlagSettings())

    async def start(self, *, managers: int = 1, linked: tuple[TransportName, ...] = ORDER) -> None:
        self.caller = self.hub.bus("chunk-1")
        await self.flags.start(self.caller)
        self.calls = Calls(self.caller, SUBJECTS, SUBJECTS.manager)
        await self.calls.start()
        await self.caller.follow(STREAM_HOPS, HopRecord, lambda record, _: self.records.append(record))

        async def diagnostic(event: Diagnostic, incoming: Incoming) -> None:
            self.diagnostics.append(event)

        await self.caller.serve(SUBJECTS.event("diagnostic"), Diagnostic, diagnostic)
        for transport in ORDER:
            await self.start_worker(transport, linked=transport in linked)
        for number in range(managers):
            await self.start_manager(f"manager-{number + 1}")

    async def start_worker(self, transport: TransportName, *, linked: bool, name: str = "") -> FakeWorker:
        worker = FakeWorker(self.hub.bus(name or f"{transport.value}-1"), transport)
        self.workers[transport] = worker
        await worker.start(linked=linked)
        return worker

    async def start_manager(self, instance: str, clock: Clock | None = None) -> ManagerProcess:
        bus = self.hub.bus(instance)
        flags = Flags(FlagSettings())
        await flags.start(bus)
        blocklist = Blocklist()
        await blocklist.start(bus)
        process = Process("manager", instance, Config(), bus, None, SUBJECTS, flags, blocklist, Tasks())
        manager = ManagerProcess(process, asyncio.create_task(app(process, clock or self.clock)))
        self.managers[instance] = manager

        def rules_changed(peer: str = "") -> None:
            manager.rules_changed_at = self.clock()

        flags.on_change(rules_changed)
        blocklist.on_change(rules_changed)
        subjects = {SUBJECTS.deliver, SUBJECTS.manager(instance)}
        async with asyncio.timeout(5):
            while subjects - {interest.pattern for interest in self.hub.interests if interest.bus is bus}:
                await asyncio.sleep(0.001)
        return self.managers[instance]

    async def warm(self) -> None:
        """Let the managers learn of every link: what a first round of deliveries and probes does."""
        for _ in range(2 * len(self.managers)):
            await self.deliver()

    async def deliver(self, timeout_s: float = 5.0, delivery_id: bytes | None = None) -> Receipt:
        """Ask as the chunk service does: judge each answer by `verdicts` (by transport), wait for the receipt."""
        call_id = delivery_id or os.urandom(16)
        call = Deliver(call_id, self.caller.instance, PEER, RequestManifest("00"), "t1")

        async def on_message(message: ReplyMessage) -> bool:
            if isinstance(message, Answered):
                self.answers[message.delivery_id] += 1
                verdict = Verdict(call_id, message.hop, self.verdicts.get(message.transport), BODY_BYTES)
                await self.caller.publish(SUBJECTS.manager(message.manager), verdict)
            elif isinstance(message, Slowed):
                self.slowed.append(message)
            return isinstance(message, Receipt)

        receipt = await self.calls.call(SUBJECTS.deliver, call_id, call, timeout_s, on_message)
        assert isinstance(receipt, Receipt)
        return receipt

    async def close(self) -> None:
        for manager in self.managers.values():
            await manager.end()
        await self.calls.close()


def hops(receipt: Receipt) -> list[tuple[str, str, str]]:
    return [(hop.transport, hop.outcome, hop.cause or "") for hop in receipt.hops]
