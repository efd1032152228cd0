"""A worker's links: transport events in, sealed sessions, and what they tell the bus.

Driven by the transport's synchronous `emit`; everything that must wait goes through one ordered queue, so
that a manager hears of progress, answers and failures in the order in which they happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from shared.bus.bodies import BodyHolder
from shared.bus.contract import Handler, Incoming
from shared.bus.messages.envelopes import ROLE_GUEST, ROLE_MEMBER, Accepted, Dial, SendRequest
from shared.bus.messages.records import LinkChanged
from shared.clock import Clock, unix_ms
from shared.errors import BusError, Cause, RemoteFailure, SwarmbridgeError, TransportError
from shared.ids import LinkId, PeerToken, peerjs_id, token_key
from shared.process.run import Process
from shared.settings.blocklist import Direction
from shared.settings.chaos import chaos_allowed
from shared.tasks.owned import Tasks
from shared.transport.contract import (
    LinkDown,
    LinkUp,
    PeerHint,
    RecordReceived,
    StateChanged,
    Transport,
    TransportEvent,
)
from shared.transports import TransportState
from shared.wire.native.link import (
    AnswerProgressed,
    AnswerReceived,
    Event,
    PeerFellSilent,
    PeerLeft,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    RequestRefused,
)
from shared.worker.asking import Asking
from shared.worker.chaos import Chaos
from shared.worker.gate import Gate
from shared.worker.identity import LinkIdentity
from shared.worker.routes import Routes
from shared.worker.serving import Serving
from shared.worker.session import LinkSession
from shared.worker.status import StatusTracker

MAX_QUEUED_EVENTS = 4096
"""Answers and failures waiting to be told; progress is dropped and the link closed beyond it."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Live:
    session: LinkSession
    task: asyncio.Task[None]


