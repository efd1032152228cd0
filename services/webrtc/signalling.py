"""The lease holder's work: the sockets to the PeerServers, and the way from each connection to its worker.

    PeerServers ◀──▶ sockets ──▶ OFFER       request `signal.offer`, any worker (queue `signal`)
                             ──▶ the rest    publish to the worker that owns the connection
    workers ── `signal.send` ──▶ sockets

The node is registered on MAX_SERVERS servers of the rendezvous document, each with a token of its own, so that it
is found by those who can reach only one of them: those that serve, in the document's order; one that is saturated,
refuses, is gone, or accepts and never answers gives its place to the next. An OFFER goes out through every open
socket; the remote peer takes the first and drops the rest, and its ANSWER comes back the same way. A server that is
down costs nothing but its own retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never

import aiohttp

from services.webrtc.connection_owners import ConnectionOwners
from services.webrtc.limits import (
    EXPIRE_BURST,
    EXPIRES_PER_S,
    REFUSED_BUSY,
    REFUSED_MESSAGE,
    REFUSED_NO_WORKER,
    REFUSED_OFFER,
    OfferLimiter,
)
from services.webrtc.server_socket import OPTIONS, ServerSocket
from services.webrtc.tokens import ServerTokens
from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.envelopes import SignalMessage, SignalOffer, SignalSend, SignalTaken
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock
from shared.errors import BusError, BusTimeout, Cause, RemoteFailure, SwarmbridgeError, TransportError
from shared.settings.rendezvous import PeerServer
from shared.tasks.owned import Tasks
from shared.token_bucket import TokenBucket
from shared.websocket.client import ClientOptions, ReconnectingClient
from shared.wire.peerjs.messages import Answer, Candidate, Expire, Offer, decode_message, encode_message
from shared.wire.peerjs.signalling import (
    AnswerReceived,
    CandidateReceived,
    MessageRefused,
    OfferReceived,
    OfferUnusable,
    PeerEvent,
    PeerLeft,
    PeerMissing,
)

MAX_SERVERS = 4
"""Ours: each costs a socket and a copy of every OFFER; further ones in the document take a failing one's place."""
BEACON_MARK = "#beacon"
"""Behind a server's URL: our socket there that has the beacon's id. No URL of a server has a fragment."""
BEACON_OPTIONS = replace(OPTIONS, retry_first_s=1.0, retry_cap_s=60.0)
"""A beacon that somebody else holds serves as well; we ask again now and then."""
MAX_WAITING = 256
"""Ours: messages on their way to workers; a healthy bus takes one in a millisecond."""
HAND_OVER_TIMEOUT_S = 1.0
"""A worker takes an OFFER before it looks at it: a millisecond, unless it is frozen."""
HAND_OVER_TRIES = 3
"""The queue group chooses at random; a worker that is full or draining refuses."""

log = logging.getLogger(__name__)


