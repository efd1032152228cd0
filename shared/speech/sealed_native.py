"""Native frames under the seal: the speech between nodes, and the only one that proves a member.

    records ─▶ SealedLink ─▶ NativeLink ─▶ events        frames ─▶ two queues ─▶ seal ─▶ records

The seal numbers records, so a frame is sealed when the transport is ready for it and not before. Control frames (acks,
requests, pings) go ahead of bodies, so that a full link still answers. A control queue that fills up means a peer that
does not read, and ends the link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from shared.content.messages import MAX_BODY_BYTES, PeerAnswer, PeerRequest
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError
from shared.ids import member_token
from shared.speech.budget import ByteBudget
from shared.speech.contract import Event, PeerProved, SpeechEnded
from shared.speech.native import MAX_OPEN_REQUESTS, NativeLink
from shared.wire.native.frames import MAX_BODY_SLICE_BYTES, BodyFrame, encode_frame
from shared.wire.sealed.sealed_link import FrameOpened, Sealed, SealedLink

BODY_QUEUE_FRAMES = 8
"""Half a MiB of body frames waiting for the transport."""

CONTROL_QUEUE_FRAMES = 1024

HANDSHAKE_TIMEOUT_S = 10.0
"""For three messages; a browser on a bad network is slower than a node."""


class SealedNative:
    """Implements shared.speech.contract.Speech.

    States:  handshake -> open (PeerProved) -> ended, by a failure of either layer or by silence.
    Source:  ours; the frames are shared.wire.native's, the seal is shared.wire.sealed's.
    """

    acks = True
    confirms = True
    max_asked = MAX_OPEN_REQUESTS
    """The peer refuses more than this."""

    def __init__(self, seal: SealedLink, budget: ByteBudget, now: float, unix_s: float) -> None:
        """budget: for bodies in reassembly. now, unix_s: the same moment on the two clocks, for certificates."""
        self._seal = seal
        self._budget = budget
        self._native = NativeLink(now, budget)
        self._opened_at = now
        self._unix_offset_s = unix_s - now
        self._events: list[Event] = []
        self._handshake: deque[bytes] = deque(seal.data_to_send())
        self._control: deque[bytes] = deque()
        self._bodies: deque[bytes] = deque()
        self._body_left: dict[bytes, tuple[int, int]] = {}
        """Of each answer that we are sending: the offset reached, and the body's length."""

    @property
    def rtt_s(self) -> float:
        return self._native.rtt_s

    @property
    def asked_count(self) -> int:
        return self._native.asked_count

    @property
    def claimed_key(self) -> bytes:
        return self._seal.peer_key

    # ── the wire ──

    def receive_record(self, record: bytes, now: float) -> None:
        """See the contract. Raises: RemoteProtocolError: of the seal (UNAUTHENTICATED, CLOCK_SKEW) or of the frames."""
        try:
            for event in self._seal.receive_record(record, now + self._unix_offset_s):
                if isinstance(event, Sealed):
                    self._events.append(PeerProved(member_token(event.identity_key)))
                elif isinstance(event, FrameOpened):
                    self._events += self._native.receive_frame(event.frame, now)
        except RemoteProtocolError:
            self._forget_unsent()
            raise
        finally:
            self._handshake.extend(self._seal.data_to_send())
        self._queue_native()

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def next_record(self) -> bytes | None:
        if self._handshake:
            return self._handshake.popleft()
        if not self._seal.is_open:
            return None
        if self._control:
            return self._seal.seal(self._control.popleft())
        return self._seal.seal(self._bodies.popleft()) if self._bodies else None

    def has_more_to_send(self) -> bool:
        return bool(self._handshake or self._control or self._bodies)

    def next_deadline(self) -> float:
        return self._native.next_deadline() if self._seal.is_open else self._opened_at + HANDSHAKE_TIMEOUT_S

    def handle_timer(self, now: float) -> None:
        if self._seal.is_open:
            self._events += self._native.handle_timer(now)
            self._queue_native()
        elif now - self._opened_at >= HANDSHAKE_TIMEOUT_S:
            self._events.append(SpeechEnded(Cause.UNAUTHENTICATED))

    def close(self) -> None:
        self._forget_unsent()
        self._handshake.clear()
        self._seal.close()
        self._budget.give_all()

    # ── requests ──

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        self._queue(self._native.ask(request_id, request, remaining_ms, traceparent, now))

    def cancel(self, request_id: bytes) -> None:
        self._queue(self._native.cancel(request_id))

    def open_requests(self) -> list[bytes]:
        return self._native.open_requests()

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        if body_bytes > MAX_BODY_BYTES:
            raise SwarmbridgeError(Cause.TOO_LARGE)
        self._queue(self._native.answer(request_id, answer, body_bytes))
        if body_bytes and self._native.is_open(request_id):
            self._body_left[request_id] = (0, body_bytes)

    def take_body(self, request_id: bytes, data: memoryview) -> int:
        offset, length = self._body_left.get(request_id, (0, 0))
        if not self._native.is_open(request_id):
            self._body_left.pop(request_id, None)
            return len(data)
        taken = 0
        while taken < len(data) and len(self._bodies) < BODY_QUEUE_FRAMES:
            part = data[taken : taken + MAX_BODY_SLICE_BYTES]
            self._bodies.append(encode_frame(BodyFrame(request_id, offset + taken, part)))
            taken += len(part)
        if offset + taken >= length:
            del self._body_left[request_id]
            self._native.finish(request_id)
        else:
            self._body_left[request_id] = (offset + taken, length)
        return taken

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        self._body_left.pop(request_id, None)
        self._queue(self._native.fail(request_id, cause, retry_after_ms))

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        self._queue(self._native.announce(manifests))

    def goodbye(self, cause: Cause | None = None) -> None:
        self._queue(self._native.goodbye(cause))

    # ── within ──

    def _queue_native(self) -> None:
        for frame in self._native.frames_to_send():
            self._queue(frame)

    def _queue(self, frame: bytes | None) -> None:
        """Queue a small frame ahead of bodies; None (nothing to say) is ignored."""
        if frame is None:
            return
        if len(self._control) >= CONTROL_QUEUE_FRAMES:
            self._events.append(SpeechEnded(Cause.BUSY))
            return
        self._control.append(frame)

    def _forget_unsent(self) -> None:
        self._control.clear()
        self._bodies.clear()
        self._body_left.clear()
