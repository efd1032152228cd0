"""What happens to a message between the wire and a handler: the same for every kind of bus.

Decode, drop what is expired, refuse what is over the bound, run the handler in a task of its own (nats-py
calls back one message after another, docs/nats.md) inside the sender's trace context, and answer with what it
returned or raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from types import UnionType
from typing import Any, Generic, TypeVar

from opentelemetry import trace

from shared.bus.contract import Handler, Incoming
from shared.bus.messages.codec import decode_envelope, encode_done, encode_refusal
from shared.bus.messages.envelopes import Envelope
from shared.clock import unix_ms
from shared.errors import BusError, Cause, RemoteFailure, SwarmbridgeError
from shared.tasks.ending import end_tasks
from shared.telemetry import names, tracer
from shared.telemetry.propagation import attached, current_traceparent

T = TypeVar("T")

Respond = Callable[[bytes], Awaitable[None]]
"""Sends a reply's bytes to whoever asked."""

BUSY_RETRY_AFTER_S = 0.05
"""Given to a caller whose request found max_concurrent handlers running: about one handler's time."""

MAX_REFUSALS_IN_FLIGHT = 1024
"""Tasks that send refusals; beyond it a refusal is not sent and the caller times out."""

DRAIN_S = 2.0
"""How long handlers in flight may take to finish when the bus closes; then they are cancelled."""

OUR_FILES = f"{Path(__file__).parents[2]}/"
"""What the paths of our own modules start with."""

log = logging.getLogger(__name__)


@dataclass
class BusCounts:
    """What went wrong on the bus in this process. slow_consumer, denied, strays and crashed are alarms: none should be.

    strays: messages that no service of ours sends, or whose answer would go where no caller hears it. crashed: handlers
    that raised what is no error of ours.
    """

    expired: int = 0
    undecodable: int = 0
    busy: int = 0
    slow_consumer: int = 0
    denied: int = 0
    unsent_replies: int = 0
    reconnects: int = 0
    strays: int = 0
    crashed: int = 0


