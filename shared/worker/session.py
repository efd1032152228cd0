"""One link in a worker: the seal, the native frames, and a writer that keeps their order.

    records ─▶ SealedLink ─▶ NativeLink ─▶ events        frames ─▶ two queues ─▶ seal ─▶ transport.send

The seal counts records, so exactly one task seals and sends. It takes control frames (acks, requests, pings)
before body frames, so that a full link still answers.

Back-pressure: `send_body` waits while BODY_QUEUE_FRAMES are queued; a control queue that fills up means a far
end that does not read, and closes the link.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from shared.clock import Clock, unix_ms
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError, TransportError
from shared.ids import LinkId, PeerToken, member_token, peer_name
from shared.transport.contract import LinkUp, Transport
from shared.wire.native.link import Event, NativeLink, PeerFellSilent
from shared.wire.sealed.sealed_link import FrameOpened, Sealed, SealedLink

BODY_QUEUE_FRAMES = 8
"""Half a MiB of body frames waiting for the transport."""

CONTROL_QUEUE_FRAMES = 1024

HANDSHAKE_TIMEOUT_S = 10.0
"""TRUST: 10 s a handshake."""

PARTING_S = 1.0
"""A peer that was told why its link ends has this long to close it; then we do. Closing at once would lose the word:
a data channel that is closed drops what it has queued."""

log = logging.getLogger(__name__)


class LinkSession:
    """A link from LinkUp to LinkDown. Its owner starts `run` in a task and cancels it on LinkDown.

    peer, peer_name: set once the seal has proved who is there. dialer: we opened it. leaving: the peer drains.
    closed_cause: why we closed it, None while it is open; parting_cause: why it is about to go down, by our own will.
    """

    def __init__(
        self,
        transport: Transport,
        up: LinkUp,
        seal: SealedLink,
        on_sealed: Callable[[LinkSession], None],
        on_event: Callable[[LinkSession, Event], None],
        clock: Clock,
    ) -> None:
        self.link: LinkId = up.link
        self.dialer = up.dialer
        self.expected_key = up.expected_key
        self.peer: PeerToken | None = None
        self.peer_name = ""
        self.leaving = False
        self.closed_cause: Cause | None = None
        self.parting_cause: Cause | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.native = NativeLink(clock())
        self._transport = transport
        self._seal = seal
        self._on_sealed = on_sealed
        self._on_event = on_event
        self._clock = clock
        self._opened_at = clock()
        self._control: deque[bytes] = deque()
        self._bodies: deque[bytes] = deque()
        self._handshake: deque[bytes] = deque(seal.data_to_send())
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def run(self) -> None:
        """Write what is queued and keep the timers until the link is closed or this is cancelled."""
        self._wake.set()
        try:
            while self.closed_cause is None:
                await self._wait()
                self._handle_timers()
                await self._write_queued()
            await self._transport.close(self.link, self.closed_cause)
        except TransportError as error:
            await self.close(error.cause)
        finally:
            self._room.set()

    def receive_record(self, record: bytes) -> None:
        """One record from the transport. A bad one closes the link."""
        if self.closed_cause is not None:
            return
        self.bytes_in += len(record)
        try:
            for event in self._seal.receive_record(record, unix_ms() // 1000):
                if isinstance(event, Sealed):
                    self.peer = member_token(event.identity_key)
                    self.peer_name = peer_name(self.peer)
                    self._on_sealed(self)
                elif isinstance(event, FrameOpened):
                    self._receive_frame(event.frame)
        except RemoteProtocolError as error:
            log.warning("link closed: %s", error.cause.value)
            self.close_soon(error.cause)
            return
        self._handshake.extend(self._seal.data_to_send())
        self._wake.set()

    def send_control(self, frame: bytes | None) -> None:
        """Queue a small frame ahead of bodies; None (nothing to say) is let go."""
        if frame is None or self.closed_cause is not None:
            return
        if len(self._control) >= CONTROL_QUEUE_FRAMES:
            self.close_soon(Cause.BUSY)
            return
        self._control.append(frame)
        self._wake.set()

    async def send_body(self, frame: bytes) -> None:
        """Queue a body frame. Back-pressure: waits for room. Raises: TransportError(CLOSED) on a closed link."""
        while len(self._bodies) >= BODY_QUEUE_FRAMES and self.closed_cause is None:
            self._room.clear()
            await self._room.wait()
        if self.closed_cause is not None:
            raise TransportError(Cause.CLOSED)
        self._bodies.append(frame)
        self._wake.set()

    async def flush(self) -> None:
        """Wait until everything queued has been handed to the transport, or the link is closed."""
        while (self._control or self._bodies or self._handshake) and self.closed_cause is None:
            self._room.clear()
            await self._room.wait()

    async def dismiss(self, cause: Cause) -> None:
        """Tell the peer why the link ends and let it close it; close it ourselves after PARTING_S."""
        self.parting_cause = cause
        self.send_control(self.native.goodbye(cause))
        try:
            async with asyncio.timeout(PARTING_S):
                while self.closed_cause is None:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            await self.close(cause)

    async def close(self, cause: Cause) -> None:
        """Close the link with the transport; the transport's LinkDown follows."""
        if self.closed_cause is None:
            self.closed_cause = cause
        self._wake.set()
        self._room.set()
        await self._transport.close(self.link, self.closed_cause)

    def close_soon(self, cause: Cause) -> None:
        """Close the link from where nothing can be awaited: the writer does it."""
        if self.closed_cause is None:
            self.closed_cause = cause
        self._wake.set()
        self._room.set()

    def _receive_frame(self, frame: bytes) -> None:
        for event in self.native.receive_frame(frame, self._clock()):
            self._on_event(self, event)
        self._queue_native()

    def _queue_native(self) -> None:
        for frame in self.native.frames_to_send():
            self.send_control(frame)

    def _handle_timers(self) -> None:
        now = self._clock()
        if self.peer is None:
            if now - self._opened_at >= HANDSHAKE_TIMEOUT_S:
                self.close_soon(Cause.UNAUTHENTICATED)
            return
        for event in self.native.handle_timer(now):
            if isinstance(event, PeerFellSilent):
                self.close_soon(Cause.SILENT)
            else:
                self._on_event(self, event)
        self._queue_native()

    async def _wait(self) -> None:
        if self._handshake or (self.peer is not None and (self._control or self._bodies)):
            return
        self._wake.clear()
        deadline = self.native.next_deadline() if self.peer else self._opened_at + HANDSHAKE_TIMEOUT_S
        try:
            async with asyncio.timeout(max(0.001, deadline - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _write_queued(self) -> None:
        while self.closed_cause is None:
            if self._handshake:
                record = self._handshake.popleft()
            elif self.peer is not None and self._control:
                record = self._seal.seal(self._control.popleft())
            elif self.peer is not None and self._bodies:
                record = self._seal.seal(self._bodies.popleft())
            else:
                break
            await self._transport.send(self.link, record)
            self.bytes_out += len(record)
            self._room.set()


def cause_of(error: BaseException) -> Cause:
    """The cause to publish for any error; a foreign one is OTHER."""
    return error.cause if isinstance(error, SwarmbridgeError) else Cause.OTHER
