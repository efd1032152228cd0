"""One delivery: ask a peer through a manager, pull and check what it answers, tell the manager the verdict.

Each delivery is one trace: its root span is UNSET when a fallback saved it, ERROR only when it failed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from shared.bus.bodies import pull, release
from shared.bus.calls import Calls
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import (
    Answered,
    CancelDelivery,
    Deliver,
    Done,
    Receipt,
    ReplyMessage,
    Slowed,
    Verdict,
)
from shared.bus.messages.subjects import Subjects
from shared.content.messages import NotFound, PeerAnswer, PeerRequest, RequestChunk
from shared.errors import BusError, Cause, RemoteProtocolError, SwarmbridgeError
from shared.ids import new_request_id, peer_name
from shared.telemetry import names, tracer
from shared.telemetry.propagation import current_traceparent, link_to

DELIVERY_TIMEOUT_S = 10.0
"""The deadline of a delivery (docs/delivering.md), every fallback included."""
PULL_TIMEOUT_S = 8.0
PULL_STALL_S = 4.0
"""A worker that is silent this long on a bus that is well has hung: another hop still fits into the delivery. A bus
that hangs is noticed within 3 s."""

VERDICT_TIMEOUT_S = 1.0

Slow = Callable[[float], None]
"""Called when the peer, or a link to it, has no room: seconds until there may be; 0 = not said."""

Accept = Callable[[PeerAnswer, bytes], Awaitable[None]]
"""Check an answer and keep it. A raised RemoteProtocolError is the verdict on the peer's answer; any other
SwarmbridgeError says that the answer is good and that we cannot keep it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivered:
    """How a delivery ended. found: an answer was checked and kept; else cause says why not.

    transport, size_bytes: of the answer that was kept; "" and 0 for none. ours: the answer was good and could not be
    kept here, which is neither the peer's fault nor the transport's.
    """

    found: bool
    cause: Cause | None = None
    transport: str = ""
    size_bytes: int = 0
    ours: bool = False

    @property
    def absent(self) -> bool:
        """The peer answered that it does not hold it."""
        return not self.found and self.cause is None


