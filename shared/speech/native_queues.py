"""What native frames wait in before a record is made of them: small ones ahead of bodies, and both bounded.

A speech puts its own layer around it (a seal, or none). A frame is taken when the transport is ready for it and not
before, so that what is queued late may still go ahead of a body. A control queue that fills up means a peer that does
not read, and ends the link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from shared.content.messages import MAX_BODY_BYTES, PeerAnswer, PeerRequest
from shared.errors import Cause, SwarmbridgeError
from shared.speech.contract import Event, SpeechEnded
from shared.speech.native import NativeLink
from shared.wire.native.frames import MAX_BODY_SLICE_BYTES, BodyFrame, encode_frame

BODY_QUEUE_BYTES = 512 * 1024
"""Of body frames that wait for the transport."""

CONTROL_QUEUE_FRAMES = 1024


class NativeQueues:
    """Driven by a speech: the methods are those of the contract, frames instead of records.

    slice_bytes: of a body in one frame.
    """

    def __init__(self, native: NativeLink, slice_bytes: int = MAX_BODY_SLICE_BYTES) -> None:
        self.native = native
        self._slice_bytes = slice_bytes
        self._events: list[Event] = []
        self._control: deque[bytes] = deque()
        self._bodies: deque[bytes] = deque()
        self._body_left: dict[bytes, tuple[int, int]] = {}
        """Of each answer that we are sending: the offset reached, and the body's length."""

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def report(self, event: Event) -> None:
        self._events.append(event)

    def receive_frame(self, frame: bytes, now: float) -> None:
        """Raises: RemoteProtocolError; close the link with its cause."""
        self._events += self.native.receive_frame(frame, now)

    def handle_timer(self, now: float) -> None:
        self._events += self.native.handle_timer(now)
        self.queue_native()

    def next_frame(self) -> bytes | None:
        if self._control:
            return self._control.popleft()
        return self._bodies.popleft() if self._bodies else None

    def has_more_to_send(self) -> bool:
        return bool(self._control or self._bodies)

    def forget_unsent(self) -> None:
        self._control.clear()
        self._bodies.clear()
        self._body_left.clear()

    def queue_native(self) -> None:
        """Take what came up by itself: acks, pongs, refusals."""
        for frame in self.native.frames_to_send():
            self._queue(frame)

    # ── requests ──

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        self._queue(self.native.ask(request_id, request, remaining_ms, traceparent, now))

    def cancel(self, request_id: bytes) -> None:
        self._queue(self.native.cancel(request_id))

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        if body_bytes > MAX_BODY_BYTES:
            raise SwarmbridgeError(Cause.TOO_LARGE)
        self._queue(self.native.answer(request_id, answer, body_bytes))
        # The peer may have cancelled between the request and its answer.
        if body_bytes and self.native.is_open(request_id):
            self._body_left[request_id] = (0, body_bytes)

    def take_body(self, request_id: bytes, data: memoryview) -> int:
        offset, length = self._body_left.get(request_id, (0, 0))
        if not self.native.is_open(request_id):
            self._body_left.pop(request_id, None)
            # "Taken": who serves it goes on to its end and learns nothing, as the contract has it.
            return len(data)
        taken = 0
        # Whole slices only: the bound is on memory, and a part of a slice would cost a frame of its own.
        while taken < len(data) and (len(self._bodies) + 1) * self._slice_bytes <= BODY_QUEUE_BYTES:
            part = data[taken : taken + self._slice_bytes]
            self._bodies.append(encode_frame(BodyFrame(request_id, offset + taken, part)))
            taken += len(part)
        if offset + taken >= length:
            del self._body_left[request_id]
            self.native.finish(request_id)
        else:
            self._body_left[request_id] = (offset + taken, length)
        return taken

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        # Body frames that are queued already still go, behind it: a few useless ones to the peer.
        self._body_left.pop(request_id, None)
        self._queue(self.native.fail(request_id, cause, retry_after_ms))

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        self._queue(self.native.announce(manifests))

    def goodbye(self, cause: Cause | None = None) -> None:
        self._queue(self.native.goodbye(cause))

    def _queue(self, frame: bytes | None) -> None:
        """Queue a small frame ahead of bodies; None (nothing to say) is ignored."""
        if frame is None:
            return
        if len(self._control) >= CONTROL_QUEUE_FRAMES:
            self._events.append(SpeechEnded(Cause.BUSY))
            return
        self._control.append(frame)