class Links:
    """All links of one worker. `identity` is set before the transport runs; `on_change` asks for a report."""

    def __init__(self, process: Process, transport: Transport, holder: BodyHolder, tasks: Tasks, clock: Clock) -> None:
        self.identity: LinkIdentity | None = None
        self.status = StatusTracker()
        self.on_change: Callable[[], None] = lambda: None
        self._bus, self._subjects = process.bus, process.subjects
        self._transport, self._tasks, self._clock = transport, tasks, clock
        self._members = frozenset(process.config.trust.members)
        propagation = process.config.telemetry.propagation
        name = transport.name.value
        self.chaos = Chaos(transport.name, process.flags, tasks, allowed=chaos_allowed(process.config.node))
        self.asking = Asking(self._bus, self._subjects, holder, name, clock, propagation != "off", self.chaos)
        self.serving = Serving(self._bus, self._subjects, name, propagation, tasks, self.status.refuse)
        self._gate = Gate(process.blocklist, self.status)
        process.blocklist.on_change(self._block_changed)
        self._routes = Routes(
            self._bus, self._subjects, name, self._handler_for, lambda work, task: tasks.start(work, name=task)
        )
        self._live: dict[LinkId, _Live] = {}
        self._by_peer: dict[PeerToken, list[LinkSession]] = {}
        self._dials: dict[PeerToken, set[asyncio.Future[LinkSession | Cause]]] = {}
        self._events: asyncio.Queue[tuple[LinkSession, Event | LinkDown]] = asyncio.Queue(MAX_QUEUED_EVENTS)
        tasks.start(self._tell_all(), name="tell")

    # ── what the transport says ──

    def receive(self, event: TransportEvent) -> None:
        """The transport's `emit`."""
        match event:
            case LinkUp():
                self._link_up(event)
            case RecordReceived():
                live = self._live.get(event.link)
                if live is not None:
                    self.status.bytes_in += len(event.record)
                    live.session.receive_record(event.record)
            case LinkDown():
                self._link_down(event)
            case StateChanged():
                self.status.transport_says(event.state, event.last_error)
                self.on_change()

    def failed(self, cause: Cause) -> None:
        """The transport itself broke; it is run again."""
        self.status.transport_says(TransportState.ERROR, cause)
        self.on_change()

    def peers(self) -> list[PeerToken]:
        """Peers with a sealed link."""
        return list(self._by_peer)

    def transport_refused(self) -> Counter[str]:
        """What the transport itself refused by its limits, by cause, where it counts."""
        refused = getattr(self._transport, "refused", None)
        return refused if isinstance(refused, Counter) else Counter()

    def reset_counters(self) -> None:
        """Switched off, or on again: what is counted starts anew, the transport's own refusals too."""
        self.status.reset()
        self.transport_refused().clear()
        self.chaos.reset()

    # ── what the bus asks ──

    async def dial(self, call: Dial, timeout_s: float) -> LinkSession:
        """A routed, sealed link to the peer: one that is there, or a new one.

        Raises: TransportError with the cause.
        """
        peer = PeerToken(call.peer)
        key = token_key(peer)
        if key is None:
            raise TransportError(Cause.PEER_UNKNOWN)
        self._gate.check_outbound(peer)
        try:
            async with asyncio.timeout(timeout_s):
                hint = PeerHint(key, peerjs_id(key), tuple(call.endpoints))
                opened = self._usable(peer) or await self._dial_and_wait(peer, hint, timeout_s)
                await self._routes.routed(peer)
        except TimeoutError:
            raise TransportError(Cause.DIAL_TIMEOUT) from None
        session = self._usable(peer)
        if session is None:  # sealed, and closed again before it was of any use: the peer may have told why
            raise TransportError(opened.closed_cause or Cause.CLOSED)
        return session

    async def drain(self, grace_s: float) -> None:
        """Tell peers to open another link, take no more requests, let answers under way end."""
        self._routes.drop_all()
        for session in self._sealed_sessions():
            session.send_control(session.native.goodbye())
        try:
            async with asyncio.timeout(grace_s):
                await self._routes.settled()
                await self.serving.idle()
                await self.asking.idle()
                for session in self._sealed_sessions():
                    await session.flush()
        except TimeoutError:
            log.info("drain ended by its grace")
        await self.asking.all_failed(Cause.DRAINING)

    def part(self, cause: Cause) -> None:
        """The transport is about to be stopped: that, and no failure, is why its links go down."""
        for live in self._live.values():
            live.session.parting_cause = live.session.parting_cause or cause

    async def all_gone(self, cause: Cause) -> None:
        """The transport has stopped: nothing is left of its links."""
        for link in list(self._live):
            self._link_down(LinkDown(link, cause))
        await self.asking.all_failed(cause)
        await self._routes.settled()

    # ── within ──

    def _sealed_sessions(self) -> list[LinkSession]:
        return [session for sessions in self._by_peer.values() for session in sessions]

    def _handler_for(self, peer: PeerToken) -> Handler[SendRequest]:
        async def handle(call: SendRequest, incoming: Incoming) -> Accepted:
            session = self._usable(peer)
            if session is None:
                raise RemoteFailure(Cause.NO_LINK)
            try:
                self._gate.check_outbound(peer)
                return await self.asking.send(session, call, incoming, peer in self._members)
            except SwarmbridgeError as error:
                self.status.send_failed(error.cause)
                if error.cause is Cause.BUSY:
                    self.status.refuse(error.cause)
                raise

        return handle

    def _usable(self, peer: PeerToken) -> LinkSession | None:
        """The open link of the peer with the least to do."""
        sessions = [session for session in self._by_peer.get(peer, ()) if session.closed_cause is None]
        staying = [session for session in sessions if not session.leaving] or sessions
        return min(staying, key=lambda session: session.native.asked_count, default=None)

    async def _dial_and_wait(self, peer: PeerToken, hint: PeerHint, timeout_s: float) -> LinkSession:
        waiting: asyncio.Future[LinkSession | Cause] = asyncio.get_running_loop().create_future()
        others = self._dials.setdefault(peer, set())
        first = not others
        others.add(waiting)
        try:
            if first:
                try:
                    await self._transport.dial(hint, timeout_s)
                except TransportError as error:
                    self._settle_dials(peer, error.cause)
            outcome = await waiting
        finally:
            self._dials[peer].discard(waiting)
            if not self._dials[peer]:
                del self._dials[peer]
        if isinstance(outcome, Cause):
            raise TransportError(outcome)
        return outcome

    def _settle_dials(self, peer: PeerToken, outcome: LinkSession | Cause) -> None:
        for waiting in self._dials.get(peer, ()):
            if not waiting.done():
                waiting.set_result(outcome)

    def _link_up(self, up: LinkUp) -> None:
        assert self.identity is not None, "the transport runs before it has an identity"
        seal = self.identity.seal_for(self._transport.name.value, up)
        session = LinkSession(self._transport, up, seal, self._sealed, self._session_event, self._clock)
        self._live[up.link] = _Live(session, self._tasks.start(session.run(), name="link"))

    def _sealed(self, session: LinkSession) -> None:
        assert session.peer is not None
        assert self.identity is not None
        if token_key(session.peer) == self.identity.certificate.identity_key:
            session.close_soon(Cause.REFUSED)  # another worker of this node, met in the swarm
            return
        refusal = self._gate.refusal_of_link(session, len(self._by_peer.get(session.peer, ())))
        if refusal is not None:
            self._tasks.start(session.dismiss(refusal), name="dismiss")
            return
        self._by_peer.setdefault(session.peer, []).append(session)
        self._routes.want(session.peer)
        self._settle_dials(session.peer, session)
        self._announce(session, "opened", None)

    def _link_down(self, down: LinkDown) -> None:
        live = self._live.pop(down.link, None)
        if live is None:
            return
        session = live.session
        cause = session.closed_cause or session.parting_cause or down.cause
        session.closed_cause = cause
        live.task.cancel()
        self.status.bytes_out += session.bytes_out
        self.serving.link_down(session)
        self._queue(session, LinkDown(down.link, cause))
        others = self._by_peer.get(session.peer, []) if session.peer else []
        if session.peer is None or session not in others:
            self._never_sealed(session, cause)
            return
        others.remove(session)
        if not others:
            del self._by_peer[session.peer]
            self._routes.drop(session.peer)
        self._announce(session, "closed", cause)

    def _never_sealed(self, session: LinkSession, cause: Cause) -> None:
        if cause is Cause.UNAUTHENTICATED:
            self.status.refuse(cause)
            self.status.send_failed(cause)
        if session.expected_key is not None:
            for peer in list(self._dials):
                if token_key(peer) == session.expected_key:
                    self._settle_dials(peer, cause)
        self.on_change()

    def _session_event(self, session: LinkSession, event: Event) -> None:
        assert session.peer is not None
        self.status.message_came(self._clock())
        match event:
            case RequestReceived():
                self._serve(session, event)
            case RequestRefused():
                self.status.refuse(event.cause)
            case RequestCancelled():
                self.serving.cancel(session, event.request_id)
            case PeerLeft():
                session.leaving = True
                if event.cause is not None:
                    session.close_soon(event.cause)
            case AnswerProgressed():
                if self.asking.progress_due(event.request_id, event.bytes):
                    self._queue(session, event)
            case AnswerReceived() | RequestFailed():
                self._queue(session, event)
            case PeerFellSilent():
                pass

    def _serve(self, session: LinkSession, event: RequestReceived) -> None:
        refusal = self._gate.refusal_of_request(session)
        if refusal is not None:
            session.send_control(session.native.fail(event.request_id, refusal))
            return
        self.serving.start(session, event, self._role(session))

    def _role(self, session: LinkSession) -> str:
        return ROLE_MEMBER if session.peer in self._members else ROLE_GUEST

    def _block_changed(self, peer: str) -> None:
        """The blocklist has changed for the peer with this name: it is in force on its open links now."""
        for session in [one for one in self._sealed_sessions() if one.peer_name == peer]:
            if self._gate.blocked(session, Direction.INBOUND):
                self.serving.refuse_open(session, Cause.BLOCKED)
            if self._gate.blocked(session, Direction.OUTBOUND):
                self._tasks.start(self.asking.withdraw(session, Cause.BLOCKED), name="withdraw")
            if self._gate.blocked(session, Direction.ALL):
                self._tasks.start(session.dismiss(Cause.BLOCKED), name="dismiss")

    def _queue(self, session: LinkSession, event: Event | LinkDown) -> None:
        try:
            self._events.put_nowait((session, event))
        except asyncio.QueueFull:
            self.status.refuse(Cause.BUSY)
            log.error("too many answers wait for the bus; one was dropped")

    async def _tell_all(self) -> None:
        while True:
            session, event = await self._events.get()
            match event:
                case AnswerProgressed():
                    await self.asking.progressed(event.request_id, event.bytes)
                case AnswerReceived():
                    await self.asking.answered(event.request_id, event.answer, event.body)
                case RequestFailed():
                    self.status.send_failed(event.cause)
                    await self.asking.failed(event.request_id, event.cause, event.retry_after_ms)
                case LinkDown():
                    await self.asking.link_down(session, event.cause)

    def _announce(self, session: LinkSession, change: str, cause: Cause | None) -> None:
        self.on_change()
        name, worker = self._transport.name.value, self._bus.instance
        log.info("link to %s %s: %s", session.peer_name, change, cause.value if cause else "sealed")
        event = LinkChanged(name, worker, session.peer_name, self._role(session), change, cause, unix_ms())
        self._tasks.start(self._publish_change(event), name="event")

    async def _publish_change(self, event: LinkChanged) -> None:
        try:
            await self._bus.publish(self._subjects.event("link"), event)
        except BusError:
            log.debug("link event not published: no bus")
