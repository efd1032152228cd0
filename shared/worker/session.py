"""One link in a worker: its speech, and a writer that hands the speech's records to the transport one at a time.

    transport ─ records ─▶ speech ─▶ events ─▶ on_event        calls ─▶ speech ─▶ records ─▶ transport.send

Back-pressure: `send_body` waits while the speech has no room; the writer waits in `transport.send`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from shared.clock import Clock
from shared.content.messages import PeerAnswer, PeerRequest
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError, TransportError
from shared.ids import LinkId, PeerToken, peer_name
from shared.speech.contract import Event, PeerProved, Speech, SpeechEnded
from shared.transport.contract import LinkUp, Transport

PARTING_S = 1.0
"""A peer that knows why its link ends has this long to close it; then we do. Closing at once would lose the word:
a data channel that is closed drops what it has queued."""

log = logging.getLogger(__name__)


class LinkSession:
    """A link from LinkUp to LinkDown. Its owner starts `run` in a task and cancels it on LinkDown.

    peer, peer_name: set once the speech has proved who is there. dialer: we opened it. leaving: the peer drains.
    closed_cause: why we closed it, None while it is open; parting_cause: why it is about to go down, by our own will.
    fault: what the peer did wrong, where that is why it was closed.
    """

    def __init__(
        self,
        transport: Transport,
        up: LinkUp,
        speech: Speech,
        on_event: Callable[[LinkSession, Event], None],
        clock: Clock,
    ) -> None:
        self.link: LinkId = up.link
        self.dialer = up.dialer
        self.expected_key = up.expected_key
        self.speech = speech
        self.peer: PeerToken | None = None
        self.peer_name = ""
        self.leaving = False
        self.closed_cause: Cause | None = None
        self.parting_cause: Cause | None = None
        self.fault: Cause | None = None
        self.bytes_out = 0
        self._transport = transport
        self._on_event = on_event
        self._clock = clock
        self._dispatching = False
        self._wake = asyncio.Event()
        # Something was sent or the link was closed: whoever waits for either clears it, and looks again.
        self._room = asyncio.Event()

    # ── the link's life ──

    async def run(self) -> None:
        """Write what is queued and keep the timers until the link is closed or this is cancelled."""
        self._after()  # a guest is proved before a word is said
        try:
            while self.closed_cause is None:
                self._handle_timer()
                record = self.speech.next_record()
                if record is None:
                    await self._wait()
                else:
                    await self._send(record)
            await self._last_words()
            await self._transport.close(self.link, self.closed_cause)
        except TransportError as error:
            await self.close(error.cause)
        except Exception as error:
            log.error("a link's writer ended with %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
            await self.close(Cause.OTHER)
        finally:
            self._room.set()

    def receive_record(self, record: bytes) -> None:
        """One record from the transport. A bad one closes the link."""
        if self.closed_cause is not None:
            return
        try:
            if len(record) > self._transport.capabilities.max_record_bytes:
                raise RemoteProtocolError("record too long", Cause.TOO_LARGE)
            self.speech.receive_record(record, self._clock())
        except RemoteProtocolError as error:
            # What was read before the fault is good: its events go out before the link is closed.
            log.warning("link closed: %s", error.cause.value)
            self._after()
            self.fault = error.cause
            self.close_soon(error.cause)
        except Exception as error:  # a bug of ours costs this link, not the transport that called us
            log.error("a record could not be read: %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG))
            self.close_soon(Cause.OTHER)
        else:
            self._after()

    async def dismiss(self, cause: Cause) -> None:
        """Say to the peer why the link ends and let it close it; close it ourselves after PARTING_S."""
        self.parting_cause = cause
        self.goodbye(cause)
        try:
            async with asyncio.timeout(PARTING_S):
                while self.closed_cause is None:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            await self.close(cause)

    async def close(self, cause: Cause) -> None:
        """Close the link with the transport; the transport's LinkDown follows."""
        self.close_soon(cause)
        await self._transport.close(self.link, self.closed_cause or cause)

    def close_soon(self, cause: Cause) -> None:
        """Close the link from where nothing can be awaited: the writer does it."""
        if self.closed_cause is None:
            self.closed_cause = cause
        self._wake.set()
        self._room.set()

    async def flush(self) -> None:
        """Wait until everything queued has been handed to the transport, or the link is closed."""
        while self.speech.has_more_to_send() and self.closed_cause is None:
            self._room.clear()
            await self._room.wait()

    # ── what is said ──

    @property
    def is_open(self) -> bool:
        """Whether it is known who is there, and the link has not been closed."""
        return self.peer is not None and self.closed_cause is None

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str) -> None:
        """As the speech's. On a closed link nothing is sent; the owner hears of its LinkDown."""
        if self.closed_cause is None:
            self.speech.ask(request_id, request, remaining_ms, traceparent, self._clock())
            self._after()

    def cancel(self, request_id: bytes) -> None:
        if self.closed_cause is None:
            self.speech.cancel(request_id)
            self._after()

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        """As the speech's. Raises: SwarmbridgeError(TOO_LARGE), (BUSY)."""
        if self.closed_cause is None:
            self.speech.answer(request_id, answer, body_bytes)
            self._after()

    async def send_body(self, request_id: bytes, data: memoryview) -> None:
        """The next bytes of a body. Back-pressure: waits for room. Raises: TransportError(CLOSED) on a closed link."""
        while len(data):
            if self.closed_cause is not None:
                raise TransportError(Cause.CLOSED)
            taken = self.speech.take_body(request_id, data)
            data = data[taken:]
            self._after()
            if taken == 0:
                self._room.clear()
                await self._room.wait()

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        if self.closed_cause is None:
            self.speech.fail(request_id, cause, retry_after_ms)
            self._after()

    def announce(self, manifests: Sequence[str]) -> None:
        if self.is_open and manifests:
            self.speech.announce(manifests)
            self._after()

    def goodbye(self, cause: Cause | None = None) -> None:
        if self.closed_cause is None:
            self.speech.goodbye(cause)
            self._after()

    # ── within ──

    def _after(self) -> None:
        """After anything was done to the speech: take its events, in order, and wake the writer."""
        self._wake.set()
        if self._dispatching:
            return  # called from an event's handler: the loop below takes what came of it
        self._dispatching = True
        try:
            while events := self.speech.events():
                for event in events:
                    self._take(event)
        finally:
            self._dispatching = False

    def _take(self, event: Event) -> None:
        if isinstance(event, SpeechEnded):
            if self.peer is None and event.cause is Cause.UNAUTHENTICATED:
                self.fault = event.cause  # a seal that never ends is counted as one that is wrong
            self.close_soon(event.cause)
            return
        if isinstance(event, PeerProved):
            self.peer = event.peer
            self.peer_name = peer_name(event.peer)
        self._on_event(self, event)

    def _handle_timer(self) -> None:
        now = self._clock()
        deadline = self.speech.next_deadline()
        if deadline is not None and now >= deadline:
            self.speech.handle_timer(now)
            self._after()

    async def _wait(self) -> None:
        # Nothing is awaited between the look for a record and this: no wake is lost.
        self._wake.clear()
        deadline = self.speech.next_deadline()
        try:
            # A millisecond at least: a deadline that is a rounding away would spin.
            async with asyncio.timeout(None if deadline is None else max(0.001, deadline - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _send(self, record: bytes) -> None:
        await self._transport.send(self.link, record)
        self.bytes_out += len(record)
        self._room.set()

    async def _last_words(self) -> None:
        """What a speech still has to say where the peer broke it, so that the peer learns why; then it may close."""
        if self.fault is None or (record := self.speech.next_record()) is None:
            return
        try:
            async with asyncio.timeout(PARTING_S):
                while record is not None:
                    await self._send(record)
                    record = self.speech.next_record()
                await asyncio.Event().wait()  # the peer's close ends this task
        except TimeoutError:
            pass


def cause_of(error: BaseException) -> Cause:
    """The cause to publish for any error; a foreign one is OTHER."""
    return error.cause if isinstance(error, SwarmbridgeError) else Cause.OTHER
