"""All delivery runs of one manager: takes deliveries, passes on what concerns them, remembers how they ended.

A manager that was stopped (SIGSTOP, a frozen machine) finds its callers gone to another one; it abandons what it
had, so that the two do not work against each other on the same links.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator
from time import process_time
from typing import assert_never

from services.manager.delivery.steps import DeliveryCancelled, HopFailed, HopVerdict, RulesChanged, WorkerLost
from services.manager.delivery_run import DeliveryRun
from services.manager.desk import Desk
from shared.bus.contract import Incoming, Subscription
from shared.bus.messages.envelopes import (
    CancelDelivery,
    CancelRequest,
    Deliver,
    LinkAnswer,
    LinkFailed,
    LinkProgress,
    ManagerMessage,
    Ping,
    Pong,
    Receipt,
    Taken,
    Verdict,
)
from shared.bus.messages.subjects import QUEUE_MANAGER
from shared.clock import unix_ms
from shared.errors import Cause, RemoteFailure

MAX_DELIVERIES = 2_048
"""In flight in one manager; one more is answered BUSY. About 10 KiB each, and issue-sized bursts are 1,000."""

MAX_DELIVERIES_A_PEER = 1_024
"""Of these, to one peer: one that answers nothing must not keep the others waiting. One more is answered BUSY."""

BUSY_RETRY_S = 0.05
DEFAULT_TIMEOUT_S = 30.0
"""Where the caller gave no deadline (swarm-space's request timeout)."""

RECEIPT_MARGIN_S = 0.05
RECEIPT_MARGIN_SHARE = 0.1
"""A delivery ends this much before the caller's deadline (at most this share of it), so that the receipt arrives."""

MAX_RECEIPTS = 10_000
RECEIPT_KEPT_S = 60.0
"""Receipts sent again to a caller that missed one."""

HEARTBEAT_S = 0.25
STOPPED_S = 1.0
STOPPED_CPU_SHARE = 0.1
"""A heartbeat this late, with this little of our own computing meanwhile: we were stopped, not merely busy.
Callers give a silent manager up after two missed pings of 250 ms."""

MAX_MESSAGES = 1_024
"""Handlers of messages from workers and callers in flight; each is short and awaits nothing."""

log = logging.getLogger(__name__)


class Runs:
    """The deliveries in flight, and how the last ones ended.

    Serves `route.deliver` in the queue group of the managers, and `manager.<instance>`.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.refused: Counter[str] = Counter()
        """Deliveries not taken, by cause."""
        self.taken = 0
        self._runs: dict[bytes, DeliveryRun] = {}
        self._to_peer: Counter[str] = Counter()
        # One that comes back goes on counting its hops: their numbers are what tells its records apart.
        self._abandoned: OrderedDict[bytes, int] = OrderedDict()
        self._receipts: OrderedDict[bytes, tuple[Receipt, float]] = OrderedDict()
        self._alive_at = desk.clock()
        self._alive_cpu_s = process_time()
        self._subscriptions: list[Subscription] = []
        self._taking: Subscription | None = None
        self._draining = False
        self._none_left = asyncio.Event()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[DeliveryRun]:
        # A copy: a run that is fed may finish, and is taken out then.
        return iter(list(self._runs.values()))

    async def start(self) -> None:
        self._desk.tasks.start(self._beat(), name="heartbeat")
        bus, subjects = self._desk.bus, self._desk.subjects
        self._subscriptions.append(
            await bus.serve(subjects.manager(bus.instance), ManagerMessage, self._message, max_concurrent=MAX_MESSAGES)
        )
        # After its own subject: what a delivery causes (answers, pings, verdicts) comes there.
        self._taking = await bus.serve(
            subjects.deliver, Deliver, self._take, queue=QUEUE_MANAGER, max_concurrent=MAX_MESSAGES
        )

    async def drain(self, grace_s: float) -> None:
        """Take no more; wait until those in flight have ended, at most grace_s."""
        self._draining = True
        if self._taking is not None:
            await self._taking.close()
        try:
            async with asyncio.timeout(grace_s):
                while self._runs:
                    self._none_left.clear()
                    await self._none_left.wait()
        except TimeoutError:
            log.info("drain ended by its grace with %d deliveries in flight", len(self._runs))

    async def close(self) -> None:
        """Abandon what is left: its callers find us gone and ask another manager."""
        self.abandon_all()
        for subscription in self._subscriptions:
            await subscription.close()

    def rules_changed(self) -> None:
        """A flag or the blocklist is another: what is in flight may have to stop."""
        for run in self:
            run.feed(RulesChanged())

    def worker_lost(self, worker: str) -> None:
        for run in self:
            run.feed(WorkerLost(worker))

    def workers(self) -> dict[str, float]:
        """Every worker that holds a request of ours, and when it last gave a sign of life for any of them."""
        heard: dict[str, float] = {}
        for run in self:
            for worker, at in run.workers().items():
                heard[worker] = max(at, heard.get(worker, at))
        return heard

    def abandon_all(self) -> None:
        runs, self._runs = self._runs, {}
        self._to_peer.clear()
        for run in runs.values():
            run.abandon()
            self._abandoned[run.delivery_id] = run.next_hop
        while len(self._abandoned) > MAX_RECEIPTS:
            self._abandoned.popitem(last=False)
        self._none_left.set()

    # ── from callers ──

    async def _take(self, call: Deliver, incoming: Incoming) -> Taken:
        self._check_stopped()
        taken = Taken(self._desk.bus.instance)
        run = self._runs.get(call.delivery_id)
        if run is not None:
            run.asked_again(call.reply_to)
            return taken
        remaining_s = incoming.remaining_s(unix_ms(), DEFAULT_TIMEOUT_S)
        # Before any refusal: one that has ended is answered even by a manager that takes no more.
        receipt = self._receipt(call.delivery_id)
        if receipt is not None:
            self._desk.outbox.post(self._desk.subjects.reply(call.reply_to), receipt, self._desk.clock() + remaining_s)
            return taken
        remaining_s -= min(RECEIPT_MARGIN_S, remaining_s * RECEIPT_MARGIN_SHARE)
        refusal = self._refusal(call.peer, remaining_s)
        if refusal is not None:
            self.refused[refusal.cause.value] += 1
            raise refusal
        first_hop = self._abandoned.pop(call.delivery_id, 1)
        run = DeliveryRun(
            self._desk, call, incoming.traceparent, remaining_s, first_hop, self._check_stopped, self._finished
        )
        self._runs[call.delivery_id] = run
        self.taken += 1
        self._to_peer[call.peer] += 1
        # Last: it may finish within, and `_finished` looks for it.
        run.start()
        return taken

    def _refusal(self, peer: str, remaining_s: float) -> RemoteFailure | None:
        if self._draining:
            return RemoteFailure(Cause.DRAINING)
        if len(self._runs) >= MAX_DELIVERIES or self._to_peer[peer] >= MAX_DELIVERIES_A_PEER:
            return RemoteFailure(Cause.BUSY, BUSY_RETRY_S)
        return RemoteFailure(Cause.EXPIRED) if remaining_s <= 0 else None

    async def _message(self, message: ManagerMessage, incoming: Incoming) -> Pong | None:
        self._check_stopped()
        match message:
            case Ping():
                return Pong([call for call in message.calls if call not in self._runs])
            case LinkProgress() | LinkAnswer() | LinkFailed():
                self._from_link(message)
            case Verdict():
                run = self._runs.get(message.delivery_id)
                if run is not None:
                    run.feed(HopVerdict(message.hop, message.cause, message.bytes))
            case CancelDelivery():
                run = self._runs.get(message.delivery_id)
                if run is not None:
                    run.feed(DeliveryCancelled())
            case _:
                assert_never(message)
        return None

    # ── from workers ──

    def _from_link(self, message: LinkProgress | LinkAnswer | LinkFailed) -> None:
        run = self._runs.get(message.request_id)
        if run is None:
            if isinstance(message, LinkAnswer) and message.body is not None:
                # Nobody waits for it: its worker need not hold it until its time is up.
                subject = self._desk.subjects.worker(message.body.instance)
                self._desk.outbox.post(subject, CancelRequest(message.request_id), self._desk.clock())
            return
        match message:
            case LinkProgress():
                run.link_progress(message)
            case LinkAnswer():
                run.link_answer(message)
            case LinkFailed():
                run.feed(HopFailed(message.hop, message.cause, message.retry_after_ms / 1000))
            case _:
                assert_never(message)

    # ── within ──

    def _finished(self, run: DeliveryRun, receipt: Receipt) -> None:
        if self._runs.pop(run.delivery_id, None) is not None:
            self._to_peer[run.peer] -= 1
            # A Counter keeps its zeros: it would grow by every peer that was ever asked.
            if not self._to_peer[run.peer]:
                del self._to_peer[run.peer]
        if not self._runs:
            self._none_left.set()
        self._receipts[run.delivery_id] = (receipt, self._desk.clock())
        while len(self._receipts) > MAX_RECEIPTS:
            self._receipts.popitem(last=False)

    def _receipt(self, delivery_id: bytes) -> Receipt | None:
        receipt, ended_at = self._receipts.get(delivery_id, (None, 0.0))
        return receipt if self._desk.clock() - ended_at < RECEIPT_KEPT_S else None

    async def _beat(self) -> None:
        while True:
            self._check_stopped()
            self._alive_at, self._alive_cpu_s = self._desk.clock(), process_time()
            await asyncio.sleep(HEARTBEAT_S)

    def _check_stopped(self) -> None:
        """First of all that runs after a stop, whichever callback that is."""
        gap_s = self._desk.clock() - self._alive_at
        if gap_s <= STOPPED_S or process_time() - self._alive_cpu_s > gap_s * STOPPED_CPU_SHARE:
            return
        self._alive_at, self._alive_cpu_s = self._desk.clock(), process_time()
        if self._runs:
            log.warning("this process was stopped; %d deliveries are left to other managers", len(self._runs))
            self.abandon_all()
