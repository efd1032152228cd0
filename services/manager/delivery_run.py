"""One delivery in flight: feeds its machine, executes what that wants, keeps its timer.

Everything is synchronous but the requests, which are tasks of the manager's; an event is dealt with in the
moment it comes. Cancellation: `abandon` ends it without an answer to the caller, who then asks another manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import assert_never

from opentelemetry import trace
from opentelemetry.trace import Span

from services.manager.delivery.hop import Hop, HopState
from services.manager.delivery.machine import Delivery
from services.manager.delivery.steps import (
    AskedAgain,
    CancelHop,
    Command,
    DialTransport,
    Event,
    Finish,
    GiveAnswer,
    HopAccepted,
    HopAnswered,
    HopFailed,
    HopProgress,
    HopUnaccepted,
    RecordHop,
    SendOnLink,
    SlowCaller,
    TimerFired,
)
from services.manager.desk import Desk
from services.manager.recorder import DeliveryLabel
from services.manager.routing.rank import Routes
from shared.bus.messages.envelopes import (
    Accepted,
    Answered,
    CancelRequest,
    Deliver,
    HopReceipt,
    LinkAnswer,
    LinkProgress,
    Receipt,
    SendRequest,
    Slowed,
)
from shared.clock import unix_ms
from shared.errors import BusTimeout, BusUnavailable, Cause, NoResponders, RemoteFailure
from shared.hops.fold import OUTCOME_CANCELLED
from shared.ids import peer_name
from shared.telemetry.propagation import attached
from shared.transports import TransportName

ACCEPT_TIMEOUT_S = 1.0
"""A worker says at once whether it takes a request; a stopped one stays in its queue group for seconds."""

RECONNECT_CHECK_S = 0.05

LAG_S = 0.01
MAX_LAG_S = 1.0
"""A timer this late means a busy loop: messages wait unread. It is put off once, for as long as it was late."""


class DeliveryRun:
    """awake is called before each event: it abandons us where the process was stopped for too long.

    first_hop: the number of its first hop. on_finished is called once, with the receipt, when the machine has finished.
    """

    def __init__(
        self,
        desk: Desk,
        call: Deliver,
        traceparent: str,
        remaining_s: float,
        first_hop: int,
        awake: Callable[[], None],
        on_finished: Callable[[DeliveryRun, Receipt], None],
    ) -> None:
        now = desk.clock()
        self.delivery_id = call.delivery_id
        self._desk = desk
        self._call = call
        self._reply_to = call.reply_to
        self._started_at = now
        self._deadline = now + remaining_s
        self._awake = awake
        self._on_finished = on_finished
        self._label = DeliveryLabel(call.delivery_id.hex(), peer_name(call.peer), call.transfer, traceparent)
        self._machine = Delivery(now, self._deadline, first_hop)
        self._spans: dict[int, Span] = {}
        self._ended: list[Hop] = []
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self._waited_for_lag = False

    @property
    def peer(self) -> str:
        """Whom it asks: a token."""
        return self._call.peer

    # ── what the outside says ──

    def start(self) -> None:
        # First: a peer that is new to this manager gets its links from the records here, and the routes are read next.
        self._desk.routing.book.want(self._call.peer, self._started_at, unix_ms())
        self._execute(self._machine.start(self._routes(), self._started_at))

    def feed(self, event: Event) -> None:
        """Take one event, do what follows from it."""
        self._awake()
        if not self._over:
            self._execute(self._machine.handle(event, self._routes(), self._desk.clock()))

    def asked_again(self, reply_to: str) -> None:
        """The caller (or its successor) lost sight of us: go on, and send it what it may have missed."""
        self._reply_to = reply_to
        self.feed(AskedAgain())

    def link_progress(self, message: LinkProgress) -> None:
        self._learn(message.hop)
        self.feed(HopProgress(message.hop, message.bytes))

    def link_answer(self, message: LinkAnswer) -> None:
        self._learn(message.hop)
        self.feed(HopAnswered(message.hop, message.answer, message.body))

    @property
    def next_hop(self) -> int:
        """The number after its last hop's."""
        return self._machine.next_hop

    def workers(self) -> dict[str, float]:
        """Workers that hold a request of it, and when each last gave a sign of life for it."""
        return {} if self._over else self._machine.workers()

    def abandon(self) -> None:
        """Stop here. Its hops are written down as nobody's fault; its caller will ask another manager."""
        if self._over:
            return
        self._over = True
        self._disarm()
        now = self._desk.clock()
        for number in list(self._spans):
            hop = self._machine.hop(number)
            if hop is not None:
                hop.end(OUTCOME_CANCELLED, Cause.EXPIRED, now)
                self._end(hop)
        # Its hedges are free again; what it had received is no duplicate yet.
        self._desk.routing.budget.delivery_ended(sum(hop.hedged for hop in self._ended), 0, 0)

    # ── what the machine wants ──

    def _execute(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case SendOnLink():
                    self._send(command)
                case DialTransport():
                    self._dial(command.transport)
                case CancelHop():
                    self._cancel(command.worker)
                case SlowCaller():
                    self._slow(command.retry_after_s)
                case GiveAnswer():
                    self._give(command)
                case RecordHop():
                    self._end(command.hop)
                case Finish():
                    self._finish(command)
                case _:
                    assert_never(command)
        self._arm()

    def _send(self, command: SendOnLink) -> None:
        hop = self._machine.hop(command.hop)
        assert hop is not None
        if not command.retry:
            # Now and not when it is accepted: of two deliveries in the same moment one is the trial.
            self._desk.routing.breakers.trial_started(self._label.peer, command.transport.value, unix_ms())
            if hop.hedged:
                self._desk.routing.budget.hedge_started()
            self._spans[command.hop] = self._desk.recorder.hop_started(self._label, command.transport, hop.started_at)
            self._desk.routing.book.hop_started(self._call.peer, command.transport)
        # The task copies the context of now: the worker's spans become children of this hop's.
        with trace.use_span(self._spans[command.hop], end_on_exit=False):
            self._desk.tasks.start(self._ask_link(command.hop, command.transport), name="send")

    async def _ask_link(self, number: int, transport: TransportName) -> None:
        desk, book = self._desk, self._desk.routing.book
        call = SendRequest(self.delivery_id, desk.bus.instance, number, self._call.request)
        subject = desk.subjects.link(transport, self._call.peer)
        try:
            accepted = await self._request(subject, call, number)
        except NoResponders:
            book.unlinked(self._call.peer, transport)
            self.feed(HopFailed(number, Cause.NO_LINK))
        except (BusTimeout, TimeoutError):
            self.feed(HopUnaccepted(number))
        except RemoteFailure as error:
            # Its link went, and the worker's interest in the peer is not withdrawn yet.
            if error.cause is Cause.NO_LINK:
                book.unlinked(self._call.peer, transport)
            self.feed(HopFailed(number, error.cause, error.retry_after_s))
        else:
            if accepted is None:
                return
            book.accepted(self._call.peer, transport, accepted.rtt_ms / 1000, accepted.acks, desk.clock())
            if self._over or self._machine.hop(number) is None:
                # The hop ended while its request was on the way: now it is known whom to notify.
                self._cancel(accepted.worker)
            else:
                self.feed(HopAccepted(number, accepted.worker, accepted.acks, accepted.confirms))

    async def _request(self, subject: str, call: SendRequest, number: int) -> Accepted | None:
        """Ask the link subject; None where the hop ended while the bus was away.

        The envelope carries the delivery's deadline, which the peer learns; the worker has ACCEPT_TIMEOUT_S.
        """
        while not self._over and self._machine.hop(number) is not None:
            remaining_s = self._deadline - self._desk.clock()
            if remaining_s <= 0:
                return None
            try:
                async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                    return await self._desk.bus.request(subject, call, Accepted, remaining_s)
            except BusUnavailable:
                await asyncio.sleep(RECONNECT_CHECK_S)
        return None

    def _dial(self, transport: TransportName) -> None:
        # Whatever event led here: the dial belongs under the delivery, not under the hop that failed.
        with attached(self._label.traceparent):
            self._desk.tasks.start(self._await_dial(transport), name="dial")

    async def _await_dial(self, transport: TransportName) -> None:
        self.feed(await self._desk.dialler.dial(self._call.peer, transport))

    def _cancel(self, worker: str | None) -> None:
        if worker is not None:
            self._desk.outbox.post(self._desk.subjects.worker(worker), CancelRequest(self.delivery_id), self._deadline)

    def _slow(self, retry_after_s: float) -> None:
        slowed = Slowed(self.delivery_id, round(retry_after_s * 1000))
        self._desk.outbox.post(self._desk.subjects.reply(self._reply_to), slowed, self._deadline)

    def _give(self, command: GiveAnswer) -> None:
        answered = Answered(
            self.delivery_id,
            self._desk.bus.instance,
            command.hop,
            command.transport.value,
            command.answer,
            command.body,
        )
        self._desk.outbox.post(self._desk.subjects.reply(self._reply_to), answered, self._deadline)

    def _end(self, hop: Hop) -> None:
        self._ended.append(hop)
        book, peer = self._desk.routing.book, self._call.peer
        span = self._spans.pop(hop.number, None)
        if span is not None:  # it was sent, not skipped or failed in its dial
            book.hop_ended(peer, hop.transport)
        if hop.cause in (Cause.SILENT, Cause.TIMEOUT) and hop.state is HopState.SENT and not hop.acks:
            book.unanswered(peer, hop.transport, hop.ended_at - hop.heard_at)
        self._desk.recorder.hop_ended(self._label, hop, span)

    def _finish(self, finish: Finish) -> None:
        # First: nothing that follows from the receipt may feed the machine again.
        self._over = True
        duplicates = sum(hop.bytes for hop in self._ended if hop.outcome == OUTCOME_CANCELLED)
        self._desk.routing.budget.delivery_ended(
            sum(hop.hedged for hop in self._ended), sum(hop.bytes for hop in self._ended), duplicates
        )
        receipt = Receipt(
            self.delivery_id,
            finish.outcome,
            finish.cause,
            [self._receipt_of(hop) for hop in self._ended],
            round((self._desk.clock() - self._started_at) * 1000, 3),
        )
        # The same queue as the answers': a receipt must not overtake one.
        self._desk.outbox.post(self._desk.subjects.reply(self._reply_to), receipt, self._deadline)
        self._on_finished(self, receipt)

    def _receipt_of(self, hop: Hop) -> HopReceipt:
        accepted_after_ms = -1.0 if hop.accepted_at is None else round((hop.accepted_at - hop.started_at) * 1000, 3)
        return HopReceipt(
            hop.number,
            hop.transport.value,
            hop.outcome,
            hop.cause,
            self._desk.recorder.wall_ms(hop.started_at),
            round((hop.ended_at - hop.started_at) * 1000, 3),
            accepted_after_ms,
            hop.bytes,
            hop.hedged,
            "" if hop.fallback_from is None else hop.fallback_from.value,
            hop.fallback_cause,
        )

    # ── clocks ──

    def _learn(self, number: int) -> None:
        """Time the link by this sign of life, before the machine takes note of it."""
        hop = None if self._over else self._machine.hop(number)
        if hop is None:
            return
        book, now = self._desk.routing.book, self._desk.clock()
        book.heard(self._call.peer, hop.transport, now)
        if hop.state is HopState.SENT:
            # Of a peer that cannot ack this is its answer, and says how long answers take.
            learn = book.acked if hop.acks else book.answered
            learn(self._call.peer, hop.transport, now - hop.heard_at)
        elif hop.state is HopState.ALIVE:
            book.gap(self._call.peer, hop.transport, now - hop.heard_at)

    def _routes(self) -> Routes:
        return self._desk.routing.routes(self._call.peer, unix_ms())

    def _arm(self) -> None:
        self._disarm()
        due = self._machine.next_deadline()
        if due is not None and not self._over:
            self._call_at(due, due)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call_at(self, at: float, due: float) -> None:
        delay_s = max(0.0, at - self._desk.clock())
        # A fresh context: a timer must not keep the trace that was current when it was set.
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_fired, due, context=Context())

    def _timer_fired(self, due: float) -> None:
        """Where we are late ourselves, first read what has come meanwhile: our lag is no link's silence."""
        now = self._desk.clock()
        lag_s = now - due
        if LAG_S < lag_s < MAX_LAG_S and now < self._deadline and not self._waited_for_lag:
            self._waited_for_lag = True
            self._call_at(now + lag_s, due)
            return
        self._waited_for_lag = False
        self.feed(TimerFired())
