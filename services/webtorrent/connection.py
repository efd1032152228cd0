"""What carries one wire, as the wires see it, and the TCP stream: writing with a bounded buffer.

It decides nothing: its owner hears every event and says whom to close.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol, cast

from services.webtorrent.driver import WireDriver
from shared.clock import Clock
from shared.errors import Cause, TransportError
from shared.wire.peerwire import Event, PeerWire

RECEIVE_BYTES = 256 * 1024
"""One read. The buffer is shared by a worker's connections: a read is taken apart before the next one begins."""
HIGH_MARK_BYTES = 1024 * 1024
"""`send` waits while more than this is queued for the socket: 16 records of 64 KiB."""
LOW_MARK_BYTES = 256 * 1024
"""...until this little is left, so that the socket does not run dry meanwhile."""
CLOSE_LINGER_S = 1.0
"""How long queued bytes of a closed wire may still leave."""


class WireStream(Protocol):
    """What carries a wire: a TCP connection or a data channel.

    address: the remote IP address, "" where it is not known. encrypted: whether nobody on the way can read it.
    offered: our end offered it (it dialled, or made the SDP offer), which makes it the dialer of a seal.
    """

    address: str
    encrypted: bool
    offered: bool

    @property
    def gone(self) -> bool: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    async def send(self, frame: bytes) -> None: ...
    def close(self, cause: Cause) -> None: ...
    async def abort(self, cause: Cause) -> None: ...


class ConnectionOwner(Protocol):
    """Who hears of a stream; synchronous and quick."""

    def connected(self, connection: WireStream) -> bool:
        """The stream is up. Returns: whether it may stay."""

    def wire_event(self, connection: WireStream, event: Event) -> None:
        """An event of its machine, except Closed."""

    def lost(self, connection: WireStream, cause: Cause) -> None:
        """It is over: exactly once for each `connected`, with nothing after it."""


class WireConnection(asyncio.BufferedProtocol):
    """A TCP stream with its PeerWire. buffer: where reads land, RECEIVE_BYTES, shared.

    Back-pressure: `send` waits between the two marks, and a peer that keeps it waiting is closed (driver.UNREAD_S);
                   reads are never paused, because what a peer may send unasked is bounded by our own requests (the
                   layer above).
    Cancellation:  `send` cancelled while it waits has sent nothing.
    """

    encrypted = False

    def __init__(
        self, wire: PeerWire, owner: ConnectionOwner, buffer: memoryview, clock: Clock, *, offered: bool
    ) -> None:
        self.address = ""
        self.offered = offered
        self._driver = WireDriver(
            wire, clock, self._write, lambda event: owner.wire_event(self, event), lambda cause: self.close(cause)
        )
        self._owner = owner
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()

    @property
    def bytes_in(self) -> int:
        return self._driver.bytes_in

    @property
    def bytes_out(self) -> int:
        return self._driver.bytes_out

    # ── the stream ──────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._driver.over:  # its dial was given up while the stream was being made
            self._transport.abort()
            return
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self._socket = transport.get_extra_info("socket")
        # Requests and acks are small frames: Nagle would hold each back for the last one's ACK.
        self._set_option("TCP_NODELAY")
        self._transport.set_write_buffer_limits(high=HIGH_MARK_BYTES, low=LOW_MARK_BYTES)
        if not self._owner.connected(self):
            self._driver.stop()
            self._transport.abort()
            return
        self._driver.start()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._driver.over:
            return
        # Linux forgets it with every read: without it a peer with Nagle's delay waits 40 ms (docs/webtorrent.md).
        self._set_option("TCP_QUICKACK")
        self._driver.receive(self._buffer[:nbytes])

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Cause.CLOSED)
        self._gone.set()

    def pause_writing(self) -> None:
        self._writable.clear()
        self._driver.blocked()

    def resume_writing(self) -> None:
        self._writable.set()
        self._driver.flowing()

    @property
    def gone(self) -> bool:
        """Whether its socket is closed, or never was."""
        return self._transport is None or self._gone.is_set()

    # ── the owner's side ────────────────────────────────────────────────────────────────────────────────

    async def send(self, frame: bytes) -> None:
        """Write one frame. Raises: TransportError(CLOSED): the wire is over."""
        while not self._writable.is_set() and not self._driver.over:
            await self._writable.wait()
        if self._driver.over:
            raise TransportError(Cause.CLOSED)
        self._driver.send_frame(frame)

    def close(self, cause: Cause) -> None:
        """End it: `lost` is called before this returns, queued bytes have CLOSE_LINGER_S to leave."""
        transport = self._transport
        self._end(cause)
        if transport is not None:
            transport.close()
            if not self._gone.is_set():
                # A peer that does not read would keep a closed stream, and its buffer, indefinitely.
                asyncio.get_running_loop().call_later(CLOSE_LINGER_S, transport.abort)

    async def abort(self, cause: Cause) -> None:
        """End it at once; when this returns its socket is closed."""
        transport = self._transport
        self._end(cause)
        if transport is not None:
            transport.abort()
            await self._gone.wait()

    # ── within ──────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _end(self, cause: Cause) -> None:
        if self._driver.over:
            return
        self._driver.stop()
        self._writable.set()
        self._owner.lost(self, cause)

    def _set_option(self, name: str) -> None:
        option = getattr(socket, name, None)  # TCP_QUICKACK is Linux's
        if option is not None and self._socket is not None:
            with contextlib.suppress(OSError):  # the peer is gone: the next read or write says so
                self._socket.setsockopt(socket.IPPROTO_TCP, option, 1)
