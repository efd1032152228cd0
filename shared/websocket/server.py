"""WebSockets around a machine: feed, flush, re-arm the timer; a bounded queue for each socket.

Compression is never negotiated: a small frame could be inflated to far more than its sender paid for, on the one
event loop that serves everybody.

Cancellation:  `close` ends every socket with 1001 (going away) and waits until its handler has ended.
Back-pressure: a socket that sends faster than its rate allows is read more slowly. One that does not read what
               it is sent is cut off when its queue is full, and counted as `busy`: it must not slow the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from shared.clock import Clock
from shared.errors import Cause
from shared.tasks.owned import Tasks
from shared.token_bucket import TokenBucket
from shared.websocket.admission import Admission, Caller, Refusal
from shared.websocket.forwarded import Network, client_address
from shared.websocket.machine import Machine, Opening, Payload

MAX_EXPLAINED_REFUSALS = 64
"""Refused sockets that get the reason in the machine's own words at the same time; more get the HTTP status only."""
EXPLAIN_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one socket may do.

    max_message_bytes: a longer one closes the socket. messages_per_s, burst: a faster sender is read more slowly,
    so that nothing of a burst is lost. queued_bytes, queued_messages: not yet written; one that reads so slowly is
    cut off. write_timeout_s: for one message to get out. close_timeout_s: for the other side's half of the closing
    handshake. ping_s: WebSocket pings, None = the protocol has heartbeats of its own.
    """

    max_message_bytes: int
    messages_per_s: float
    burst: float
    queued_bytes: int
    queued_messages: int
    write_timeout_s: float = 30.0
    close_timeout_s: float = 2.0
    ping_s: float | None = None


log = logging.getLogger(__name__)


class _Socket:
    """One WebSocket and what waits to be written to it."""

    def __init__(
        self, ws: web.WebSocketResponse, request: web.Request, bucket: TokenBucket, limits: SocketLimits
    ) -> None:
        self.ws = ws
        self.bucket = bucket
        self._request = request
        self._limits = limits
        self._queue: deque[Payload] = deque()
        self._queued_bytes = 0
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._close_code: int | None = None
        self._ended = False

    def send(self, payload: Payload) -> bool:
        """Queue a text or bytes. Returns: False where the queue was full and the socket is being cut off."""
        if self._close_code is not None:
            return True
        limits = self._limits
        if len(self._queue) >= limits.queued_messages or self._queued_bytes + len(payload) > limits.queued_bytes:
            self.cut()
            return False
        self._queue.append(payload)
        self._queued_bytes += len(payload)
        self._ready.set()
        return True

    async def room(self, max_bytes: int) -> bool:
        """Wait until no more than this is queued. Returns: False where nothing more is written."""
        while self._queued_bytes > max_bytes and not self._is_over:
            self._room.clear()
            await self._room.wait()
        return not self._is_over

    def close(self, code: int = WSCloseCode.OK) -> None:
        """Close after what is queued is out."""
        if self._close_code is None:
            self._close_code = code
        self._ready.set()
        self._room.set()

    def end(self) -> None:
        """Nothing more comes in: nobody is there to write to."""
        self._ended = True
        self._ready.set()
        self._room.set()

    def cut(self) -> None:
        """End the connection without a word: the other side does not read."""
        # The transport goes with it: `finish` has nobody to wait for.
        self._close_code = WSCloseCode.ABNORMAL_CLOSURE
        self._queue.clear()
        self._room.set()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def write(self) -> None:
        """Write what is queued until the socket is to be closed, or is lost."""
        with contextlib.suppress(ConnectionError):
            while not self._ended:
                while self._queue:
                    await self._write_one(self._queue.popleft())
                if self._close_code is not None:
                    return
                self._ready.clear()
                await self._ready.wait()

    async def finish(self) -> None:
        """The closing handshake, where it is ours to begin. Nobody may be reading any more."""
        if self._close_code is not None:
            await self.ws.close(code=self._close_code)

    @property
    def _is_over(self) -> bool:
        return self._ended or self._close_code is not None

    async def _write_one(self, payload: Payload) -> None:
        # When it is taken and not when it is out: one message of full length may always be on its way.
        self._queued_bytes -= len(payload)
        self._room.set()
        try:
            async with asyncio.timeout(self._limits.write_timeout_s):
                await (self.ws.send_str(payload) if isinstance(payload, str) else self.ws.send_bytes(payload))
        except TimeoutError:
            self.cut()


class SocketServer:
    """All sockets of one machine."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        admission: Admission,
        limits: SocketLimits,
        clock: Clock,
        *,
        proxies: Sequence[Network] = (),
        on_slowed: Callable[[int], None] | None = None,
    ) -> None:
        """Args: proxies: whose `X-Forwarded-For` is believed. on_slowed: called when a socket is read more slowly."""
        self._name, self._machine, self._admission = name, machine, admission
        self._limits, self._clock, self._proxies = limits, clock, proxies
        self._on_slowed = on_slowed
        self._explaining = 0
        self._numbers = itertools.count(1)
        self._sockets: dict[int, _Socket] = {}
        self._rearm = asyncio.Event()
        self._armed_s: float | None = None
        self._closing = False
        self._idle = asyncio.Event()
        self.failed = asyncio.Event()
        """Set when the timer's task broke: what waits would never expire, so whoever owns the server must stop."""
        self._tasks = Tasks(on_crash=self._crashed)
        self.refused: Counter[str] = Counter()
        self.slowed_count = 0

    @property
    def is_closing(self) -> bool:
        return self._closing

    @property
    def socket_count(self) -> int:
        return len(self._sockets)

    def refusals(self) -> dict[str, int]:
        """How often what was refused, by cause: the machine's and the sockets' own."""
        of_machine = Counter({cause.value: count for cause, count in self._machine.refused.items()})
        return dict(sorted((self.refused + of_machine).items()))

    def _crashed(self, name: str) -> None:
        if name == f"{self._name}-timer":
            self.failed.set()

    def start(self) -> None:
        self._tasks.start(self._keep_time(), name=f"{self._name}-timer")

    async def close(self) -> None:
        """Say to every socket that we go, wait for their handlers. The caller bounds the wait; cancelling cuts off."""
        self._closing = True
        try:
            for socket in self._sockets.values():
                socket.close(WSCloseCode.GOING_AWAY)
            while self._sockets:
                self._idle.clear()
                await self._idle.wait()
        finally:
            for socket in self._sockets.values():
                socket.cut()
            await self._tasks.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket to its end."""
        if not web.WebSocketResponse().can_prepare(request):
            return web.Response(status=426, headers={"Upgrade": "websocket"}, text="a WebSocket is wanted here\n")
        caller = self._caller(request)
        refusal = Refusal.DRAINING if self._closing else self._admission.admit(caller)
        if refusal is not None:
            self.refused[refusal.value] += 1
            return await self._refuse(request, refusal)
        try:
            return await self._serve(request, caller)
        finally:
            self._admission.release(caller)

    def flush(self) -> None:
        """Carry out what the machine wants after the owner has called it."""
        self._flush()

    async def room(self, number: int, max_bytes: int) -> bool:
        """Wait until no more than this is queued for a socket. Returns: False where it is closing or gone.

        For whoever can wait: what is sent without waiting cuts off a socket that does not read it in time.
        """
        socket = self._sockets.get(number)
        return socket is not None and await socket.room(max_bytes)

    def _caller(self, request: web.Request) -> Caller:
        forwarded_for = ",".join(request.headers.getall("X-Forwarded-For", []))
        address = client_address(request.remote or "", forwarded_for, self._proxies)
        return Caller(address, request.headers.get("Origin", ""), request.query.get("token", ""))

    async def _refuse(self, request: web.Request, refusal: Refusal) -> web.StreamResponse:
        """Say why: a page sees nothing of an HTTP status, so where the protocol has words for it they are used."""
        words = self._machine.refusal(refusal.words)
        if words is None or self._explaining >= MAX_EXPLAINED_REFUSALS:
            return web.Response(status=refusal.status, text=f"{refusal.words}\n", headers={"Retry-After": "5"})
        self._explaining += 1
        ws = web.WebSocketResponse(compress=False, max_msg_size=1024, timeout=self._limits.close_timeout_s)
        try:
            async with asyncio.timeout(EXPLAIN_TIMEOUT_S):
                await ws.prepare(request)
                await ws.send_str(words)
                code = WSCloseCode.TRY_AGAIN_LATER if refusal.status == 503 else WSCloseCode.POLICY_VIOLATION
                await ws.close(code=code)
        except (ConnectionError, TimeoutError):
            pass  # it does not listen to why
        finally:
            self._explaining -= 1
        return ws

    async def _serve(self, request: web.Request, caller: Caller) -> web.WebSocketResponse:
        limits = self._limits
        ws = web.WebSocketResponse(
            compress=False,
            max_msg_size=limits.max_message_bytes,
            heartbeat=limits.ping_s,
            timeout=limits.close_timeout_s,
        )
        await ws.prepare(request)
        number = next(self._numbers)
        socket = _Socket(ws, request, TokenBucket(limits.messages_per_s, limits.burst, self._clock()), limits)
        # Before the machine hears of it: its first words are sent from within `open_socket`.
        self._sockets[number] = socket
        reader = self._tasks.start(self._read(number, socket), name=f"{self._name}-reader")
        reader.add_done_callback(lambda _: socket.end())
        try:
            self._machine.open_socket(number, Opening(request.query, caller), self._clock())
            self._flush()
            # It may have been admitted just before `close` went through all sockets.
            if self._closing:
                socket.close(WSCloseCode.GOING_AWAY)
            await socket.write()
        finally:
            # Before the closing handshake, which takes its time: nobody is sent to a socket that ends.
            self._machine.close_socket(number)
            self._flush()
            try:
                reader.cancel()
                # aiohttp lets one task read: the closing handshake reads for itself.
                await asyncio.wait({reader})
                await socket.finish()
            finally:
                del self._sockets[number]
                if not self._sockets:
                    self._idle.set()
        return ws

    async def _read(self, number: int, socket: _Socket) -> None:
        async for message in socket.ws:
            if message.type is WSMsgType.ERROR:
                self._count_error(message.data)
                break
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            if (wait_s := socket.bucket.wait_s(self._clock())) > 0:
                self.slowed_count += 1
                if self._on_slowed is not None:
                    self._on_slowed(number)
                    self._flush()
                # Not read meanwhile: TCP holds the sender back, and nothing of it is lost.
                await asyncio.sleep(wait_s)
            socket.bucket.take(self._clock())
            self._machine.receive_text(number, message.data, self._clock())
            self._flush()

    def _count_error(self, error: object) -> None:
        """A broken frame is the client's; a lost connection is nobody's."""
        if isinstance(error, WebSocketError):
            too_big = error.code == WSCloseCode.MESSAGE_TOO_BIG
            self.refused[(Cause.TOO_LARGE if too_big else Cause.INVALID).value] += 1

    def _flush(self) -> None:
        for number, payload in self._machine.outgoing():
            socket = self._sockets.get(number)
            if socket is None:
                continue
            if payload is None:
                socket.close()
            elif not socket.send(payload):
                self.refused[Cause.BUSY.value] += 1
        deadline_s = self._machine.next_deadline()
        if deadline_s is not None and (self._armed_s is None or deadline_s < self._armed_s):
            self._rearm.set()

    async def _keep_time(self) -> None:
        while True:
            self._armed_s = self._machine.next_deadline()
            # No await since the deadline was read: a sooner one that comes later sets it again.
            self._rearm.clear()
            wait_s = None if self._armed_s is None else max(0.0, self._armed_s - self._clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rearm.wait(), wait_s)
            self._machine.handle_timer(self._clock())
            self._flush()
