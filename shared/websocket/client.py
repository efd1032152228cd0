"""A WebSocket to a server of our configuration that is opened again whenever it ends.

Driven by:     the owner's `run`; `serve` is its conversation over one socket, and calls `proved` when the server has
               shown to be of use, `refused` when it says no. Only what was proved resets the back-off: a server
               that accepts sockets and serves none is not asked every moment.
States:        CONNECTING -> OPEN (proved) -> WAITING (ended; tried again at `retry_at`) -> CONNECTING ...
Invariants:    nothing that a server, a resolver or a URL does ends `run`: every end has a cause and a next try. A
               fault of ours in `serve` ends its socket, is logged, and is tried again like the rest.
Cancellation:  of `run` closes the socket.
Back-pressure: a message is out within `send_timeout_s`, or the server counts as down: it does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp

from shared.backoff import delays_s
from shared.clock import Clock
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError
from shared.tasks.ending import end_tasks

BUSY_STATUSES = (429, 503)
"""HTTP's words for "not now": the server has no room."""

log = logging.getLogger(__name__)


class ClientState(StrEnum):
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """connect_timeout_s: TCP, TLS and upgrade together. ping_s: WebSocket pings; one that is unanswered for half of
    it ends the socket. retry_first_s, retry_cap_s: the back-off's first and longest step.
    """

    max_message_bytes: int
    connect_timeout_s: float
    ping_s: float
    retry_first_s: float
    retry_cap_s: float
    send_timeout_s: float = 2.0
    close_timeout_s: float = 0.5


class ClientSocket:
    """One open socket."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, options: ClientOptions) -> None:
        self._ws, self._options = ws, options

    @property
    def local_address(self) -> str:
        """The address of ours that the server sees us come from, before any NAT; "" = unknown."""
        name = self._ws.get_extra_info("sockname")
        return str(name[0]) if name else ""

    async def send(self, text: str) -> None:
        """Raises: OSError, TimeoutError: the socket is lost."""
        async with asyncio.timeout(self._options.send_timeout_s):
            await self._ws.send_str(text)

    async def messages(self) -> AsyncIterator[str | bytes]:
        """Text and binary messages until the socket ends.

        Raises: RemoteProtocolError(TOO_LARGE): a message over the limit. (INVALID): bytes that are no WebSocket frames.
        """
        async for message in self._ws:
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                yield message.data
            elif message.type is aiohttp.WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
                too_big = message.data.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
                raise RemoteProtocolError("a bad message", Cause.TOO_LARGE if too_big else Cause.INVALID)
            else:
                return

    async def close(self) -> None:
        """Idempotent; waits for the server's half for `close_timeout_s` at most."""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(self._options.close_timeout_s):
                await self._ws.close()


class ReconnectingClient:
    """See the module."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: Callable[[], Awaitable[str]],
        serve: Callable[[ClientSocket], Awaitable[None]],
        options: ClientOptions,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        """Args: url: asked before each try; it may hold a token, so it is never logged. on_change: of the state."""
        self._http, self._url, self._serve = http, url, serve
        self._options, self._clock, self._on_change = options, clock, on_change
        self.state = ClientState.CONNECTING
        self.cause: Cause | None = None
        """Why the last try ended; None while it is OPEN, or was never tried."""
        self.since = clock()
        self.retry_at = 0.0
        """When it is tried again, on `clock`; 0 unless WAITING."""
        self.failures = 0
        """Tries that ended without proof, in a row."""
        self._refusal: Cause | None = None

    def proved(self) -> None:
        """The server serves us."""
        self.failures = 0
        self.cause = None
        self._become(ClientState.OPEN)

    def refused(self, cause: Cause) -> None:
        """The server says no; the conversation ends by itself."""
        self._refusal = cause

    async def run(self) -> None:
        """Stay connected until cancelled."""
        delays = delays_s(self._options.retry_first_s, self._options.retry_cap_s)
        while True:
            # Of the last try: what a server said then is not why this one ends.
            self._refusal = None
            cause = await self._try()
            # Proved in this very try: a server that was of use is asked again soon.
            if self.state is ClientState.OPEN:
                delays = delays_s(self._options.retry_first_s, self._options.retry_cap_s)
            self.failures += 1
            # What it said, before what we saw: after a refusal the socket merely ends.
            self.cause = self._refusal or cause
            delay_s = next(delays)
            self.retry_at = self._clock() + delay_s
            self._become(ClientState.WAITING)
            await asyncio.sleep(delay_s)
            self.retry_at = 0.0
            self._become(ClientState.CONNECTING)

    async def _try(self) -> Cause:
        """One socket, from its opening to its end. Returns: why it ended."""
        try:
            await self._serve_one()
        except aiohttp.WSServerHandshakeError as error:
            return Cause.BUSY if error.status in BUSY_STATUSES else Cause.REFUSED
        except ValueError:
            # aiohttp.InvalidURL is one, and so is the UnicodeError of a host like `a..b`: our own configuration.
            return Cause.MISCONFIGURED
        except TimeoutError:
            return Cause.SILENT
        except (aiohttp.ClientError, OSError):
            return Cause.SIGNALLING_UNAVAILABLE
        except SwarmbridgeError as error:
            return error.cause
        except Exception as error:
            log.error("a socket's conversation broke with %s", type(error).__name__)
            return Cause.OTHER
        return Cause.CLOSED

    async def _serve_one(self) -> None:
        options = self._options
        # Each time: its token may be another by now.
        url = await self._url()
        async with asyncio.timeout(options.connect_timeout_s):
            # No compression: a small frame of a hostile server could hold the event loop while it is inflated.
            ws = await self._http.ws_connect(
                url, heartbeat=options.ping_s, max_msg_size=options.max_message_bytes, compress=0
            )
        socket = ClientSocket(ws, options)
        try:
            await self._serve(socket)
        finally:
            await socket.close()

    def _become(self, state: ClientState) -> None:
        if state is not self.state:
            self.state, self.since = state, self._clock()
            self._on_change()


async def until_first_ends(*parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts of a conversation side by side; when one ends all do. Raises: what that one raised."""
    tasks = [asyncio.create_task(part, name="conversation") for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Also where we are cancelled ourselves: nothing of a conversation outlives it.
        ended = [task for task in tasks if not task.done()]
        await end_tasks(ended)
    for task in done:
        task.result()