class Serving(Generic[T]):
    """One served subject: at most `max_concurrent` handlers, each in an owned task."""

    def __init__(
        self, body_type: type[T] | UnionType, handler: Handler[T], max_concurrent: int, counts: BusCounts
    ) -> None:
        self._body_type = body_type
        self._handler = handler
        self._max_concurrent = max_concurrent
        self._counts = counts
        self._running: set[asyncio.Task[None]] = set()
        self._refusing: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether a handler is in flight."""
        return bool(self._running or self._refusing)

    def receive(self, subject: str, data: bytes, respond: Respond | None) -> None:
        """Take one message; never blocks and never raises. respond None: nobody waits for a reply."""
        try:
            envelope = decode_envelope(data, self._body_type)
        except SwarmbridgeError as error:
            self._counts.undecodable += 1
            log.warning("undecodable message, %d so far", self._counts.undecodable)
            self._refuse(respond, error.cause)
            return
        # No answer: whoever asked has given up by the same deadline.
        if envelope.deadline_ms and unix_ms() >= envelope.deadline_ms:
            self._counts.expired += 1
            return
        if len(self._running) >= self._max_concurrent:
            self._counts.busy += 1
            self._refuse(respond, Cause.BUSY, BUSY_RETRY_AFTER_S)
            return
        self._spawn(self._running, self._run(subject, envelope, respond))

    async def finish(self, timeout_s: float = DRAIN_S) -> None:
        """Let handlers in flight end, then cancel the rest."""
        tasks = self._running | self._refusing
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        await end_tasks(late)

    def cancel(self) -> None:
        """Stop every handler at once, without waiting for them to end."""
        for task in self._running | self._refusing:
            task.cancel()

    def _refuse(self, respond: Respond | None, cause: Cause, retry_after_s: float = 0.0) -> None:
        if respond is None:
            return
        if len(self._refusing) >= MAX_REFUSALS_IN_FLIGHT:
            self._unsent("too many refusals at once")
            return
        self._spawn(self._refusing, self._reply(respond, encode_refusal(cause, retry_after_s)))

    def _spawn(self, owner: set[asyncio.Task[None]], work: Any) -> None:
        # A fresh context: nothing of what was current where the subject was served (docs/telemetry.md).
        task = asyncio.get_running_loop().create_task(work, context=Context())
        owner.add(task)
        task.add_done_callback(owner.discard)

    async def _run(self, subject: str, envelope: Envelope[T], respond: Respond | None) -> None:
        incoming = Incoming(subject, envelope.deadline_ms, envelope.traceparent)
        with attached(envelope.traceparent), _process_span(subject, envelope.traceparent) as failed:
            try:
                # A handler has no time limit of ours: its caller's deadline is in `incoming`.
                data = encode_done(await self._handler(envelope.body, incoming))
            except SwarmbridgeError as error:
                failed(error.cause)
                data = encode_refusal(error.cause, error.retry_after_s if isinstance(error, RemoteFailure) else 0.0)
            except Exception as error:
                failed(Cause.OTHER)
                self._counts.crashed += 1
                # The text may hold what must not be logged; the whole traceback is for debugging only.
                log.error(
                    "a bug of ours: a handler raised %s at %s, %d so far",
                    type(error).__name__,
                    _raised_at(error),
                    self._counts.crashed,
                    exc_info=log.isEnabledFor(logging.DEBUG),
                )
                data = encode_refusal(Cause.OTHER)
            if respond is not None:
                await self._reply(respond, data)

    def _unsent(self, reason: str) -> None:
        self._counts.unsent_replies += 1
        log.warning("a reply was not sent: %s; %d so far", reason, self._counts.unsent_replies)

    async def _reply(self, respond: Respond, data: bytes) -> None:
        try:
            await respond(data)
        except SwarmbridgeError as error:
            self._unsent(error.cause.value)
            # Short enough to be sent: the caller learns now what it would else wait out.
            if error.cause is Cause.TOO_LARGE:
                log.error("a reply was over the bus's message size")
                await self._reply(respond, encode_refusal(Cause.TOO_LARGE))


def _raised_at(error: BaseException) -> str:
    """The file and line that raised, and the last of ours on the way there, where that is another."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    ours = [place for place in frames if place[0].startswith(OUR_FILES)]
    places = dict.fromkeys([*ours[-1:], *frames[-1:]])
    return " in ".join(f"{name.removeprefix(OUR_FILES)}:{line}" for name, line in reversed(places))


@contextmanager
def _process_span(subject: str, traceparent: str) -> Iterator[Callable[[Cause], None]]:
    """The CONSUMER span of a traced subject, a child of the message's context.

    The messaging conventions want a link to that context as well. None here: a backend that keeps one reference a
    span (Jaeger) would keep the link, and show each process as the root of a trace of its own.
    """
    template = names.template(subject) if traceparent else None
    if template is None:
        yield lambda cause: None
        return
    with tracer().start_as_current_span(
        f"process {template}",
        kind=trace.SpanKind.CONSUMER,
        attributes=messaging_attributes("process", template),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield lambda cause: mark_failed(span, cause)


@contextmanager
def send_span(subject: str) -> Iterator[str]:
    """The PRODUCER span of a request to a traced subject, where something is being recorded.

    Yields the traceparent for the envelope. A BusError that passes sets the span's error.type.
    """
    template = names.template(subject) if trace.get_current_span().is_recording() else None
    if template is None:
        yield current_traceparent()
        return
    with tracer().start_as_current_span(
        f"send {template}",
        kind=trace.SpanKind.PRODUCER,
        attributes=messaging_attributes("send", template),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield current_traceparent()
        except BusError as error:
            mark_failed(span, error.cause)
            raise


def messaging_attributes(operation: str, template: str) -> dict[str, str]:
    return {
        names.MESSAGING_SYSTEM: "nats",
        names.MESSAGING_OPERATION: operation,
        names.MESSAGING_TEMPLATE: template,
    }


def mark_failed(span: trace.Span, cause: Cause) -> None:
    """ERROR and a low-cardinality error.type, the same word as everywhere else."""
    span.set_status(trace.Status(trace.StatusCode.ERROR))
    span.set_attribute(names.ERROR_TYPE, cause.value)
