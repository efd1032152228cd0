"""Requests of ours that are out on links, and who on the bus wants to hear of them.

One request id lives through hops, hedges and a change of manager: a manager that takes a delivery over sends
the same request again, is remembered as the one to notify, and an answer that is already here is sent again.

A request whose caller's time is over is forgotten here too, whatever became of its manager: nothing is kept for a
body that nobody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass

import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode

from shared.bus.bodies import BodyHolder
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.conversations import CHUNK
from shared.bus.messages.envelopes import Accepted, BodyRef, LinkAnswer, LinkFailed, LinkProgress, SendRequest
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock, unix_ms
from shared.content.messages import PeerAnswer
from shared.errors import BusError, Cause, RemoteFailure, SwarmbridgeError
from shared.settings.chaos import Fault
from shared.telemetry import names, tracer
from shared.telemetry.propagation import current_traceparent
from shared.worker.chaos import Chaos
from shared.worker.session import LinkSession

MAX_ASKED = 512
"""Requests of ours without an answer, a worker; one more is refused with BUSY."""

BUSY_RETRY_S = 0.1
KEPT_ANSWERS = 256
"""Answers remembered for a manager that asks again; their bodies live as long as the body holder keeps them."""

PROGRESS_INTERVAL_S = 0.05
DEFAULT_REQUEST_S = 10.0

EXPIRY_GRACE_S = 1.0
"""After its caller's deadline: a manager gives up first, and cancels."""

SWEEP_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Asked:
    """expires_at: when nobody waits any more. delayed: what will send it, where chaos delays it."""

    manager: str
    hop: int
    session: LinkSession
    span: Span
    expires_at: float
    reported_at: float = 0.0
    delayed: asyncio.Task[None] | None = None


