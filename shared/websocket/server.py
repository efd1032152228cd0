"""WebSockets around a machine: feed, flush, re-arm the timer; a bounded queue for each socket.

Cancellation:  `close` ends every socket with 1001 (going away) and waits until its handler has ended.
Back-pressure: a socket that sends faster than MESSAGES_PER_S is read more slowly. One that does not read what
               it is sent is cut off when its queue is full, and counted as `busy`: it must not slow the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, deque

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from services.rendezvous.admission import Admission
from services.rendezvous.limits import (
    CLOSE_TIMEOUT_S,
    MAX_QUEUED_BYTES,
    MAX_QUEUED_MESSAGES,
    MAX_TEXT_BYTES,
    MESSAGE_BURST,
    MESSAGES_PER_S,
    WRITE_TIMEOUT_S,
)
from services.rendezvous.machines import Machine
from shared.clock import Clock
from shared.errors import Cause
from shared.tasks.owned import Tasks
from shared.token_bucket import TokenBucket

log = logging.getLogger(__name__)


class _Socket:
    """One WebSocket and what waits to be written to it."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request, bucket: TokenBucket) -> None:
        self.ws = ws
        self.bucket = bucket
        self._request = request
        self._queue: deque[str] = deque()
        self._queued_bytes = 0
        self._ready = asyncio.Event()
        self._close_code: int | None = None
        self._ended = False

    def send(self, text: str) -> bool:
        """Queue a text. Returns: False where the queue was full and the socket is being cut off."""
        if self._close_code is not None:
            return True
        if len(self._queue) >= MAX_QUEUED_MESSAGES or self._queued_bytes + len(text) > MAX_QUEUED_BYTES:
            self.cut()
            return False
        self._queue.append(text)
        self._queued_bytes += len(text)
        self._ready.set()
        return True

    def close(self, code: int = WSCloseCode.OK) -> None:
        """Close after what is queued is out."""
        if self._close_code is None:
            self._close_code = code
        self._ready.set()

    def end(self) -> None:
        """Nothing more comes in: nobody is there to write to."""
        self._ended = True
        self._ready.set()

    def cut(self) -> None:
        """End the connection without a word: the other side does not read."""
        self._close_code = WSCloseCode.ABNORMAL_CLOSURE
        self._queue.clear()
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

    async def _write_one(self, text: str) -> None:
        self._queued_bytes -= len(text)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self.ws.send_str(text)
        except TimeoutError:
            self.cut()


class SocketServer:
    """All sockets of one machine."""

    def __init__(
        self, name: str, machine: Machine, admission: Admission, clock: Clock, *, ping_s: float | None = None
    ) -> None:
        """Args: ping_s: WebSocket pings, None = the protocol has heartbeats of its own."""
        self._name, self._machine, self._admission = name, machine, admission
        self._clock, self._ping_s = clock, ping_s
        self._numbers = itertools.count(1)
        self._sockets: dict[int, _Socket] = {}
        self._rearm = asyncio.Event()
        self._armed_s: float | None = None
        self._closing = False
        self._idle = asyncio.Event()
        self._tasks = Tasks()
        self.refused: Counter[Cause] = Counter()
        self.slowed_count = 0

    @property
    def is_closing(self) -> bool:
        return self._closing

    @property
    def socket_count(self) -> int:
        return len(self._sockets)

    def refusals(self) -> dict[str, int]:
        """How often what was refused, by cause: the machine's and the sockets' own."""
        return {cause.value: count for cause, count in sorted((self.refused + self._machine.refused).items())}

    def start(self) -> None:
        self._tasks.start(self._keep_time(), name=f"{self._name}-timer")

    async def close(self) -> None:
        """Tell every socket that we go, wait for their handlers. The caller bounds the wait; cancelling cuts off."""
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
        address = request.remote or ""
        if self._closing:
            return web.Response(status=503, text="draining\n")
        if not self._admission.admit(address):
            self.refused[Cause.BUSY] += 1
            return web.Response(status=503, text="too many sockets\n")
        try:
            return await self._serve(request)
        finally:
            self._admission.release(address)

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(
            compress=False, max_msg_size=MAX_TEXT_BYTES, heartbeat=self._ping_s, timeout=CLOSE_TIMEOUT_S
        )
        await ws.prepare(request)
        number = next(self._numbers)
        socket = _Socket(ws, request, TokenBucket(MESSAGES_PER_S, MESSAGE_BURST, self._clock()))
        self._sockets[number] = socket
        reader = self._tasks.start(self._read(number, socket), name=f"{self._name}-reader")
        reader.add_done_callback(lambda _: socket.end())
        try:
            self._machine.open_socket(number, request.query, self._clock())
            self._flush()
            if self._closing:
                socket.close(WSCloseCode.GOING_AWAY)
            await socket.write()
        finally:
            self._machine.close_socket(number)
            self._flush()
            try:
                reader.cancel()
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
                await asyncio.sleep(wait_s)
            socket.bucket.take(self._clock())
            self._machine.receive_text(number, message.data, self._clock())
            self._flush()

    def _count_error(self, error: object) -> None:
        """A broken frame is the client's; a lost connection is nobody's."""
        if isinstance(error, WebSocketError):
            too_big = error.code == WSCloseCode.MESSAGE_TOO_BIG
            self.refused[Cause.TOO_LARGE if too_big else Cause.INVALID] += 1

    def _flush(self) -> None:
        for number, text in self._machine.outgoing():
            socket = self._sockets.get(number)
            if socket is None:
                continue
            if text is None:
                socket.close()
            elif not socket.send(text):
                self.refused[Cause.BUSY] += 1
        deadline_s = self._machine.next_deadline()
        if deadline_s is not None and (self._armed_s is None or deadline_s < self._armed_s):
            self._rearm.set()

    async def _keep_time(self) -> None:
        while True:
            self._armed_s = self._machine.next_deadline()
            self._rearm.clear()
            wait_s = None if self._armed_s is None else max(0.0, self._armed_s - self._clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rearm.wait(), wait_s)
            self._machine.handle_timer(self._clock())
            self._flush()
