"""Small workers of one transport each, on a real bus: links are subscriptions, answers come after a moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import (
    Accepted,
    Dial,
    Dialled,
    Done,
    LinkAnswer,
    LinkFailed,
    LinkProgress,
    ManagerMessage,
    Ping,
    Pong,
    SendRequest,
    WorkerCommand,
)
from shared.bus.messages.subjects import QUEUE_DIAL, QUEUE_LINK, Subjects
from shared.content.messages import ManifestData
from shared.errors import BusError, Cause
from shared.tasks.owned import Tasks
from shared.transports import TransportName

ANSWER_AFTER_S = 0.02
"""What a link's round trip may take; long enough for many deliveries to be in flight at any moment."""
MAX_SENDS = 2_048


@dataclass
class FakeWorker:
    """Holds a link to one peer and answers for it. log: requests handled, by id.

    fails_with: instead of an answer, to each `fails_each`-th request.
    """

    bus: Bus
    subjects: Subjects
    transport: TransportName
    peer: str
    log: Counter[bytes] = field(default_factory=Counter)
    fails_with: Cause | None = None
    fails_each: int = 1
    dialled: int = 0

    async def start(self) -> None:
        self._tasks = Tasks()
        await self.bus.serve(self.subjects.worker(self.bus.instance), WorkerCommand, self._command)
        await self.bus.serve(self.subjects.dial(self.transport), Dial, self._dial, queue=QUEUE_DIAL)
        subject = self.subjects.link(self.transport, self.peer)
        await self.bus.serve(subject, SendRequest, self._send, queue=QUEUE_LINK, max_concurrent=MAX_SENDS)

    async def close(self) -> None:
        await self._tasks.close()

    async def _command(self, command: WorkerCommand, incoming: Incoming) -> Pong | Done:
        return Pong() if isinstance(command, Ping) else Done()

    async def _dial(self, call: Dial, incoming: Incoming) -> Dialled:
        self.dialled += 1
        return Dialled(self.bus.instance, "link")

    async def _send(self, call: SendRequest, incoming: Incoming) -> Accepted:
        self.log[call.request_id] += 1
        self._tasks.start(self._answer(call), name="answer")
        return Accepted(self.bus.instance, "link", ANSWER_AFTER_S * 1000)

    async def _answer(self, call: SendRequest) -> None:
        await self._tell(call, LinkProgress(call.request_id, call.hop, 0))
        await asyncio.sleep(ANSWER_AFTER_S)
        if self.fails_with is not None and self.log.total() % self.fails_each == 0:
            await self._tell(call, LinkFailed(call.request_id, call.hop, self.fails_with))
        else:
            await self._tell(call, LinkAnswer(call.request_id, call.hop, ManifestData("00"), None))

    async def _tell(self, call: SendRequest, message: ManagerMessage) -> None:
        try:
            await self.bus.publish(self.subjects.manager(call.manager), message)
        except BusError:
            pass  # the bus is closing