class Deliveries:
    """All deliveries of this process. calls: to managers, started by its owner."""

    def __init__(self, bus: Bus, subjects: Subjects, calls: Calls) -> None:
        self._bus = bus
        self._subjects = subjects
        self._calls = calls

    async def ask(
        self,
        peer: str,
        request: PeerRequest,
        max_bytes: int,
        accept: Accept,
        *,
        transfer: str = "",
        on_slow: Slow = lambda _: None,
    ) -> Delivered:
        """Get one answer from one peer, over whichever transport works.

        Args:     peer: token. max_bytes: of the answer's body. transfer: for people, "" for none. on_slow: see Slow.
        Returns:  how it ended; a failure is a result here, not an error.
        """
        # A root of its own, linked to its transfer's: a file of thousands of chunks would be one trace that no viewer
        # opens, and a sampler could not keep a chunk's fallback without all its successes.
        with tracer().start_as_current_span(
            names.SPAN_CHUNK_FETCH,
            context=Context(),
            links=link_to(current_traceparent()),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            span.set_attribute(names.PEER_NAME, peer_name(peer))
            span.set_attribute(names.REQUEST_KIND, "chunk" if isinstance(request, RequestChunk) else "manifest")
            if transfer:
                span.set_attribute(names.TRANSFER, transfer)
            delivery = _Delivery(self._bus, self._subjects, request, max_bytes, accept, on_slow)
            deliver = Deliver(new_request_id(), self._bus.instance, peer, request, transfer)
            result = await self._call(deliver, delivery)
            _describe(span, result)
            return result

    async def _call(self, deliver: Deliver, delivery: _Delivery) -> Delivered:
        try:
            receipt = await self._calls.call(
                self._subjects.deliver,
                deliver.delivery_id,
                deliver,
                DELIVERY_TIMEOUT_S,
                delivery.on_message,
                on_cancel=CancelDelivery(deliver.delivery_id),
            )
        except BusError as error:
            cause: Cause | None = error.cause
        else:
            assert isinstance(receipt, Receipt)
            # Accepted: a peer has the request that cannot answer requests, so that nothing will come.
            cause = receipt.cause or {"confirmed": None, "accepted": Cause.SILENT}.get(receipt.outcome, Cause.OTHER)
        # What was checked and kept is here, whatever became of the receipt.
        if delivery.kept is not None:
            return delivery.kept
        if delivery.own_failure is not None:
            return Delivered(False, delivery.own_failure, ours=True)
        if delivery.absent:
            return Delivered(False)
        return Delivered(False, cause or Cause.OTHER)


class _Delivery:
    """The messages of one delivery. The first answer that passes is kept; a later one only gets its verdict."""

    def __init__(
        self, bus: Bus, subjects: Subjects, request: PeerRequest, max_bytes: int, accept: Accept, on_slow: Slow
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._request = request
        self._max_bytes = max_bytes
        self._accept = accept
        self._on_slow = on_slow
        self.kept: Delivered | None = None
        self.absent = False
        self.own_failure: Cause | None = None

    async def on_message(self, message: ReplyMessage) -> bool:
        if isinstance(message, Answered):
            await self._answered(message)
        elif isinstance(message, Slowed):
            self._on_slow(message.retry_after_ms / 1000)
        return isinstance(message, Receipt)

    async def _answered(self, answered: Answered) -> None:
        cause: Cause | None = None
        try:
            if isinstance(answered.answer, NotFound):
                self.absent = True
            # A second answer (a hedge's) that arrives after a good one is not pulled: its verdict ends its hop all the
            # same.
            elif self.kept is None:
                await self._keep(answered)
        except SwarmbridgeError as error:
            cause = error.cause
        if answered.body is not None:
            # Before the verdict: it ends the delivery, and the worker's room is free by then.
            await release(self._bus, self._subjects, answered.body)
        # Only what was verified counts as carried by its transport.
        size = answered.body.length if answered.body is not None and cause is None else 0
        await self._tell(answered.manager, Verdict(answered.delivery_id, answered.hop, cause, size))

    async def _keep(self, answered: Answered) -> None:
        length = answered.body.length if answered.body is not None else 0
        if length > self._max_bytes:
            raise SwarmbridgeError(Cause.TOO_LARGE, "an answer over its limit")
        try:
            body = b""
            if answered.body is not None:
                body = await pull(
                    self._bus, self._subjects, answered.body, timeout_s=PULL_TIMEOUT_S, stall_s=PULL_STALL_S
                )
        except SwarmbridgeError as error:
            if error.cause is Cause.SOURCE_LOST:
                # The holder of an incoming body is the worker: its loss is the hop's, not the peer's.
                raise SwarmbridgeError(Cause.WORKER_LOST, "the worker died with the answer") from error
            # Between a worker and us is nothing but our bus: no transport and no peer is to blame.
            raise SwarmbridgeError(Cause.BUS_UNAVAILABLE, "the answer could not be pulled") from error
        with tracer().start_as_current_span(
            names.SPAN_CHUNK_VERIFY, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute(names.TRANSPORT, answered.transport)
            try:
                await self._accept(answered.answer, body)
            except RemoteProtocolError as error:
                span.set_attribute(names.ERROR_TYPE, error.cause.value)
                span.set_status(Status(StatusCode.ERROR))
                log.warning("an answer over %s did not pass: %s", answered.transport, error.cause)
                raise
            except SwarmbridgeError as error:
                # The hop did all that it could, so its verdict is a good one.
                log.warning("an answer over %s could not be kept: %s", answered.transport, error.cause)
                self.own_failure = error.cause
                return
        self.kept = Delivered(True, None, answered.transport, length)

    async def _tell(self, manager: str, verdict: Verdict) -> None:
        try:
            await self._bus.request(self._subjects.manager(manager), verdict, Done, VERDICT_TIMEOUT_S)
        except BusError as error:
            # A manager that died is replaced by one that asks again, and gets the same verdict then.
            log.info("a verdict was not taken: %s", error.cause)


def _describe(span: Span, result: Delivered) -> None:
    span.set_attribute(names.FOUND, result.found)
    span.set_attribute(names.BODY_BYTES, result.size_bytes)
    if result.cause is not None:
        span.set_attribute(names.ERROR_TYPE, result.cause.value)
        span.set_status(Status(StatusCode.ERROR))
