"""One PeerServer: a WebSocket that is opened again whenever it ends, around the signalling machine.

The machine (shared.wire.peerjs.signalling) is the protocol; this is its socket, its timer and its retries. A lost
socket gets a new machine with the same id and token, so that a server which still has the old one re-attaches us.

Cancellation: `close` ends the socket and every retry.
Back-pressure: a message is sent within SEND_TIMEOUT_S, or the server counts as down: one that does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import aiohttp

from services.webrtc.tokens import ServerTokens
from shared.backoff import delays_s
from shared.clock import Clock
from shared.errors import BusError, Cause, SwarmbridgeError
from shared.settings.rendezvous import PeerServer
from shared.tasks.owned import Tasks
from shared.wire.peerjs.messages import MAX_MESSAGE_BYTES, MAX_SERVER_FIELDS_BYTES, Answer, Candidate, Offer
from shared.wire.peerjs.signalling import (
    Opened,
    ServerRefused,
    SignallingClient,
    SignallingEvent,
    SignallingState,
)
from shared.wire.peerjs.urls import CLIENT_VERSION, socket_url

CONNECT_TIMEOUT_S = 3.0
"""TCP, TLS and the WebSocket upgrade together."""
SEND_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 0.5
"""For the far end's half of the closing handshake."""
PING_EVERY_S = 5.0
"""WebSocket pings, so that a server that vanished is noticed within 7.5 s; PeerServer's library answers them."""
RETRY_FIRST_S = 0.25
RETRY_CAP_S = 2.0
"""A server that is back is used within this."""

OnEvent = Callable[[str, SignallingEvent], None]
"""The server's URL and what its machine says, except Opened and ServerRefused, which are the socket's own."""

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
    ) -> None:
        self.server = server
        self.failure: Cause | None = None
        """Why the last try ended; None while it is open."""
        self._peer_id = peer_id
        self._tokens = tokens
        self._http = http
        self._clock = clock
        self._on_event = on_event
        self._on_change = on_change
        self._client: SignallingClient | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._rearm = asyncio.Event()
        self._tasks = Tasks()
        self._tasks.start(self._run(), name="peer-server")

    @property
    def is_open(self) -> bool:
        """Whether peers can reach us through this server."""
        return self._client is not None and self._client.state is SignallingState.OPEN

    async def send(self, message: Offer | Answer | Candidate) -> bool:
        """Send to a peer. Returns: whether the socket took it."""
        if not self.is_open or self._client is None:
            return False
        try:
            self._client.send(message)
            await self._flush(self._client)
        except (SwarmbridgeError, OSError, TimeoutError):
            await self._drop()
            return False
        return True

    async def close(self) -> None:
        """Leave the server, for good."""
        await self._tasks.close()

    async def _run(self) -> None:
        delays = delays_s(RETRY_FIRST_S, RETRY_CAP_S)
        while True:
            was_open = False
            try:
                was_open = await self._register()
            except (aiohttp.ClientError, OSError, TimeoutError):
                self.failure = Cause.SIGNALLING_UNAVAILABLE
            except (BusError, SwarmbridgeError) as error:  # no token yet; a URL that is none
                self.failure = Cause.SIGNALLING_UNAVAILABLE
                log.debug("cannot register with a server: %s", error.cause)
            self._on_change()
            if was_open:
                delays = delays_s(RETRY_FIRST_S, RETRY_CAP_S)
            await asyncio.sleep(next(delays))

    async def _register(self) -> bool:
        """One socket, from its opening to its end. Returns: whether the id was registered."""
        token = await self._tokens.token(self.server)
        url = socket_url(self.server.url, self._peer_id, token, self.server.key)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            ws = await self._http.ws_connect(
                url, heartbeat=PING_EVERY_S, max_msg_size=MAX_MESSAGE_BYTES + MAX_SERVER_FIELDS_BYTES
            )
        client = SignallingClient(self._peer_id, token, self.server.key, CLIENT_VERSION, self._clock())
        self._client = client
        self._ws = ws
        timer = self._tasks.start(self._keep_time(client), name="signalling-timer")
        try:
            async for message in ws:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                self._report(client.receive_text(message.data, self._clock()))
                await self._flush(client)
                if client.state is SignallingState.CLOSED:
                    break
            return client.state is SignallingState.OPEN
        finally:
            timer.cancel()
            if self.failure is None:
                self.failure = Cause.SIGNALLING_UNAVAILABLE
            self._client = None
            self._ws = None
            await _close(ws)

    async def _keep_time(self, client: SignallingClient) -> None:
        while (deadline := client.next_deadline()) is not None:
            self._rearm.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._rearm.wait()
            self._report(client.handle_timer(self._clock()))
            try:
                await self._flush(client)
            except (OSError, TimeoutError):
                await self._drop()
                return

    def _report(self, events: list[SignallingEvent]) -> None:
        for event in events:
            match event:
                case Opened():
                    self.failure = None
                    log.info("registered with a PeerServer%s", " again" if event.reattached else "")
                    self._on_change()
                case ServerRefused():
                    self.failure = event.cause
                    log.warning("a PeerServer refused us: %s", event.cause.value)
                case _:
                    self._on_event(self.server.url, event)
        self._rearm.set()

    async def _flush(self, client: SignallingClient) -> None:
        ws = self._ws
        if ws is None:
            return
        for text in client.data_to_send():
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await ws.send_str(text)

    async def _drop(self) -> None:
        if self._ws is not None:
            await _close(self._ws)


async def _close(ws: aiohttp.ClientWebSocketResponse) -> None:
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await ws.close()
