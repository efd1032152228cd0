"""Requests of peers to us: stamped, handed to a manager, answered from the chunk service's body.

The body is pulled range by range when the link has room, so a slow link holds back its own pulls and nobody
else's. If its holder dies in the middle, the request is handed in once more and the pull goes on at the same
offset from another instance: the peer sees a pause, not a failure. Where another instance cannot go on with the same
answer, the peer is notified: what was promised in a header ends in a body or in a failure, never in silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from opentelemetry import context, trace
from opentelemetry.trace import Span, StatusCode

from shared.bus import bodies
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import ROLE_MEMBER, BodyRef, Inbound, InboundAnswer, Stamp
from shared.bus.messages.subjects import Subjects
from shared.content.messages import NotFound
from shared.errors import Cause, NoResponders, RemoteFailure, SwarmbridgeError
from shared.speech.contract import RequestReceived
from shared.tasks.owned import Tasks
from shared.telemetry import names, tracer
from shared.telemetry.propagation import context_of, link_to
from shared.worker.session import LinkSession, cause_of

MAX_REQUEST_S = 30.0
"""The longest that we work on a peer's request, whatever it asks for (swarm-space's request timeout)."""

SOURCE_TRIES = 3
"""Times a request is handed in before its body's loss is the peer's to handle."""

SOURCE_RETRY_S = 0.1

WOULD_NOT = frozenset(
    {
        Cause.BLOCKED,
        Cause.BUSY,
        Cause.RATE_LIMITED,
        Cause.FORBIDDEN,
        Cause.TOO_LARGE,
        Cause.INVALID,
        Cause.DISABLED,
        Cause.DRAINING,
    }
)
"""Refusals, which are counted; the other causes say that we could not."""

log = logging.getLogger(__name__)


class PeerRequests:
    """Glue between the sessions and `inbound`. Owned by TransportServer; tasks are the server's.

    refused: counts a refusal, whichever process of the node it came from.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        transport: str,
        propagation: str,
        tasks: Tasks,
        refused: Callable[[Cause], None],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._transport = transport
        self._propagation = propagation
        self._tasks = tasks
        self._refused = refused
        self._running: dict[tuple[str, bytes], asyncio.Task[None]] = {}

    async def idle(self) -> None:
        """Wait until every request has been answered."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    def start(self, session: LinkSession, event: RequestReceived, role: str) -> None:
        key = (session.link, event.request_id)
        task = self._tasks.start(self._serve(session, event, role), name="serve")
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))

    def cancel(self, session: LinkSession, request_id: bytes) -> None:
        task = self._running.get((session.link, request_id))
        if task is not None:
            task.cancel()

    def link_down(self, session: LinkSession) -> None:
        for (link, _), task in list(self._running.items()):
            if link == session.link:
                task.cancel()

    def refuse_open(self, session: LinkSession, cause: Cause) -> None:
        """Stop serving the link's requests and say to the peer why; it may send others."""
        # Stopped first: no task of ours sends more of an answer after its failure.
        self.link_down(session)
        for request_id in session.speech.open_requests():
            self._refused(cause)
            session.fail(request_id, cause)

    async def _serve(self, session: LinkSession, event: RequestReceived, role: str) -> None:
        span = self._start_span(event, role)
        remaining_s = min(MAX_REQUEST_S, event.remaining_ms / 1000)
        # So that what is asked of the bus for it hangs under its span.
        token = context.attach(trace.set_span_in_context(span))
        try:
            async with asyncio.timeout(remaining_s):
                await self._answer(session, event, role, span)
        except TimeoutError:
            self._fail(session, event.request_id, Cause.TIMEOUT, 0, span)
        except SwarmbridgeError as error:
            retry_after_s = error.retry_after_s if isinstance(error, RemoteFailure) else 0.0
            self._fail(session, event.request_id, cause_of(error), retry_after_s, span)
        except Exception as error:  # a bug of ours: the peer is to hear that there will be no answer
            log.error("a request could not be served: %s", type(error).__name__, exc_info=_debug(error))
            self._fail(session, event.request_id, Cause.OTHER, 0, span)
        finally:
            context.detach(token)
            span.end()

    async def _answer(self, session: LinkSession, event: RequestReceived, role: str, span: Span) -> None:
        sent = 0
        promised: InboundAnswer | None = None
        for remaining_tries in reversed(range(SOURCE_TRIES)):
            try:
                reply = await self._hand_in(session, event, role)
                body_bytes = reply.body.length if reply.body else 0
                if promised is None:
                    session.answer(event.request_id, reply.answer, body_bytes)
                    promised = reply
                    span.set_attribute(names.BODY_BYTES, body_bytes)
                    span.set_attribute(names.FOUND, not isinstance(reply.answer, NotFound))
                # The header is out: the peer would put the rest of another body behind the bytes it has.
                elif not _goes_on(promised, reply):
                    raise SwarmbridgeError(Cause.SOURCE_LOST, "the rest of the body is not there any more")
                if reply.body is None:
                    return
                async for data in bodies.pull_ranges(
                    self._bus, self._subjects, reply.body, start=sent, timeout_s=MAX_REQUEST_S
                ):
                    await session.send_body(event.request_id, data)
                    sent += len(data)
            except SwarmbridgeError as error:
                # Only what another manager or another instance may do better.
                if error.cause not in (Cause.SOURCE_LOST, Cause.NO_LINK) or remaining_tries == 0:
                    raise
                await asyncio.sleep(SOURCE_RETRY_S)
            else:
                # The holder frees it now instead of when its time is up.
                await self._release(reply.body)
                return

    async def _hand_in(self, session: LinkSession, event: RequestReceived, role: str) -> InboundAnswer:
        assert session.peer is not None
        stamp = Stamp(self._transport, role, session.peer, session.link)
        call = Inbound(stamp, event.request_id, event.request)
        try:
            return await self._bus.request(
                self._subjects.inbound(self._transport), call, InboundAnswer, timeout_s=MAX_REQUEST_S
            )
        except NoResponders:
            raise SwarmbridgeError(Cause.SOURCE_LOST, "no manager") from None

    async def _release(self, body: BodyRef) -> None:
        await bodies.release(self._bus, self._subjects, body)

    def _fail(self, session: LinkSession, request_id: bytes, cause: Cause, retry_after_s: float, span: Span) -> None:
        if cause in WOULD_NOT:
            self._refused(cause)
        session.fail(request_id, cause, int(retry_after_s * 1000))
        span.set_attribute(names.ERROR_TYPE, cause.value)
        span.set_status(StatusCode.ERROR)

    def _start_span(self, event: RequestReceived, role: str) -> Span:
        # A stranger's trace context is not taken: it would choose our trace ids and show others our work.
        crossing = self._propagation if role == ROLE_MEMBER else "off"
        return tracer().start_span(
            names.SPAN_LINK_SERVE,
            context=context_of(event.traceparent if crossing == "join" else ""),
            links=link_to(event.traceparent) if crossing == "link" else None,
            attributes={names.TRANSPORT: self._transport, names.REQUEST_KIND: type(event.request).__name__},
        )


def _goes_on(promised: InboundAnswer, reply: InboundAnswer) -> bool:
    """Whether the body of a second hand-in is the one whose header the peer has."""
    same_length = reply.body is not None and promised.body is not None and reply.body.length == promised.body.length
    return same_length and reply.answer == promised.answer


def _debug(error: BaseException) -> BaseException | None:
    return error if log.isEnabledFor(logging.DEBUG) else None
