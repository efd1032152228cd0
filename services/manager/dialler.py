"""Opens links: for deliveries that have none, and ahead of need for peers that are wanted.

One dial a (peer, transport) at a time, whoever wants it. Cancellation: `tasks` ends every dial at close.
"""

from __future__ import annotations

import asyncio
import contextvars

from services.manager.delivery.steps import DialFailed, DialSucceeded
from services.manager.routing.facts import Routing
from services.manager.routing.rank import DIAL_LIMIT_S
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Dial, Dialled
from shared.bus.messages.subjects import Subjects
from shared.bus.serving import mark_failed
from shared.clock import Clock, unix_ms
from shared.errors import BusError, BusTimeout, BusUnavailable, Cause, NoResponders
from shared.ids import peer_name
from shared.settings.blocklist import Direction
from shared.tasks.owned import Tasks
from shared.telemetry import names, tracer
from shared.telemetry.propagation import current_traceparent
from shared.transports import TransportName

MAX_DIALS = 256
"""Dials in flight in one manager; one more is answered BUSY."""

MAX_PROBES = 64
"""Of these, dials ahead of need: more wanted peers than that wait for the next look."""

LOOK_INTERVAL_S = 0.5
"""How often it is looked whom to probe; each is dialled at most every PROBE_INTERVAL_S."""


class Dialler:
    """Dials over the bus and reports to the book and the breakers what came of it."""

    def __init__(self, bus: Bus, subjects: Subjects, routing: Routing, clock: Clock, tasks: Tasks) -> None:
        self._bus = bus
        self._subjects = subjects
        self._routing = routing
        self._clock = clock
        self._tasks = tasks
        self._in_flight: dict[tuple[str, TransportName], asyncio.Task[Cause | None]] = {}

    async def dial(self, peer: str, transport: TransportName) -> DialSucceeded | DialFailed:
        """Have a link to the peer. Takes DIAL_LIMIT_S at most."""
        task = self._in_flight.get((peer, transport))
        if task is None:
            cause = self._known_failure(peer, transport)
            if cause is not None:
                return DialFailed(transport, cause, tried=False)
            task = self._start(peer, transport)
        # Others may wait for the same dial: who stops waiting must not end it.
        cause = await asyncio.shield(task)
        return DialSucceeded(transport) if cause is None else DialFailed(transport, cause)

    def _known_failure(self, peer: str, transport: TransportName) -> Cause | None:
        """Why a dial is not even tried."""
        if self._routing.blocked(peer, Direction.OUTBOUND):
            return Cause.BLOCKED
        recent = self._routing.book.recent_dial_failure(peer, transport, self._clock())
        if recent is None and len(self._in_flight) >= MAX_DIALS:
            return Cause.BUSY
        return recent

    async def keep_warm(self) -> None:
        """Probe wanted peers until cancelled. Circuits do not matter here: probes are how they close again."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            for peer, transport in self._routing.due_probes(self._clock()):
                if len(self._in_flight) >= MAX_PROBES:
                    break
                if (peer, transport) not in self._in_flight:
                    # Nobody's trace: a probe serves no delivery in particular.
                    contextvars.Context().run(self._start, peer, transport)

    def _start(self, peer: str, transport: TransportName) -> asyncio.Task[Cause | None]:
        key = (peer, transport)
        self._routing.book.dialled(peer, transport, self._clock())
        task = self._tasks.start(self._dial(peer, transport), name="dial")
        self._in_flight[key] = task
        task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return task

    async def _dial(self, peer: str, transport: TransportName) -> Cause | None:
        if not current_traceparent():
            return await self._ask(peer, transport)  # a probe
        # A span of our own: without one, the worker's would hang under the caller's, as if that had dialled.
        with tracer().start_as_current_span(
            f"{names.SPAN_TRANSPORT_DIAL} {transport}", record_exception=False, set_status_on_exception=False
        ) as span:
            cause = await self._ask(peer, transport)
            if cause is not None:
                mark_failed(span, cause)
            return cause

    async def _ask(self, peer: str, transport: TransportName) -> Cause | None:
        cause: Cause | None = None
        try:
            await self._bus.request(self._subjects.dial(transport), Dial(peer), Dialled, DIAL_LIMIT_S)
        except (NoResponders, BusUnavailable):
            # No worker of that transport is running, or none can be reached.
            cause = Cause.WORKER_LOST
        except BusTimeout:
            cause = Cause.DIAL_TIMEOUT
        except BusError as error:
            cause = error.cause
        if cause is None:
            self._routing.book.linked(peer, transport, self._clock())
            self._routing.breakers.proved(peer_name(peer), transport.value, unix_ms())
        else:
            self._routing.book.dial_failed(peer, transport, cause, self._clock())
        return cause
