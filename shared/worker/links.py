"""A worker's links: transport events in, sessions whose peer is known, and what they say on the bus.

Driven by the transport's synchronous `emit`; everything that must wait goes through one ordered queue (notices), so
that a manager hears of progress, answers and failures in the order in which they happened.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from shared.bus.bodies import BodyHolder
from shared.bus.contract import Handler, Incoming
from shared.bus.messages.envelopes import ROLE_GUEST, ROLE_MEMBER, Accepted, Dial, SendRequest
from shared.clock import Clock, unix_ms
from shared.errors import Cause, SwarmbridgeError, TransportError
from shared.ids import LinkId, PeerToken, guest_id, guest_token, peerjs_id, token_key
from shared.process.run import Process
from shared.settings.blocklist import Direction
from shared.settings.chaos import chaos_allowed
from shared.speech.budget import MAX_LINK_BYTES, MAX_WORKER_BYTES, ByteBudget
from shared.speech.contract import (
    Announced,
    AnswerProgressed,
    AnswerReceived,
    Event,
    NamedElsewhere,
    PeerLeft,
    PeerProved,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    SpeechEnded,
)
from shared.tasks.owned import Tasks
from shared.transport.contract import (
    HandsOver,
    LinkDown,
    LinkUp,
    PeerHint,
    RecordReceived,
    StateChanged,
    Transport,
    TransportEvent,
)
from shared.transports import TransportState
from shared.worker.asking import Asking
from shared.worker.chaos import Chaos
from shared.worker.dials import Dials
from shared.worker.gate import Gate
from shared.worker.identity import LinkIdentity
from shared.worker.interest import PeerInterest
from shared.worker.notices import Notices
from shared.worker.peer_requests import PeerRequests
from shared.worker.publishing import Publishing
from shared.worker.session import LinkSession
from shared.worker.speeches import SPEECHES, MakeSpeech, Opening
from shared.worker.status import StatusTracker
from shared.worker.tied_guests import TiedGuests

REFUSED_SPEECH = "speech"
"""How a link that asks for a speech we do not have is counted."""


@dataclass(slots=True)
class _Live:
    """guest: what the transport proved, which is all that an unsealed speech may go by."""

    session: LinkSession
    task: asyncio.Task[None]
    guest: str


class Links:
    """All links of one worker. `identity` is set before the transport runs; `on_change` asks for a report."""

    def __init__(
        self,
        process: Process,
        transport: Transport,
        holder: BodyHolder,
        tasks: Tasks,
        clock: Clock,
        speeches: Mapping[str, MakeSpeech] = SPEECHES,
    ) -> None:
        self.identity: LinkIdentity | None = None
        self.status = StatusTracker()
        self.on_change: Callable[[], None] = lambda: None
        self._bus, self._subjects = process.bus, process.subjects
        self._transport, self._tasks, self._clock = transport, tasks, clock
        self._speeches = speeches
        self._budget = ByteBudget(MAX_WORKER_BYTES)
        self._announced: tuple[str, ...] = ()
        self._members = frozenset(process.config.trust.members)
        propagation = process.config.telemetry.propagation
        name = transport.name.value
        self.chaos = Chaos(transport.name, process.flags, tasks, allowed=chaos_allowed(process.config.node))
        self.asking = Asking(self._bus, self._subjects, holder, name, clock, propagation != "off", self.chaos)
        self.serving = PeerRequests(self._bus, self._subjects, name, propagation, tasks, self.status.refuse)
        self._gate = Gate(process.blocklist, self.status)
        process.blocklist.on_change(self._block_changed)
        self._interest = PeerInterest(
            self._bus, self._subjects, name, self._handler_for, lambda work, task: tasks.start(work, name=task)
        )
        self._live: dict[LinkId, _Live] = {}
        self._by_peer: dict[PeerToken, list[LinkSession]] = {}
        self._dials = Dials()
        self._publishing = Publishing(self._bus, self._subjects, name, tasks)
        self.tied = TiedGuests(self._interest, self._publishing, clock, self._by_peer.__contains__, self._takes)
        self._notices = Notices(self.asking, self.status)
        tasks.start(self._notices.run(), name="notices")
        tasks.start(self.asking.sweep(), name="sweep")
        tasks.start(self.tied.repeat(), name="names")

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
                self.status.transport_says(event.state, event.last_error, unix_ms())
                self.on_change()
            case _:
                assert_never(event)

    def failed(self, cause: Cause) -> None:
        """The transport itself broke; it is run again."""
        self.status.transport_says(TransportState.ERROR, cause, unix_ms())
        self.on_change()

    def peers(self) -> list[PeerToken]:
        """Peers with a link."""
        return list(self._by_peer)

    @property
    def bytes_out(self) -> int:
        """Sent since the transport was enabled, on links that are open and on those that were."""
        return self.status.bytes_out + sum(live.session.bytes_out for live in self._live.values())

    def transport_refused(self) -> Counter[str]:
        """What the transport itself refused by its limits, by cause, where it counts."""
        refused = getattr(self._transport, "refused", None)
        return refused if isinstance(refused, Counter) else Counter()

    def reset_counters(self) -> None:
        """Switched off, or on again: what is counted starts again, the transport's own refusals too."""
        self.status.reset()
        self.transport_refused().clear()
        self.chaos.reset()

    # ── what the bus asks ──

    async def dial(self, call: Dial, timeout_s: float) -> LinkSession:
        """A routed, sealed link to the peer: one that is there, or a new one.

        Raises: TransportError with the cause.
        """
        peer = PeerToken(call.peer)
        self._gate.check_outbound(peer)
        opened = self._usable(peer)
        try:
            async with asyncio.timeout(timeout_s):
                if opened is None:
                    hint = self._hint(peer, call)
                    opened = await self._dials.wait(peer, lambda: self._transport.dial(hint, timeout_s))
                # The manager sends over the bus next: before interest is there, nobody would take it.
                await self._interest.routed(peer)
        except TimeoutError:
            raise TransportError(Cause.DIAL_TIMEOUT) from None
        session = self._usable(peer)
        if session is None:  # proved, and closed again before it was of any use: the peer may have said why
            raise TransportError(opened.closed_cause or Cause.CLOSED)
        self.status.worked()
        return session

    def announce(self, manifests: tuple[str, ...]) -> None:
        """Say on every link which manifests we hold, and on every later one when it opens."""
        if manifests == self._announced:
            return  # said again for workers that have started since
        self._announced = manifests
        for session in self._open_sessions():
            session.announce(manifests)

    async def drain(self, grace_s: float) -> None:
        """Ask peers to open another link, take no more requests, let answers in flight end."""
        # In this order: without interest nothing new comes; what is answered to peers and by them ends; and what that
        # has queued leaves last.
        self._interest.drop_all()
        for session in self._open_sessions():
            session.goodbye()
        try:
            async with asyncio.timeout(grace_s):
                await self._interest.settled()
                await self.serving.idle()
                await self.asking.idle()
                for session in self._open_sessions():
                    await session.flush()
                if isinstance(self._transport, HandsOver):
                    await self._transport.handed_over()
        except TimeoutError:
            pass  # what is left then gets its cause below
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
        await self._interest.settled()

    # ── within ──

    def _open_sessions(self) -> list[LinkSession]:
        return [session for sessions in self._by_peer.values() for session in sessions]

    def _handler_for(self, peer: PeerToken) -> Handler[SendRequest]:
        async def handle(call: SendRequest, incoming: Incoming) -> Accepted:
            try:
                # One that is out already goes on, whatever has become of the link's readiness for new ones.
                if not self.asking.knows(call.request_id):
                    self._gate.check_outbound(peer)
                return await self.asking.send(self._usable(peer), call, incoming, peer in self._members)
            except SwarmbridgeError as error:
                self.status.send_failed(error.cause, unix_ms())
                if error.cause is Cause.BUSY:
                    self.status.refuse(error.cause)
                raise

        return handle

    def _usable(self, peer: PeerToken) -> LinkSession | None:
        """The link of the peer with the least to do; one that the peer is leaving takes nothing new."""
        # A closed one stays listed until the transport's LinkDown.
        links = self._by_peer.get(self.tied.peer_here(peer), ())
        sessions = [one for one in links if one.closed_cause is None and not one.leaving]
        return min(sessions, key=lambda session: session.speech.asked_count, default=None)

    def _takes(self, peer: PeerToken) -> bool:
        return self._usable(peer) is not None

    def _hint(self, peer: PeerToken, call: Dial) -> PeerHint:
        # No link of theirs takes anything new, or there would be no dial: the transport must not count one.
        fresh = peer in self._by_peer
        key = token_key(peer)
        if key is not None:
            return PeerHint(key, peerjs_id(key), tuple(call.endpoints), fresh)
        guest = guest_id(peer)
        if guest is None or not self._transport.capabilities.dials_guests:
            raise TransportError(Cause.PEER_UNKNOWN)
        return PeerHint(b"", guest, tuple(call.endpoints), fresh)

    def _link_up(self, up: LinkUp) -> None:
        assert self.identity is not None, "the transport runs before it has an identity"
        make = self._speeches.get(up.speech)
        try:
            if make is None:
                raise SwarmbridgeError(Cause.REFUSED, "a speech that we do not have")
            speech = make(self._opening(up, self.identity))
        except SwarmbridgeError as error:
            self.status.refused[REFUSED_SPEECH] += 1
            self._dials.came_to_nothing(up.expected_key or b"", up.guest, error.cause)
            self._tasks.start(self._transport.close(up.link, error.cause), name="close")
            return
        session = LinkSession(self._transport, up, speech, self._session_event, self._clock)
        self._live[up.link] = _Live(session, self._tasks.start(session.run(), name="link"), up.guest)

    def _opening(self, up: LinkUp, identity: LinkIdentity) -> Opening:
        return Opening(
            up,
            self._transport.name.value,
            self._transport.capabilities,
            identity,
            ByteBudget(MAX_LINK_BYTES, self._budget),
            self._clock(),
            unix_ms() / 1000,
        )

    def _proved(self, session: LinkSession, peer: PeerToken) -> None:
        assert self.identity is not None
        guest = self._live[session.link].guest
        if guest and peer != guest_token(guest):
            session.close_soon(Cause.UNAUTHENTICATED)  # no speech without a seal makes a peer more than it is
            return
        if token_key(peer) == self.identity.certificate.identity_key:
            session.close_soon(Cause.REFUSED)  # another worker of this node, met in the swarm
            return
        refusal = self._gate.refusal_of_link(session, len(self._by_peer.get(peer, ())))
        if refusal is not None:
            self._tasks.start(session.dismiss(refusal), name="dismiss")
            return
        self._by_peer.setdefault(peer, []).append(session)
        # Interest before the dialers are woken: they wait for its route.
        self._interest.want(peer)
        self._dials.settle(peer, session)
        self._publish_link(session, "opened", None)
        session.announce(self._announced)

    def _link_down(self, down: LinkDown) -> None:
        live = self._live.pop(down.link, None)
        if live is None:
            return
        session = live.session
        cause = session.closed_cause or session.parting_cause or down.cause
        session.closed_cause = cause
        # The writer may be in `transport.send` on a link that is gone.
        live.task.cancel()
        session.speech.close()
        self.status.bytes_out += session.bytes_out
        if session.fault is not None:
            self.status.refuse(session.fault)
        self.serving.link_down(session)
        # In the queue, behind its answers: what arrived before the end counts as arrived.
        self._notices.queue(session, LinkDown(down.link, cause))
        others = self._by_peer.get(session.peer, []) if session.peer else []
        if session.peer is None or session not in others:
            self._never_known(live, cause)
            return
        others.remove(session)
        if not others:
            del self._by_peer[session.peer]
            self.tied.forget(session.peer)
        self._settle_route(session.peer)
        self._publish_link(session, "closed", cause)

    def _never_known(self, live: _Live, cause: Cause) -> None:
        """Whoever dialled the peer of a link that came to nothing learns why; a stranger's try is no error of ours."""
        session = live.session
        key = session.expected_key or session.speech.claimed_key
        if self._dials.came_to_nothing(key, live.guest, cause) and session.fault is not None:
            self.status.send_failed(session.fault, unix_ms())
        self.on_change()

    def _settle_route(self, peer: PeerToken) -> None:
        """Requests reach us while some link of the peer takes new ones; else a manager has another one dialled."""
        if not self._takes(peer):
            self._interest.drop(peer)
        self.tied.settle()

    def _session_event(self, session: LinkSession, event: Event) -> None:
        if isinstance(event, PeerProved):
            self._proved(session, event.peer)
            return
        assert session.peer is not None
        self.status.message_came(self._clock(), unix_ms())
        match event:
            case RequestReceived():
                self._serve(session, event)
            case RequestRefused():
                self.status.refuse(event.cause)
            case RequestCancelled():
                self.serving.cancel(session, event.request_id)
            case PeerLeft():
                self._peer_left(session, session.peer, event)
            case AnswerProgressed():
                # Decided here and not in the queue: what is not due never takes a place in it.
                if self.asking.progress_due(event.request_id, event.bytes):
                    self._notices.queue(session, event)
            case AnswerReceived() | RequestFailed():
                self._notices.queue(session, event)
            case Announced():
                self._publishing.announced(session.peer, self._role(session), session.link, event.manifests)
            case NamedElsewhere():
                self.tied.say(session.peer, event.guest)
            case SpeechEnded():
                pass  # the session has acted on it
            case _:
                assert_never(event)

    def _peer_left(self, session: LinkSession, peer: PeerToken, event: PeerLeft) -> None:
        session.leaving = True
        if event.cause is not None:
            session.close_soon(event.cause)
        self._settle_route(peer)

    def _serve(self, session: LinkSession, event: RequestReceived) -> None:
        refusal = self._gate.refusal_of_request(session)
        if refusal is not None:
            session.fail(event.request_id, refusal)
            return
        self.serving.start(session, event, self._role(session))

    def _role(self, session: LinkSession) -> str:
        # Only a seal proves a key: an id that a transport proves is never a member's, whatever it is called.
        sealed = session.peer is not None and token_key(session.peer) is not None
        return ROLE_MEMBER if sealed and session.peer in self._members else ROLE_GUEST

    def _block_changed(self, peer: str) -> None:
        """The blocklist has changed for the peer with this name: it is in force on its open links now."""
        for session in [one for one in self._open_sessions() if one.peer_name == peer]:
            if self._gate.blocked(session, Direction.INBOUND):
                self.serving.refuse_open(session, Cause.BLOCKED)
            if self._gate.blocked(session, Direction.OUTBOUND):
                self._tasks.start(self.asking.withdraw(session, Cause.BLOCKED), name="withdraw")
            if self._gate.blocked(session, Direction.ALL):
                self._tasks.start(session.dismiss(Cause.BLOCKED), name="dismiss")

    def _publish_link(self, session: LinkSession, change: str, cause: Cause | None) -> None:
        assert session.peer is not None
        self.on_change()
        self._publishing.link_changed(session.peer, self._role(session), change, cause)
