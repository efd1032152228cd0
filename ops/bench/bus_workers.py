"""Workers that are nothing but their bus side, in the benchmark's own process: they answer as they are asked to.

What a worker of the product does on the bus (`shared.worker.asking`), without a transport below it: a request is
accepted, acked, answered with a body that is pulled from here.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum

from shared.bus.bodies import BodyHolder
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.conversations import CHUNK
from shared.bus.messages.envelopes import (
    Accepted,
    BodyRef,
    CancelRequest,
    Dial,
    Dialled,
    LinkAnswer,
    LinkProgress,
    ManagerMessage,
    Ping,
    Pong,
    SendRequest,
    WorkerCommand,
)
from shared.bus.messages.subjects import QUEUE_DIAL, QUEUE_LINK, Subjects
from shared.content.messages import ManifestData
from shared.errors import Cause, RemoteFailure
from shared.tasks.owned import Tasks
from shared.transports import TransportName

BODY_BYTES = 64 * 1024
HELD_BYTES = 64 * 2**20
MAX_CONCURRENT = 1_024
RTT_MS = 1.0
SLOW_S = 0.4
SLOW_STEPS = 8
"""A slow answer is acked at once and then arrives evenly, reported every 50 ms as the product's workers do."""


class Behaviour(StrEnum):
    ANSWER = "answer"
    REFUSE = "refuse"
    STAY_SILENT = "stay_silent"
    SLOW = "slow"


class BusWorker:
    """One worker of one transport, with a link to `peer`. behaviour: for the next requests."""

    def __init__(self, bus: Bus, subjects: Subjects, transport: TransportName, peer: str, *, with_body: bool) -> None:
        self.behaviour = Behaviour.ANSWER
        self.with_body = with_body
        self._bus, self._subjects, self._transport, self._peer = bus, subjects, transport, peer
        self._holder = BodyHolder(bus, subjects, max_total_bytes=HELD_BYTES)
        self._tasks = Tasks()
        self._asked: dict[bytes, asyncio.Task[None]] = {}
        self._body = bytes(BODY_BYTES)

    async def start(self) -> None:
        bus, subjects, transport = self._bus, self._subjects, self._transport.value
        await self._holder.start()
        await bus.serve(subjects.worker(bus.instance), WorkerCommand, self._command)
        await bus.serve(subjects.dial(transport), Dial, self._dial, queue=QUEUE_DIAL)
        link = subjects.link(transport, self._peer)
        await bus.serve(link, SendRequest, self._send, queue=QUEUE_LINK, max_concurrent=MAX_CONCURRENT)

    async def close(self) -> None:
        await self._tasks.close()
        await self._holder.close()

    async def _command(self, command: WorkerCommand, incoming: Incoming) -> Pong | None:
        if isinstance(command, CancelRequest):
            task = self._asked.pop(command.request_id, None)
            if task is not None:
                task.cancel()
        return Pong() if isinstance(command, Ping) else None

    async def _dial(self, call: Dial, incoming: Incoming) -> Dialled:
        return Dialled(self._bus.instance, "link")

    async def _send(self, call: SendRequest, incoming: Incoming) -> Accepted:
        if self.behaviour is Behaviour.REFUSE:
            raise RemoteFailure(Cause.REFUSED)
        if self.behaviour is not Behaviour.STAY_SILENT:
            task = self._tasks.start(self._answer(call, slow=self.behaviour is Behaviour.SLOW), name="answer")
            self._asked[call.request_id] = task
            task.add_done_callback(lambda _: self._asked.pop(call.request_id, None))
        return Accepted(self._bus.instance, "link", RTT_MS)

    async def _answer(self, call: SendRequest, *, slow: bool) -> None:
        await self._tell(call.manager, LinkProgress(call.request_id, call.hop, 0))
        for step in range(SLOW_STEPS if slow else 0):
            await asyncio.sleep(SLOW_S / SLOW_STEPS)
            await self._tell(call.manager, LinkProgress(call.request_id, call.hop, BODY_BYTES * step // SLOW_STEPS))
        body: BodyRef | None = self._holder.hold(self._body, CHUNK) if self.with_body else None
        await self._tell(call.manager, LinkAnswer(call.request_id, call.hop, ManifestData("00"), body))

    async def _tell(self, manager: str, message: ManagerMessage) -> None:
        await self._bus.publish(self._subjects.manager(manager), message)
