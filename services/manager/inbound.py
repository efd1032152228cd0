"""Requests of peers to us: let in or refused, and handed to a chunk instance.

Bodies never pass here: the answer says where the worker pulls them from.
"""

from __future__ import annotations

from services.manager.routing.facts import Routing
from services.manager.routing.intake import MAX_OPEN, Intake
from shared.bus.contract import Bus, Handler, Incoming, Subscription
from shared.bus.messages.envelopes import ROLE_MEMBER, Inbound, InboundAnswer
from shared.bus.messages.subjects import QUEUE_MANAGER, Subjects
from shared.clock import Clock, unix_ms
from shared.errors import BusTimeout, Cause, NoResponders, RemoteFailure
from shared.settings.blocklist import Direction
from shared.transports import ORDER, TransportName

CHUNK_TIMEOUT_S = 2.0
"""An instance answers from the index in milliseconds; a stopped one keeps its share of the queue for seconds."""

CHUNK_TRIES = 2
"""The second is likely another instance: a killed one leaves the queue group within 26 ms (measured).

A guest has one: a look-up that takes this long holds one of the few places of all guests."""

SLOW_RETRY_S = 1.0
"""What a guest is asked to wait after such a look-up."""

MAX_HANDLERS = 4 * MAX_OPEN
"""More than are let in: who is refused is for the intake to choose. The bus, full, would refuse whoever comes, in a
burst of strangers too; what the intake refuses is over at once."""

DEFAULT_REQUEST_S = 10.0


class InboundDesk:
    """Serves `inbound.<transport>` of all three, in the queue group of the managers."""

    def __init__(self, bus: Bus, subjects: Subjects, routing: Routing, clock: Clock) -> None:
        self._bus = bus
        self._subjects = subjects
        self._routing = routing
        self._clock = clock
        self._intake = Intake()
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        for transport in ORDER:
            subject = self._subjects.inbound(transport)
            handler = self._handler(transport)
            self._subscriptions.append(
                await self._bus.serve(subject, Inbound, handler, queue=QUEUE_MANAGER, max_concurrent=MAX_HANDLERS)
            )

    async def close(self) -> None:
        """Take no more; those in flight go on."""
        while self._subscriptions:
            await self._subscriptions.pop().close()

    def _handler(self, transport: TransportName) -> Handler[Inbound]:
        async def handle(call: Inbound, incoming: Incoming) -> InboundAnswer:
            if call.stamp.transport != transport:
                # A worker stamps what came over its own links; the answer's body is held for that transport.
                raise RemoteFailure(Cause.INVALID)
            if not self._routing.enabled(transport):
                raise RemoteFailure(Cause.DISABLED)
            peer = call.stamp.peer
            # Its request came over a link, so there is one the other way too.
            self._routing.heard_from(peer, transport, self._clock(), unix_ms())
            if self._routing.blocked(peer, Direction.INBOUND):
                raise RemoteFailure(Cause.BLOCKED)
            refusal = self._intake.refusal(peer, call.stamp.role, self._clock())
            if refusal is not None:
                raise RemoteFailure(refusal.cause, refusal.retry_after_s)
            try:
                return await self._hand_on(call, incoming)
            finally:
                self._intake.done(peer, call.stamp.role)

        return handle

    async def _hand_on(self, call: Inbound, incoming: Incoming) -> InboundAnswer:
        for _ in range(CHUNK_TRIES):
            remaining_s = incoming.remaining_s(unix_ms(), DEFAULT_REQUEST_S)
            if remaining_s <= 0:
                raise RemoteFailure(Cause.EXPIRED)
            try:
                return await self._bus.request(
                    self._subjects.chunk_message, call, InboundAnswer, min(CHUNK_TIMEOUT_S, remaining_s)
                )
            except NoResponders:
                continue
            except BusTimeout:
                if call.stamp.role != ROLE_MEMBER:
                    raise RemoteFailure(Cause.BUSY, SLOW_RETRY_S) from None
        # The worker pauses and hands it in again (peer_requests.SOURCE_TRIES), perhaps to another manager.
        raise RemoteFailure(Cause.SOURCE_LOST)
