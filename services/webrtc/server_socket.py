"""One PeerServer: the signalling machine on a socket that is opened again whenever it ends.

The machine (shared.wire.peerjs.signalling) is the protocol; this is its timer and its place among the servers. A lost
socket gets a new machine with the same id and token, so that a server which still has the old one re-attaches us.

Cancellation: `close` ends the socket and every retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import assert_never

import aiohttp

from services.webrtc.tokens import ServerTokens
from shared.clock import Clock
from shared.errors import BusError, Cause, SwarmbridgeError
from shared.settings.rendezvous import PeerServer
from shared.tasks.owned import Tasks
from shared.websocket.client import ClientOptions, ClientSocket, ReconnectingClient, until_first_ends
from shared.wire.peerjs.messages import MAX_MESSAGE_BYTES, MAX_SERVER_FIELDS_BYTES, Answer, Candidate, Expire, Offer
from shared.wire.peerjs.signalling import (
    AnswerReceived,
    CandidateReceived,
    MessageRefused,
    OfferReceived,
    OfferUnusable,
    Opened,
    PeerEvent,
    PeerLeft,
    PeerMissing,
    ServerRefused,
    SignallingClient,
    SignallingEvent,
    SignallingState,
)
from shared.wire.peerjs.urls import CLIENT_VERSION, socket_url

OPTIONS = ClientOptions(
    max_message_bytes=MAX_MESSAGE_BYTES + MAX_SERVER_FIELDS_BYTES,
    connect_timeout_s=3.0,
    ping_s=5.0,
    retry_first_s=0.25,
    retry_cap_s=2.0,
)
"""A server that vanished is noticed within 7.5 s (PeerServer's library answers pings), one that is back is used
within 2 s."""

OnEvent = Callable[[str, PeerEvent], None]
"""The server's URL and what it relays."""

log = logging.getLogger(__name__)


class ServerSocket:
    """The node's registration with one server."""

    def __init__(
        self,
        server: PeerServer,
        peer_id: str,
        tokens: ServerTokens,
        http: aiohttp.ClientSession,
        clock: Clock,
        on_event: OnEvent,
        on_change: Callable[[], None],
        on_crash: Callable[[PeerServer], None],
        name: str = "",
        options: ClientOptions = OPTIONS,
    ) -> None:
        """Args: on_crash: the socket's task broke; the owner makes another. name: its owner's for it, "" = its URL."""
        self.server = server
        self.name = name or server.url
        self._peer_id = peer_id
        self._tokens = tokens
        self._clock = clock
        self._on_event = on_event
        self._machine: SignallingClient | None = None
        self._socket: ClientSocket | None = None
        self._rearm = asyncio.Event()
        self.connection = ReconnectingClient(http, self._url, self._serve, options, clock, on_change)
        self._tasks = Tasks(on_crash=lambda _: on_crash(server))
        self._tasks.start(self.connection.run(), name="peer-server")

    @property
    def is_open(self) -> bool:
        """Whether peers can reach us through this server."""
        return self._machine is not None and self._machine.state is SignallingState.OPEN

    @property
    def failure(self) -> Cause | None:
        """Why the last try ended; None while it is open."""
        return self.connection.cause

    async def send(self, message: Offer | Answer | Candidate | Expire) -> bool:
        """Send to a peer. Returns: whether the socket took it."""
        if not self.is_open or self._machine is None or self._socket is None:
            return False
        try:
            self._machine.send(message)
            await self._flush(self._machine, self._socket)
        except (SwarmbridgeError, OSError, TimeoutError):
            # A socket that does not take a message in time is of no use to the next one either.
            await self._socket.close()
            return False
        return True

    async def close(self) -> None:
        """Leave the server, for good."""
        await self._tasks.close()

    async def _url(self) -> str:
        try:
            token = await self._tokens.token(self.server)
        except BusError as error:  # no token yet: nothing is wrong with the server
            raise SwarmbridgeError(Cause.SIGNALLING_UNAVAILABLE) from error
        return socket_url(self.server.url, self._peer_id, token, self.server.key)

    async def _serve(self, socket: ClientSocket) -> None:
        # Kept since `_url`: no request.
        token = await self._tokens.token(self.server)
        machine = SignallingClient(self._peer_id, token, self.server.key, CLIENT_VERSION, self._clock())
        self._machine, self._socket = machine, socket
        try:
            await until_first_ends(self._read(machine, socket), self._keep_time(machine, socket))
        finally:
            self._machine = self._socket = None

    async def _read(self, machine: SignallingClient, socket: ClientSocket) -> None:
        async for message in socket.messages():
            self._report(machine.receive_text(message, self._clock()))
            await self._flush(machine, socket)
            # The machine has refused the server; the socket is closed by its client, and opened again later.
            if machine.state is SignallingState.CLOSED:
                return

    async def _keep_time(self, machine: SignallingClient, socket: ClientSocket) -> None:
        while (deadline := machine.next_deadline()) is not None:
            self._rearm.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._rearm.wait()
            self._report(machine.handle_timer(self._clock()))
            await self._flush(machine, socket)

    def _report(self, events: list[SignallingEvent]) -> None:
        for event in events:
            match event:
                case Opened():
                    log.info("registered with a PeerServer%s", " again" if event.reattached else "")
                    self.connection.proved()
                case ServerRefused():
                    self.connection.refused(event.cause)
                    log.warning("a PeerServer refused us: %s", event.cause.value)
                case (
                    OfferReceived()
                    | OfferUnusable()
                    | AnswerReceived()
                    | CandidateReceived()
                    | PeerLeft()
                    | PeerMissing()
                    | MessageRefused()
                ):
                    self._on_event(self.name, event)
                case _:
                    assert_never(event)
        self._rearm.set()

    async def _flush(self, machine: SignallingClient, socket: ClientSocket) -> None:
        for text in machine.data_to_send():
            await socket.send(text)
