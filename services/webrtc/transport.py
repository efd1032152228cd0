"""The webrtc transport: links over data channels, signalled through the node's one PeerJS id.

Wires the parts of one `run`: the links of this worker, and its share in the signalling (lease, sockets).

    SignalOffer, SignalMessage ──▶ WebrtcLinks ──▶ LinkUp, RecordReceived, LinkDown
    dial, answers ── SignalSend ──▶ whichever worker holds the lease, this one perhaps

State: READY while some worker of the node is registered with a PeerServer; DEGRADED with the reason while none
is (links that are open go on), or indefinitely where aiortc cannot be imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from services.webrtc.ice_servers import IceServers
from services.webrtc.lease import LEASE_TTL_S, WATCH_EVERY_S, SignalLease
from services.webrtc.lease_keeper import LeaseKeeper
from services.webrtc.limits import REFUSED_MESSAGE
from services.webrtc.links import DIAL_TIMEOUT_S, WebrtcLinks
from services.webrtc.roster_keeper import RosterKeeper
from services.webrtc.signalling import Signalling
from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.envelopes import SignalOffer, SignalSend, SignalTaken
from shared.bus.messages.records import MeetingPlace
from shared.bus.messages.subjects import QUEUE_SIGNAL, Subjects
from shared.clock import Clock, monotonic, unix_ms
from shared.errors import BusError, Cause, LocalProtocolError, RemoteFailure, RemoteProtocolError, TransportError
from shared.ids import LinkId, peerjs_id
from shared.rtc import available
from shared.rtc.contract import MAX_MESSAGE_BYTES, LinkFactory, LinkSettings
from shared.settings.config import WebrtcSettings
from shared.settings.rendezvous import IceServer
from shared.settings.rendezvous_follower import DocumentFollower
from shared.speech.contract import SEALED_NATIVE
from shared.speech.page_beacon import beacon_id
from shared.transport.contract import Capabilities, Emit, PeerHint, StateChanged
from shared.transport.places import KNOWN, connected_place, places_of
from shared.transports import TransportName, TransportState
from shared.wire.peerjs.messages import Answer, Expire, Offer, decode_message, encode_message

SEND_SIGNAL_TIMEOUT_S = 2.0
"""For the holder to take one message; it has a socket open, or refuses at once."""
SIGNALLING_GRACE_S = 3.0
"""Signalling may be down this long before the state says so: a killed holder is replaced within 3 s
(docs/architecture.md)."""
HAND_OVER_S = 2.5
"""How long a draining worker keeps the lease for the sake of its pages: within the drain's grace."""
SERVE_RETRY_S = 1.0
"""Between tries to serve our subjects while the bus is away."""