class Signalling:
    """The node's registration with its PeerServers, while this worker holds the lease.

    Driven by: the lease keeper: `start` and `stop`, any number of times, both idempotent.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        peer_id: str,
        servers: Callable[[], list[PeerServer]],
        refused: Counter[str],
        clock: Clock,
        beacon: str = "",
    ) -> None:
        """beacon: a second id that we hold where nobody else does, for pages that look for a room; "" = none."""
        self.on_change: Callable[[], None] = lambda: None
        self._bus = bus
        self._subjects = subjects
        self._peer_id = peer_id
        self._servers = servers
        self._refused = refused
        self._clock = clock
        self._tokens = ServerTokens(bus, subjects)
        self._owners = ConnectionOwners()
        self._limiters: dict[str, OfferLimiter] = {}
        self._expires: dict[str, TokenBucket] = {}
        self._sockets: dict[PeerServer, ServerSocket] = {}
        self._beacon = beacon
        self._beacons: dict[PeerServer, ServerSocket] = {}
        self._failures: Counter[PeerServer] = Counter()
        self._tasks = Tasks()
        self._http: aiohttp.ClientSession | None = None
        self._subscription: Subscription | None = None

    @property
    def is_open(self) -> bool:
        """Whether the node is registered with at least one server."""
        return any(socket.is_open for socket in self._sockets.values())

    @property
    def failure(self) -> Cause:
        """Why it is not: ID_TAKEN where a server says so, else that none can be reached."""
        taken = any(socket.failure is Cause.ID_TAKEN for socket in self._sockets.values())
        return Cause.ID_TAKEN if taken else Cause.SIGNALLING_UNAVAILABLE

    async def start(self) -> None:
        """Serve the workers and open the sockets. Raises: BusError; ask again."""
        if self._http is not None:
            return
        self._http = aiohttp.ClientSession()
        self.reload()
        try:
            self._subscription = await self._bus.serve(self._subjects.signal_send, SignalSend, self._send)
        except BusError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the sockets and serve no more. Links that are open go on."""
        # At once, so that a second `stop` and a `reload` meanwhile find nothing to do.
        http, self._http = self._http, None
        if http is None:
            return
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(BusError):  # without the bus nobody reaches us anyway
                await subscription.close()
        sockets = [*self._sockets.values(), *self._beacons.values()]
        self._sockets.clear()
        self._beacons.clear()
        await asyncio.gather(*(socket.close() for socket in sockets))
        await self._tasks.close()
        await http.close()
        # What comes next comes to another holder, which begins without them as well.
        self._owners = ConnectionOwners()
        self.on_change()

    def reload(self) -> None:
        """Make the sockets those of the rendezvous document."""
        if self._http is None:
            return
        listed = self._servers()
        for server in [server for server in self._failures if server not in listed]:
            del self._failures[server]
        wanted = healthiest(listed, self._failures, MAX_SERVERS)
        for sockets in (self._sockets, self._beacons):
            for server in [server for server in sockets if server not in wanted]:
                self._tasks.start(sockets.pop(server).close(), name="close-server")
        for server in wanted:
            if server not in self._sockets:
                self._sockets[server] = self._open(
                    self._http, server, self._peer_id, server.url, self._socket_changed, self._socket_crashed, OPTIONS
                )
            if self._beacon and server not in self._beacons:
                # Whether we have the room's id is no matter of the node's own: nobody waits for it.
                self._beacons[server] = self._open(
                    self._http,
                    server,
                    self._beacon,
                    server.url + BEACON_MARK,
                    lambda: None,
                    self._beacon_crashed,
                    BEACON_OPTIONS,
                )
        self.on_change()

    def _open(
        self,
        http: aiohttp.ClientSession,
        server: PeerServer,
        peer_id: str,
        name: str,
        on_change: Callable[[], None],
        on_crash: Callable[[PeerServer], None],
        options: ClientOptions,
    ) -> ServerSocket:
        """A socket by its own name, with limits of its own."""
        self._limiters.setdefault(name, OfferLimiter())
        self._expires.setdefault(name, TokenBucket(EXPIRES_PER_S, EXPIRE_BURST))
        return ServerSocket(
            server, peer_id, self._tokens, http, self._clock, self._receive, on_change, on_crash, name, options
        )

    def states(self) -> dict[PeerServer, ReconnectingClient]:
        """The servers that are used now, and how each does."""
        return {server: socket.connection for server, socket in self._sockets.items()}

    def _socket_changed(self) -> None:
        failed = False
        for server, socket in self._sockets.items():
            # Only a failure that is new: a success, or the same count again, moves nobody.
            failed = failed or socket.connection.failures > self._failures[server]
            self._failures[server] = socket.connection.failures
        if failed and len(self._sockets) < len(self._servers()):
            self.reload()  # the next one may take its place
        else:
            self.on_change()

    def _socket_crashed(self, server: PeerServer) -> None:
        socket = self._sockets.pop(server, None)
        if socket is not None:
            self._failures[server] += 1
            self.reload()

    def _beacon_crashed(self, server: PeerServer) -> None:
        self._beacons.pop(server, None)  # the next reload makes another

    # ── from the servers ─────────────────────────────────────────────────────────────────────────────────

    def _receive(self, server: str, event: PeerEvent) -> None:
        now = self._clock()
        match event:
            case OfferReceived(src, payload):
                self._receive_offer(server, Offer(payload, src=src), now)
            case OfferUnusable(src):
                self._refused[REFUSED_OFFER] += 1
                self._turn_away(server, src, REFUSED_OFFER, now)
            case AnswerReceived(src, answer):
                self._pass_on(Answer(answer, src=src), now)
            case CandidateReceived(src, candidate):
                self._pass_on(Candidate(candidate, src=src), now)
            case PeerMissing(peer):
                # A PeerServer's EXPIRE names no connection: it ends all dials of that peer for which no server is left.
                raw = encode_message(Expire(src=peer)).encode()
                for worker in {worker for worker, _ in self._owners.unreachable(peer, server, now)}:
                    self._start(self._to_worker(worker, raw))
            case MessageRefused():
                self._refused[REFUSED_MESSAGE] += 1
            case PeerLeft():
                pass  # a peer that leaves its server keeps its links
            case _:
                assert_never(event)

    def _pass_on(self, message: Answer | Candidate, now: float) -> None:
        raw = encode_message(message).encode()
        worker = self._owners.worker_for(message.src, message.payload.connection_id, raw, now)
        if worker is not None:
            self._start(self._to_worker(worker, raw))

    def _receive_offer(self, server: str, offer: Offer, now: float) -> None:
        refusal = self._limiters[server].refuse(offer.src, now)
        if refusal is not None:
            self._refused[refusal] += 1
            self._turn_away(server, offer.src, refusal, now)
        # The same OFFER comes once through each server that both of us are on.
        elif self._owners.offered(offer.src, offer.payload.connection_id, server, now):
            raw = encode_message(offer).encode()
            call = SignalOffer(raw, server, beacon=server.endswith(BEACON_MARK))
            self._start(self._hand_over(offer.src, offer.payload.connection_id, call))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in the background, or drop it where too much of it waits for the bus."""
        if len(self._tasks) >= MAX_WAITING:
            # A coroutine that is never awaited would be reported as a mistake.
            work.close()
            self._refused[REFUSED_BUSY] += 1
        else:
            self._tasks.start(work, name="signal")

    async def _hand_over(self, peer: str, connection_id: str, offer: SignalOffer) -> None:
        worker = await self._find_worker(offer)
        if worker is None:
            self._owners.forget(peer, connection_id)
            self._turn_away(offer.server, peer, REFUSED_NO_WORKER, self._clock())
            return
        # Candidates that came while a worker was sought, in their order.
        for message in self._owners.taken(peer, connection_id, worker, self._clock()):
            await self._to_worker(worker, message)

    async def _find_worker(self, offer: SignalOffer) -> str | None:
        """Who took the OFFER; None where nobody does, which is counted."""
        for _ in range(HAND_OVER_TRIES):
            try:
                taken = await self._bus.request(self._subjects.signal_offer, offer, SignalTaken, HAND_OVER_TIMEOUT_S)
            except RemoteFailure as error:
                if error.cause is Cause.REFUSED:
                    return None  # it has counted why; no other worker of ours has that speech either
                continue  # full or draining: another may be chosen
            except BusTimeout:
                continue  # frozen
            except BusError:
                break
            return taken.worker
        self._refused[REFUSED_NO_WORKER] += 1
        return None

    def _turn_away(self, server: str, peer: str, why: str, now: float) -> None:
        """Tell the dialer that its OFFER comes to nothing, and the log why, as often as we may say so.

        EXPIRE is the one message that makes a page report an error (`peer-unavailable`); an OFFER without an answer
        and a LEAVE do not.
        """
        everything = (*self._sockets.values(), *self._beacons.values())
        socket = next((one for one in everything if one.name == server), None)
        if socket is not None and self._expires[server].take(now):
            log.info("an OFFER was turned away: %s", why)
            self._start(self._expire(socket, peer))

    async def _expire(self, socket: ServerSocket, peer: str) -> None:
        await socket.send(Expire(dst=peer))

    async def _to_worker(self, worker: str, message: bytes) -> None:
        try:
            await self._bus.publish(self._subjects.worker(worker), SignalMessage(message))
        except BusError as error:
            log.debug("a signalling message was lost: %s", error.cause)

    # ── from the workers ─────────────────────────────────────────────────────────────────────────────────

    async def _send(self, call: SignalSend, incoming: Incoming) -> SignalTaken:
        message = decode_message(call.message)
        if not isinstance(message, (Offer, Answer, Candidate, Expire)):
            raise SwarmbridgeError(Cause.INVALID)
        sockets = {socket.server.url: socket for socket in self._sockets.values() if socket.is_open}
        now = self._clock()
        if isinstance(message, Expire):
            for url in self._owners.servers_of(message.dst, call.connection_id, now):
                self._turn_away(url, message.dst, REFUSED_OFFER, now)
            self._owners.forget(message.dst, call.connection_id)
            return SignalTaken(self._bus.instance)
        if isinstance(message, Offer):
            self._owners.dialled(message.dst, call.connection_id, call.worker, set(sockets), now)
        else:
            known = self._owners.servers_of(message.dst, call.connection_id, now)
            sockets |= {socket.name: socket for socket in self._beacons.values() if socket.name in known}
            # Through the servers that brought the OFFER; where these are gone, the peer may be on the others.
            sockets = {url: socket for url, socket in sockets.items() if url in known} or sockets
            if not known:  # its OFFER came through a holder before us
                self._owners.dialled(message.dst, call.connection_id, call.worker, set(sockets), now)
        sending = {self._tasks.start(socket.send(message), name="send") for socket in sockets.values()}
        while sending:
            # The first that takes it is enough: a server that does not read must not hold up the others' answer.
            done, sending = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
            if any(not task.cancelled() and task.result() for task in done):
                return SignalTaken(self._bus.instance)
        raise TransportError(self.failure)


def healthiest(servers: Sequence[PeerServer], failures: Mapping[PeerServer, int], count: int) -> list[PeerServer]:
    """The servers to use: those with the fewest failures in a row, in the document's order among equals."""
    ranked = sorted(dict.fromkeys(servers), key=lambda server: failures.get(server, 0))  # stable
    return ranked[:count]
