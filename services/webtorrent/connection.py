"""One TCP stream with its PeerWire: bytes in, events out, timers, and writing with a bounded buffer.

It decides nothing: its owner hears every event and says whom to close. The glue is always the same: feed the
machine, write what it wants written, hand on its events, re-arm the timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol, cast

from shared.clock import Clock
from shared.errors import Cause, TransportError
from shared.wire.peerwire import Closed, Event, PeerWire

RECEIVE_BYTES = 256 * 1024
"""One read. The buffer is shared by a worker's connections: a read is taken apart before the next one begins."""
HIGH_MARK_BYTES = 1024 * 1024
"""`send` waits while more than this is queued for the socket: 16 records of 64 KiB."""
LOW_MARK_BYTES = 256 * 1024
"""...until this little is left, so that the socket does not run dry meanwhile."""
CLOSE_LINGER_S = 1.0
"""How long queued bytes of a closed wire may still leave."""


class ConnectionOwner(Protocol):
    """Who hears of a connection; synchronous and quick."""

    def connected(self, connection: WireConnection) -> bool:
        """The stream is up. Returns: whether it may stay."""

    def wire_event(self, connection: WireConnection, event: Event) -> None:
        """An event of its machine, except Closed."""

    def lost(self, connection: WireConnection, cause: Cause) -> None:
        """It is over: exactly once for each `connected`, with nothing after it."""


class WireConnection(asyncio.BufferedProtocol):
    """See the module. buffer: where reads land, RECEIVE_BYTES, shared.

    Back-pressure: `send` waits between the two marks; reads are never paused, because what a peer may send
                   unasked is bounded by our own requests (the layer above).
    Cancellation:  `send` cancelled while it waits has sent nothing.
    """

    def __init__(self, wire: PeerWire, owner: ConnectionOwner, buffer: memoryview, clock: Clock) -> None:
        self.address = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self._wire = wire
        self._owner = owner
        self._buffer = buffer
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    # ── the stream ──────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._over:  # its dial was given up while the stream was being made
            self._transport.abort()
            return
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self._socket = transport.get_extra_info("socket")
        self._set_option("TCP_NODELAY")
        self._transport.set_write_buffer_limits(high=HIGH_MARK_BYTES, low=LOW_MARK_BYTES)
        if not self._owner.connected(self):
            self._over = True
            self._transport.abort()
            return
        self._flush()
        self._arm_timer()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._over:
            return
        self.bytes_in += nbytes
        # Linux forgets it with every read: without it a peer with Nagle's delay waits 40 ms (docs/webtorrent.md).
        self._set_option("TCP_QUICKACK")
        self._handle(self._wire.receive_data(self._buffer[:nbytes], self._clock()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Cause.CLOSED)
        self._gone.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def gone(self) -> bool:
        """Whether its socket is closed, or never was."""
        return self._transport is None or self._gone.is_set()

    # ── the owner's side ────────────────────────────────────────────────────────────────────────────────

    async def send(self, frame: bytes) -> None:
        """Write one frame. Raises: TransportError(CLOSED): the wire is over."""
        while not self._writable.is_set() and not self._over:
            await self._writable.wait()
        if self._over:
            raise TransportError(Cause.CLOSED)
        self._wire.send_frame(frame)
        self._flush()

    def close(self, cause: Cause) -> None:
        """End it: `lost` is called before this returns, queued bytes have CLOSE_LINGER_S to leave."""
        transport = self._transport
        self._end(cause)
        if transport is not None:
            transport.close()
            if not self._gone.is_set():
                asyncio.get_running_loop().call_later(CLOSE_LINGER_S, transport.abort)

    async def abort(self, cause: Cause) -> None:
        """End it at once; when this returns its socket is closed."""
        transport = self._transport
        self._end(cause)
        if transport is not None:
            transport.abort()
            await self._gone.wait()

    # ── within ──────────────────────────────────────────────────────────────────────────────────────────

    def _handle(self, events: list[Event]) -> None:
        self._flush()
        for event in events:
            if self._over:
                return
            if isinstance(event, Closed):
                self.close(event.cause)
                return
            self._owner.wire_event(self, event)
        self._arm_timer()

    def _flush(self) -> None:
        data = self._wire.data_to_send()
        if data and self._transport is not None:
            self.bytes_out += len(data)
            self._transport.write(data)

    def _arm_timer(self) -> None:
        # Deadlines mostly move back: a timer that fires early asks again, which is cheaper than one per read.
        deadline = self._wire.next_deadline()
        if self._over or deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        delay_s = max(0.0, deadline - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._handle(self._wire.handle_timer(self._clock()))

    def _end(self, cause: Cause) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._writable.set()
        self._owner.lost(self, cause)

    def _set_option(self, name: str) -> None:
        option = getattr(socket, name, None)  # TCP_QUICKACK is Linux's
        if option is not None and self._socket is not None:
            with contextlib.suppress(OSError):  # the peer is gone: the next read or write says so
                self._socket.setsockopt(socket.IPPROTO_TCP, option, 1)
