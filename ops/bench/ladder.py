"""A manager with nothing but a fixed delay: what swarmbridge's is compared with. Not part of the product.

Serves the same subjects as services.manager and asks the same workers, so that only the policy differs: transports
in order; the next one starts `--next-after-ms` after the one before, or at once when nothing is in flight any more.
Progress does not matter to it, there is no budget, no circuit and nothing learnt. A transport without a link is
dialled as part of its hop. `--abandon`: a transport that is left is given up (a timeout), else it goes on beside
the next, and the first answer that passes wins. An explicit failure is left at once under both: that flatters them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import assert_never

from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import (
    Accepted,
    Answered,
    CancelDelivery,
    CancelRequest,
    Deliver,
    Dial,
    Dialled,
    HopReceipt,
    LinkAnswer,
    LinkFailed,
    LinkProgress,
    ManagerMessage,
    Ping,
    Pong,
    Receipt,
    SendRequest,
    Taken,
    Verdict,
)
from shared.bus.messages.subjects import QUEUE_MANAGER, Subjects
from shared.clock import monotonic, unix_ms
from shared.errors import BusError, Cause, NoResponders, RemoteFailure
from shared.hops.fold import OUTCOME_CANCELLED, OUTCOME_CONFIRMED, OUTCOME_FAILED
from shared.process.run import Process, run
from shared.tasks.owned import Tasks
from shared.transports import ORDER

DEFAULT_TIMEOUT_S = 10.0
DIAL_LIMIT_S = 5.0
RECEIPT_MARGIN_S = 0.05
MAX_CONCURRENT = 1_024
KEPT_RECEIPTS = 2_048


@dataclass(frozen=True, slots=True)
class Steps:
    """next_after_s: between the starts of two transports. abandon: the one that is left is given up."""

    next_after_s: float
    abandon: bool


@dataclass(slots=True)
class _Hop:
    number: int
    transport: str
    started: float
    started_ms: int
    task: asyncio.Task[None] | None = None
    worker: str = ""
    accepted: float | None = None
    bytes: int = 0

    def receipt(self, outcome: str, cause: Cause | None) -> HopReceipt:
        return HopReceipt(
            self.number,
            self.transport,
            outcome,
            cause,
            self.started_ms,
            (monotonic() - self.started) * 1000,
            -1.0 if self.accepted is None else (self.accepted - self.started) * 1000,
            self.bytes,
            False,
        )


HopMessage = LinkProgress | LinkAnswer | LinkFailed | Verdict


class Climb:
    """One delivery going down the ladder. `messages` takes what workers and the caller say; bounded by their number."""

    def __init__(
        self, bus: Bus, subjects: Subjects, tasks: Tasks, steps: Steps, call: Deliver, deadline: float
    ) -> None:
        self._bus, self._subjects, self._tasks, self._steps = bus, subjects, tasks, steps
        self._call, self._deadline = call, deadline
        self._started = monotonic()
        self._left = list(ORDER)
        self._live: dict[int, _Hop] = {}
        self._ended: list[HopReceipt] = []
        self._next_at = self._started
        self.messages: asyncio.Queue[HopMessage] = asyncio.Queue(MAX_CONCURRENT)

    async def run(self) -> Receipt:
        """Returns: how it ended. Cancellation: ends its requests on the bus as well."""
        try:
            async with asyncio.timeout_at(self._deadline - monotonic() + asyncio.get_running_loop().time()):
                return await self._climb()
        except TimeoutError:
            return self._end(OUTCOME_FAILED, Cause.TIMEOUT)

    async def _climb(self) -> Receipt:
        while True:
            self._start_due()
            if not self._live and not self._left:
                return self._end(OUTCOME_FAILED, self._ended[-1].cause)
            try:
                wait_s = max(0.0, self._next_at - monotonic()) if self._left else None
                message = await asyncio.wait_for(self.messages.get(), wait_s)
            except TimeoutError:
                continue
            hop = self._live.get(message.hop)
            if hop is None:
                continue
            match message:
                case LinkProgress():
                    hop.bytes = max(hop.bytes, message.bytes)
                case LinkAnswer():
                    hop.bytes = message.body.length if message.body is not None else 0
                    await self._give(hop, message)
                case LinkFailed():
                    self._fail(hop, message.cause)
                case Verdict() if message.cause is None:
                    self._close(hop, OUTCOME_CONFIRMED, None)
                    return self._end(OUTCOME_CONFIRMED, None)
                case Verdict():
                    self._fail(hop, message.cause or Cause.OTHER)
                case _:
                    assert_never(message)

    def _start_due(self) -> None:
        while self._left and (not self._live or monotonic() >= self._next_at):
            if self._steps.abandon:
                for hop in list(self._live.values()):
                    self._cancel(hop)
                    self._fail(hop, Cause.TIMEOUT)
            number = len(self._live) + len(self._ended) + 1
            hop = _Hop(number, self._left.pop(0).value, monotonic(), unix_ms())
            self._live[number] = hop
            hop.task = self._tasks.start(self._ask(hop), name="ask")
            self._next_at = hop.started + self._steps.next_after_s

    async def _ask(self, hop: _Hop) -> None:
        try:
            try:
                accepted = await self._send(hop)
            except BusError as error:
                if not isinstance(error, NoResponders) and error.cause is not Cause.NO_LINK:
                    raise
                dial = self._subjects.dial(hop.transport)
                await self._bus.request(dial, Dial(self._call.peer), Dialled, DIAL_LIMIT_S)
                accepted = await self._send(hop)
        except BusError as error:
            await self.messages.put(LinkFailed(self._call.delivery_id, hop.number, error.cause))
        else:
            hop.accepted, hop.worker = monotonic(), accepted.worker

    async def _send(self, hop: _Hop) -> Accepted:
        request = SendRequest(self._call.delivery_id, self._bus.instance, hop.number, self._call.request)
        subject = self._subjects.link(hop.transport, self._call.peer)
        return await self._bus.request(subject, request, Accepted, max(0.001, self._deadline - monotonic()))

    async def _give(self, hop: _Hop, answer: LinkAnswer) -> None:
        answered = Answered(
            self._call.delivery_id, self._bus.instance, hop.number, hop.transport, answer.answer, answer.body
        )
        await self._bus.publish(self._subjects.reply(self._call.reply_to), answered)

    def _fail(self, hop: _Hop, cause: Cause) -> None:
        self._close(hop, OUTCOME_FAILED, cause)

    def _cancel(self, hop: _Hop) -> None:
        if hop.worker:
            cancel = CancelRequest(self._call.delivery_id)
            self._tasks.start(self._bus.publish(self._subjects.worker(hop.worker), cancel), name="cancel")

    def _close(self, hop: _Hop, outcome: str, cause: Cause | None) -> None:
        del self._live[hop.number]
        if hop.task is not None:
            hop.task.cancel()
        self._ended.append(hop.receipt(outcome, cause))

    def _end(self, outcome: str, cause: Cause | None) -> Receipt:
        for hop in list(self._live.values()):
            self._cancel(hop)
            self._close(hop, OUTCOME_CANCELLED, None)
        elapsed_ms = (monotonic() - self._started) * 1000
        return Receipt(self._call.delivery_id, outcome, cause, self._ended, elapsed_ms)


class Ladder:
    """Serves `route.deliver` and `manager.<instance>`, as services.manager.runs does."""

    def __init__(self, process: Process, steps: Steps) -> None:
        self._bus, self._subjects, self._tasks = process.bus, process.subjects, process.tasks
        self._steps = steps
        self._climbs: dict[bytes, Climb] = {}
        self._receipts: OrderedDict[bytes, Receipt] = OrderedDict()

    async def start(self) -> None:
        bus, subjects = self._bus, self._subjects
        await bus.serve(subjects.manager(bus.instance), ManagerMessage, self._message, max_concurrent=MAX_CONCURRENT)
        await bus.serve(subjects.deliver, Deliver, self._take, queue=QUEUE_MANAGER, max_concurrent=MAX_CONCURRENT)

    async def _take(self, call: Deliver, incoming: Incoming) -> Taken:
        receipt = self._receipts.get(call.delivery_id)
        if receipt is not None:
            await self._bus.publish(self._subjects.reply(call.reply_to), receipt)
        elif call.delivery_id not in self._climbs:
            remaining_s = incoming.remaining_s(unix_ms(), DEFAULT_TIMEOUT_S) - RECEIPT_MARGIN_S
            if remaining_s <= 0:
                raise RemoteFailure(Cause.EXPIRED)
            climb = Climb(self._bus, self._subjects, self._tasks, self._steps, call, monotonic() + remaining_s)
            self._climbs[call.delivery_id] = climb
            self._tasks.start(self._run(climb, call), name="climb")
        return Taken(self._bus.instance)

    async def _run(self, climb: Climb, call: Deliver) -> None:
        receipt = await climb.run()
        del self._climbs[call.delivery_id]
        self._receipts[call.delivery_id] = receipt
        while len(self._receipts) > KEPT_RECEIPTS:
            self._receipts.popitem(last=False)
        await self._bus.publish(self._subjects.reply(call.reply_to), receipt)

    async def _message(self, message: ManagerMessage, incoming: Incoming) -> Pong | None:
        match message:
            case Ping():
                return Pong([call for call in message.calls if call not in self._climbs])
            case LinkProgress() | LinkAnswer() | LinkFailed():
                await self._pass_on(message.request_id, message)
            case Verdict():
                await self._pass_on(message.delivery_id, message)
            case CancelDelivery():
                pass  # a plain ladder climbs on to its deadline, whoever has stopped waiting
            case _:
                assert_never(message)
        return None

    async def _pass_on(self, call_id: bytes, message: HopMessage) -> None:
        climb = self._climbs.get(call_id)
        if climb is not None:
            await climb.messages.put(message)


def main(arguments: list[str] | None = None) -> int:
    """Run it as the service `manager`, with that service's settings and bus user."""
    parser = argparse.ArgumentParser(prog="ops.bench.ladder", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--next-after-ms", type=int, required=True, metavar="MS")
    parser.add_argument("--abandon", action="store_true")
    wanted = parser.parse_args(arguments)
    steps = Steps(wanted.next_after_ms / 1000, wanted.abandon)

    async def app(process: Process) -> None:
        await Ladder(process, steps).start()
        await process.stopping.wait()

    return run("manager", app)


if __name__ == "__main__":
    sys.exit(main())