READY = StateChanged(TransportState.READY)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How soon a worker notices and says what; tests shorten it. Seconds."""

    lease_ttl_s: float = LEASE_TTL_S
    watch_every_s: float = WATCH_EVERY_S
    signalling_grace_s: float = SIGNALLING_GRACE_S


@dataclass(slots=True)
class _Running:
    """The parts of one `run`."""

    links: WebrtcLinks
    keeper: LeaseKeeper
    signalling: Signalling
    ice: IceServers
    roster: RosterKeeper
    emit: Emit
    offers: Subscription | None = None


class WebrtcTransport:
    """Implements shared.transport.contract.Transport and Signalled."""

    name = TransportName.WEBRTC
    capabilities = Capabilities(max_record_bytes=MAX_MESSAGE_BYTES, ordered=True, reliable=True, dials_guests=True)

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        settings: WebrtcSettings,
        document: DocumentFollower,
        *,
        clock: Clock = monotonic,
        timing: Timing | None = None,
        load: Callable[[], LinkFactory] = available.load,
        speeches: Collection[str] = (SEALED_NATIVE,),
    ) -> None:
        """speeches: what its links may be opened for; an OFFER that asks for another is turned away."""
        self.refused: Counter[str] = Counter()
        """Refusals since the last `run` began, by the names in `limits`."""
        self._bus = bus
        self._subjects = subjects
        self._settings = settings
        self._document = document
        self._clock = clock
        self._timing = timing or Timing()
        self._load = load
        self._speeches = speeches
        self._peer_id = ""
        self._running: _Running | None = None
        self._broken: Cause | None = None
        self._draining = False
        self._state: StateChanged | None = None
        self._state_due = asyncio.Event()

    def set_identity(self, identity_key: bytes) -> None:
        """The node's Ed25519 key; its PeerJS id follows from it."""
        self._peer_id = peerjs_id(identity_key)

    # ── the contract ─────────────────────────────────────────────────────────────────────────────────────

    async def run(self, emit: Emit) -> None:
        """Serve until cancelled; then every link, socket and the lease are gone."""
        if not self._peer_id:
            raise LocalProtocolError("set_identity comes before run")
        self._state = self._broken = None
        self.refused.clear()
        self._say(emit, StateChanged(TransportState.INITIALIZING))
        try:
            # In a thread: importing aiortc takes up to two seconds, in which links and pings would stand still.
            make = await asyncio.to_thread(self._load)
        except TransportError as error:
            self._broken = error.cause
            self._say(emit, StateChanged(TransportState.DEGRADED, error.cause))
            await asyncio.Event().wait()  # until cancelled: the import will not mend itself
            return
        running = self._assemble(make, emit)
        self._running = running
        try:
            # One of them that breaks ends the run, and the worker runs the transport again.
            async with asyncio.TaskGroup() as group:
                group.create_task(self._document.run(lambda: self._document_changed(running)), name="document")
                group.create_task(self._watch_state(running), name="state")
                group.create_task(self._serve_offers(running), name="offers")
                group.create_task(running.keeper.run(), name="lease")
                group.create_task(running.ice.run(), name="ice-servers")
                group.create_task(running.roster.run(), name="roster")
        finally:
            # First: whoever calls meanwhile finds no run, instead of one that is being taken apart.
            self._running = None
            await self._stop_offers(running)
            await running.links.close_all()

    async def dial(self, hint: PeerHint, timeout_s: float) -> None:
        """Open a link to the node or, where the hint has no key, the page with the hint's PeerJS id.

        Raises: TransportError(DIAL_TIMEOUT), (PEER_UNKNOWN), (ICE_FAILED), (SIGNALLING_UNAVAILABLE), (BUSY),
                (IMPORT_FAILED), (DRAINING).
        """
        if self._draining:
            raise TransportError(Cause.DRAINING)
        await self._links().dial(hint, timeout_s)

    async def send(self, link: LinkId, record: bytes) -> None:
        """As in the contract."""
        if len(record) > MAX_MESSAGE_BYTES:
            raise TransportError(Cause.TOO_LARGE)
        await self._links().send(link, record)

    async def close(self, link: LinkId, cause: Cause) -> None:
        """As in the contract."""
        if self._running is not None:
            await self._running.links.close(link, cause)

    async def signal(self, message: bytes) -> None:
        """A PeerJS message of a connection that this worker owns."""
        if self._running is not None:
            await self._running.links.signal(message)

    async def drain(self) -> None:
        """Take no more offers and dials, and hand the signalling to another worker. Links go on."""
        self._draining = True
        running = self._running
        if running is None:
            return
        await self._stop_offers(running)
        # Before the lease goes: the others need the signalling to dial our pages.
        await running.roster.leave()
        with contextlib.suppress(TimeoutError):
            # Our pages are dialled through the socket that is perhaps ours: nobody can while it changes hands.
            async with asyncio.timeout(HAND_OVER_S):
                await running.roster.handed_over()
        await running.keeper.withdraw()

    async def handed_over(self) -> None:
        """As in HandsOver."""
        if self._running is not None:
            await self._running.roster.handed_over()

    def meeting_places(self) -> list[MeetingPlace]:
        """PeerServers with their sockets, while this worker holds the lease, and the ICE servers as they answer it."""
        document, faults, now = self._document.current, self._document.faults, self._clock()
        clients = self._running.signalling.states() if self._running is not None else {}
        servers = places_of(
            "peerServers",
            document.peer_servers,
            faults,
            lambda server, index: connected_place("peerServers", index, clients.get(server), now, unix_ms()),
        )
        asked = self._running.ice.place if self._running is not None else _not_asked
        ice = places_of("iceServers", document.ice_servers, faults, asked)
        return [*servers, *ice]

    # ── one run ──────────────────────────────────────────────────────────────────────────────────────────

    def _assemble(self, make: LinkFactory, emit: Emit) -> _Running:
        ice = IceServers(lambda: self._document.current.ice_servers, self._clock, self._state_due.set)
        links = WebrtcLinks(
            make, lambda: self._link_settings(ice), self._send_signal, emit, self.refused, self._speeches, self._peer_id
        )
        signalling = Signalling(
            self._bus,
            self._subjects,
            self._peer_id,
            lambda: self._document.current.peer_servers,
            self.refused,
            self._clock,
            beacon_id(self._settings.room) if self._settings.room else "",
        )
        lease = SignalLease(self._bus.instance, self._timing.lease_ttl_s, self._timing.watch_every_s)
        keeper = LeaseKeeper(self._bus, self._subjects, lease, signalling, self._clock, self._state_due.set)
        roster = RosterKeeper(
            self._bus,
            self._subjects,
            self._clock,
            links.pages,
            lambda page: links.dial(PeerHint(b"", page), DIAL_TIMEOUT_S),
        )
        return _Running(links, keeper, signalling, ice, roster, emit)

    @property
    def _misconfigured(self) -> bool:
        """No PeerServer can be used, and the document is why."""
        faulty = any(fault.list == "peerServers" for fault in self._document.faults)
        return bool(self._document.problem) or (faulty and not self._document.current.peer_servers)

    def _document_changed(self, running: _Running) -> None:
        running.signalling.reload()
        running.ice.reload()
        self._state_due.set()

    def _links(self) -> WebrtcLinks:
        if self._running is None:
            raise TransportError(self._broken or Cause.CLOSED)
        return self._running.links

    def _link_settings(self, ice: IceServers) -> LinkSettings:
        settings = self._settings
        return LinkSettings(settings.host, ice.answering(), advertise=settings.advertise, ports=settings.port_range)

    async def _serve_offers(self, running: _Running) -> None:
        while running.offers is None and not self._draining:
            try:
                running.offers = await self._bus.serve(
                    self._subjects.signal_offer, SignalOffer, self._take_offer, queue=QUEUE_SIGNAL
                )
            except BusError:
                await asyncio.sleep(SERVE_RETRY_S)

    async def _stop_offers(self, running: _Running) -> None:
        offers, running.offers = running.offers, None
        if offers is not None:
            with contextlib.suppress(BusError):  # without the bus no offer reaches us anyway
                await offers.close()

    async def _take_offer(self, call: SignalOffer, incoming: Incoming) -> SignalTaken:
        try:
            message = decode_message(call.message)
        except RemoteProtocolError:
            self.refused[REFUSED_MESSAGE] += 1
            raise
        if not isinstance(message, Offer):
            raise TransportError(Cause.INVALID)
        self._links().take_offer(message, beacon=call.beacon)
        return SignalTaken(self._bus.instance)

    async def _send_signal(self, message: Offer | Answer | Expire, connection_id: str) -> None:
        call = SignalSend(encode_message(message).encode(), connection_id, self._bus.instance)
        try:
            await self._bus.request(self._subjects.signal_send, call, SignalTaken, SEND_SIGNAL_TIMEOUT_S)
        except RemoteFailure as error:
            raise TransportError(error.cause) from error
        except BusError as error:  # nobody holds the lease, or not yet
            raise TransportError(Cause.SIGNALLING_UNAVAILABLE) from error

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────

    async def _watch_state(self, running: _Running) -> None:
        """Say READY at once, and DEGRADED when signalling has been down for the grace."""
        down_since: float | None = None
        while True:
            self._state_due.clear()
            wait_s: float | None = None
            if self._draining:
                return  # this worker's part is over; it says nothing about the node's signalling any more
            if running.keeper.signalling_up:
                down_since = None
                # A broken document is ours to mend; what the last good one named goes on serving.
                broken = bool(self._document.problem)
                state = StateChanged(TransportState.DEGRADED, Cause.MISCONFIGURED) if broken else READY
                self._say(running.emit, state)
            else:
                now = self._clock()
                down_since = now if down_since is None else down_since
                wait_s = down_since + self._timing.signalling_grace_s - now
                if wait_s <= 0:
                    wait_s = None
                    cause = Cause.MISCONFIGURED if self._misconfigured else running.signalling.failure
                    self._say(running.emit, StateChanged(TransportState.DEGRADED, cause))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._state_due.wait()

    def _say(self, emit: Emit, state: StateChanged) -> None:
        if state != self._state:
            self._state = state
            emit(state)


def _not_asked(_: IceServer, index: int) -> MeetingPlace:
    return MeetingPlace("iceServers", index, KNOWN)
