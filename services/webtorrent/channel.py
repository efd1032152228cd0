"""One data channel with its PeerWire: a byte stream in slices, as webtorrent has it.

Both ends of a channel send their handshake at once. Messages of a wire may span messages of the channel, and several
may come in one. Written in slices of WRITE_BYTES (docs/webtorrent.md).

Source: webtorrent 3 (simple-peer's channel: ordered, reliable, binary, one a connection, any label).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from services.webtorrent.connection import ConnectionOwner
from services.webtorrent.driver import WireDriver
from shared.clock import Clock
from shared.errors import Cause, TransportError
from shared.rtc.contract import DataChannel, LinkEvents, LinkFactory, LinkSettings
from shared.tasks.owned import Tasks
from shared.wire.peerwire import PeerWire

WRITE_BYTES = 16 * 1024
"""What every browser's channel moves in one piece."""
MAX_READ_BYTES = 256 * 1024
"""A channel message of webtorrent's may be a whole message of its wire; 262,144 is what SCTP ends ever agree on."""
HIGH_MARK_BYTES = 1024 * 1024
"""`send` waits while more than this is queued before the channel: 16 records of 64 KiB."""
CLOSE_LINGER_S = 1.0
"""How long queued bytes of a closed wire may still leave."""


class ChannelConnection:
    """Implements WireStream over a data channel that `rtc` is given once.

    Driven by:    the channel's callbacks, and its owner as any WireStream.
    Back-pressure: `send` waits while HIGH_MARK_BYTES are queued; a peer that takes none of it is closed
                   (driver.UNREAD_S).
    Cancellation: as WireConnection's.
    """

    encrypted = True
    address = ""
    """Which of its candidates the other end uses is ICE's business: limits of an address do not apply."""

    def __init__(
        self,
        make: LinkFactory,
        settings: LinkSettings,
        make_wire: Callable[[], PeerWire],
        owner: ConnectionOwner,
        tasks: Tasks,
        clock: Clock,
        *,
        offered: bool,
    ) -> None:
        """make_wire: called when the channel opens, so that its timers begin then. tasks: own the writer."""
        self.offered = offered
        self.opened = asyncio.Event()
        """Open, or over without having been."""
        self._make_wire = make_wire
        self._owner = owner
        self._tasks = tasks
        self._clock = clock
        self._driver: WireDriver | None = None
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._over = False
        self._writer: asyncio.Task[None] | None = None
        self._gone = False
        self.rtc: DataChannel = make(
            settings, LinkEvents(on_open=self._on_open, on_message=self._on_message, on_closed=self._on_closed)
        )

    @property
    def is_up(self) -> bool:
        """Whether the channel is open."""
        return self._driver is not None and not self._over

    @property
    def gone(self) -> bool:
        return self._gone

    @property
    def bytes_in(self) -> int:
        return self._driver.bytes_in if self._driver is not None else 0

    @property
    def bytes_out(self) -> int:
        return self._driver.bytes_out if self._driver is not None else 0

    # ── the owner's side ────────────────────────────────────────────────────────────────────────────────

    async def send(self, frame: bytes) -> None:
        """Write one frame. Raises: TransportError(CLOSED): the wire is over."""
        # On top of the channel's own mark: the writer alone waits there.
        while self._queued_bytes > HIGH_MARK_BYTES and not self._over:
            if self._driver is not None:
                self._driver.blocked()
            self._room.clear()
            await self._room.wait()
        if self._over or self._driver is None:
            raise TransportError(Cause.CLOSED)
        self._driver.send_frame(frame)

    def close(self, cause: Cause) -> None:
        """End it: `lost` is called before this returns, queued bytes have CLOSE_LINGER_S to leave."""
        self._end(cause)
        self._tasks.start(self._close_rtc(CLOSE_LINGER_S), name="channel-close")

    async def abort(self, cause: Cause) -> None:
        """End it at once; when this returns its sockets are closed."""
        self._end(cause)
        await self._close_rtc(0.0)

    # ── the channel's callbacks ─────────────────────────────────────────────────────────────────────────

    def _on_open(self) -> None:
        if self._over:
            return
        # The wires' limits are asked when it opens; until then those of the channels held.
        if not self._owner.connected(self):
            self._over = True
            self._tasks.start(self._close_rtc(0.0), name="channel-close")
            self.opened.set()
            return
        self._driver = WireDriver(
            self._make_wire(), self._clock, self._write, lambda event: self._owner.wire_event(self, event), self.close
        )
        self._writer = self._tasks.start(self._write_all(), name="channel-write")
        self.opened.set()
        # Last: the handshake that it sends may be answered at once, to a stream that is complete by then.
        self._driver.start()

    def _on_message(self, data: bytes) -> None:
        if self._driver is not None and not self._over:
            self._driver.receive(data)

    def _on_closed(self, cause: Cause) -> None:
        self._gone = True
        # A path that never was is the same to a wire as a peer that left: it never had a word.
        self._end(Cause.CLOSED if cause is Cause.ICE_FAILED else cause)

    # ── within ──────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._filled.set()

    async def _write_all(self) -> None:
        while True:
            self._filled.clear()
            while self._queue:
                data = memoryview(self._queue.popleft())
                for start in range(0, len(data), WRITE_BYTES):
                    try:
                        # A slice at a time: `send` waits when the channel is full, and a 64 KiB record would go past
                        # its mark.
                        await self.rtc.send(bytes(data[start : start + WRITE_BYTES]))
                    except TransportError as error:
                        self._end(error.cause)
                        return
                self._queued_bytes -= len(data)
                if self._driver is not None:
                    self._driver.flowing()
                self._room.set()
            if self._over:
                return
            await self._filled.wait()

    def _end(self, cause: Cause) -> None:
        if self._over:
            return
        self._over = True
        self._room.set()
        self._filled.set()
        self.opened.set()
        if self._driver is not None:
            self._driver.stop()
            self._owner.lost(self, cause)

    async def _close_rtc(self, linger_s: float) -> None:
        if self._writer is not None and not self._gone:
            # A data channel that is closed drops what it has queued, the word for which it ends among it.
            await asyncio.wait({self._writer}, timeout=linger_s)
            self._writer.cancel()
        await self.rtc.close(Cause.CLOSED)
        self._gone = True