class Asking:
    """Glue between the link subjects and the sessions. Owned by TransportServer."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        holder: BodyHolder,
        transport: str,
        clock: Clock,
        traces_cross: bool,
        chaos: Chaos,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._holder = holder
        self._transport = transport
        self._clock = clock
        self._traces_cross = traces_cross
        self._chaos = chaos
        self._asked: dict[bytes, _Asked] = {}
        self._none_left = asyncio.Event()
        self._answers: OrderedDict[bytes, tuple[PeerAnswer, BodyRef | None]] = OrderedDict()

    async def idle(self) -> None:
        """Wait until every request has its answer."""
        while self._asked:
            self._none_left.clear()
            await self._none_left.wait()

    def knows(self, request_id: bytes) -> bool:
        """Whether it is out, or its answer is here: asking again is then no new request."""
        return request_id in self._asked or request_id in self._answers

    async def send(
        self, session: LinkSession | None, call: SendRequest, incoming: Incoming, is_member: bool
    ) -> Accepted:
        """Put a request on a link; session: one that new requests may go on, None where there is none.

        Raises: SwarmbridgeError with the cause that refused it.
        """
        remaining_s = incoming.remaining_s(unix_ms(), DEFAULT_REQUEST_S)
        asked = self._asked.get(call.request_id)
        # On a link that has been closed it is lost, whether or not LinkDown has come: it goes out again on another.
        if asked is not None and asked.session.closed_cause is None:
            asked.manager, asked.hop = call.manager, call.hop
            asked.expires_at = max(asked.expires_at, self._clock() + remaining_s + EXPIRY_GRACE_S)
            return self._accepted(asked.session)
        if call.request_id in self._answers:
            answer, body = self._answers[call.request_id]
            # Ahead of our reply: the machine takes an answer before its acceptance.
            await self._notify(call.manager, LinkAnswer(call.request_id, call.hop, answer, body))
            return self._accepted(session)
        if session is None:
            raise RemoteFailure(Cause.NO_LINK)
        if len(self._asked) >= MAX_ASKED or session.speech.asked_count >= session.speech.max_asked:
            raise RemoteFailure(Cause.BUSY, BUSY_RETRY_S)
        span = tracer().start_span(
            names.SPAN_LINK_REQUEST,
            attributes={
                names.TRANSPORT: self._transport,
                names.REQUEST_KIND: type(call.request).__name__,
            },
        )
        asked = _Asked(call.manager, call.hop, session, span, self._clock() + remaining_s + EXPIRY_GRACE_S)
        # A dropped one is kept as asked: to the manager it is out, and silent.
        if self._harmed(asked, call, incoming, is_member):
            return self._accepted(session)
        # Before it is put: what comes of it at once finds it known.
        self._asked[call.request_id] = asked
        self._put(asked, call, incoming, is_member)
        if not session.speech.confirms:  # accepted is the most that can be known: nothing to wait for
            self._take(call.request_id)
            self._end(asked, None)
        return self._accepted(session)

    def cancel(self, request_id: bytes) -> None:
        """Nobody wants the answer any more; a native peer is notified."""
        self._forget_answer(request_id)
        asked = self._take(request_id)
        if asked is not None:
            asked.session.cancel(request_id)
            asked.span.end()

    def progress_due(self, request_id: bytes, body_bytes: int) -> bool:
        """Whether a manager should hear of this progress: an ack always, bytes every PROGRESS_INTERVAL_S."""
        asked = self._asked.get(request_id)
        if asked is None:
            return False
        now = self._clock()
        # The ack always passes: the manager times the link by it.
        if body_bytes and now - asked.reported_at < PROGRESS_INTERVAL_S:
            return False
        asked.reported_at = now
        return True

    async def progressed(self, request_id: bytes, body_bytes: int) -> None:
        asked = self._asked.get(request_id)
        if asked is not None:
            await self._notify(asked.manager, LinkProgress(request_id, asked.hop, body_bytes))

    async def answered(self, request_id: bytes, answer: PeerAnswer, data: bytes) -> None:
        asked = self._take(request_id)
        if asked is None:
            return
        body: BodyRef | None = None
        if data:
            try:
                body = self._holder.hold(data, CHUNK)
            except SwarmbridgeError as error:
                self._end(asked, error.cause)
                await self._notify(asked.manager, LinkFailed(request_id, asked.hop, error.cause))
                return
        asked.span.set_attribute(names.BODY_BYTES, len(data))
        self._end(asked, None)
        # Before the await: a manager that asks again meanwhile gets this one.
        self._answers[request_id] = (answer, body)
        while len(self._answers) > KEPT_ANSWERS:
            self._answers.popitem(last=False)
        await self._notify(asked.manager, LinkAnswer(request_id, asked.hop, answer, body))

    async def failed(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        asked = self._take(request_id)
        if asked is None:
            return
        self._end(asked, cause)
        await self._notify(asked.manager, LinkFailed(request_id, asked.hop, cause, retry_after_ms))

    async def link_down(self, session: LinkSession, cause: Cause) -> None:
        """Every request on the link has failed, at once."""
        for request_id in [key for key, asked in self._asked.items() if asked.session is session]:
            await self.failed(request_id, cause)

    async def withdraw(self, session: LinkSession, cause: Cause) -> None:
        """Want no answer of this peer any more: it is notified, and so are the managers."""
        for request_id in [key for key, asked in self._asked.items() if asked.session is session]:
            session.cancel(request_id)
            await self.failed(request_id, cause)

    async def sweep(self) -> None:
        """Forget requests whose time is over, until cancelled: the manager that wanted them may be gone."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            now = self._clock()
            for request_id in [key for key, asked in self._asked.items() if asked.expires_at <= now]:
                asked = self._asked.get(request_id)
                if asked is not None:  # else it has ended while the end of one before it was awaited
                    asked.session.cancel(request_id)
                    await self.failed(request_id, Cause.TIMEOUT)

    async def all_failed(self, cause: Cause) -> None:
        for request_id in list(self._asked):
            await self.failed(request_id, cause)

    def _put(self, asked: _Asked, call: SendRequest, incoming: Incoming, is_member: bool) -> None:
        with trace.use_span(asked.span, end_on_exit=False):
            # A stranger is not shown which of our requests belong together.
            traceparent = current_traceparent() if self._traces_cross and is_member else ""
        remaining_ms = int(incoming.remaining_s(unix_ms(), DEFAULT_REQUEST_S) * 1000)
        asked.session.ask(call.request_id, call.request, remaining_ms, traceparent)

    def _harmed(self, asked: _Asked, call: SendRequest, incoming: Incoming, is_member: bool) -> bool:
        """Whether chaos has taken the request; to the caller a dropped or delayed one is like any other.

        Raises: RemoteFailure(REFUSED).
        """
        assert asked.session.peer is not None
        injection = self._chaos.injection(asked.session.peer)
        if injection is None:
            return False
        asked.span.set_attribute(names.CHAOS_INJECTED, injection.fault.value)
        if injection.fault is Fault.REFUSE:
            self._end(asked, Cause.REFUSED)
            raise RemoteFailure(Cause.REFUSED)
        self._asked[call.request_id] = asked
        if injection.fault is Fault.DELAY:

            def send() -> None:
                asked.delayed = None
                if self._asked.get(call.request_id) is asked and incoming.remaining_s(unix_ms(), DEFAULT_REQUEST_S) > 0:
                    self._put(asked, call, incoming, is_member)

            asked.span.set_attribute(names.CHAOS_DELAY_MS, round(injection.delay_s * 1000))
            asked.delayed = self._chaos.later(injection.delay_s, send)
        return True

    def _accepted(self, session: LinkSession | None) -> Accepted:
        if session is None:  # it was answered before its link went
            return Accepted(self._bus.instance, "", 0.0)
        speech = session.speech
        return Accepted(self._bus.instance, session.link, speech.rtt_s * 1000, speech.acks, speech.confirms)

    def _take(self, request_id: bytes) -> _Asked | None:
        asked = self._asked.pop(request_id, None)
        if asked is not None and asked.delayed is not None:
            asked.delayed.cancel()
        if not self._asked:
            self._none_left.set()
        return asked

    def _forget_answer(self, request_id: bytes) -> None:
        kept = self._answers.pop(request_id, None)
        if kept is not None and kept[1] is not None:
            self._holder.release(kept[1].token)

    def _end(self, asked: _Asked, cause: Cause | None) -> None:
        if cause is not None:
            asked.span.set_attribute(names.ERROR_TYPE, cause.value)
            asked.span.set_status(StatusCode.ERROR)
        asked.span.end()

    async def _notify(self, manager: str, message: msgspec.Struct) -> None:
        try:
            await self._bus.publish(self._subjects.manager(manager), message)
        except BusError as error:
            # The caller's stub finds out by its pings and asks another manager, who asks us again.
            log.warning("a manager could not be notified: %s", error.cause.value)
