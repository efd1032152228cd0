"""One native link: requests both ways, their answers put together, and whether the far end is alive.

Driven by:   `receive_frame(bytes, now)` for each opened frame, `handle_timer(now)` at `next_deadline()`.
States:      a request of ours is asked -> acked -> answering -> gone; a peer's is open -> gone.
Invariants:  an answer counts once, for an id that we asked and did not cancel; anything else is dropped and
             counted in `stray_count`. A body arrives in order, whole, and never beyond its announced length.

`now` is in seconds, monotonic. Frames to send come from the methods' return values and `frames_to_send()`;
the seal and the socket are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.content.messages import PeerAnswer, PeerRequest
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.native.frames import (
    AckFrame,
    AnswerFrame,
    BodyFrame,
    CancelFrame,
    FailedFrame,
    Frame,
    GoodbyeFrame,
    PingFrame,
    PongFrame,
    RequestFrame,
    decode_frame,
    encode_frame,
)

PING_AFTER_S = 1.0
"""Nothing came for so long: ask."""

SILENT_AFTER_S = 4.0
"""Nothing came for so long, pings included: the far end is dead (aiortc alone takes up to 33 s, FACTS 1)."""

MAX_OPEN_REQUESTS = 64
"""Requests of the peer that we work on at a time, a link (TRUST, data channel)."""

RTT_GAIN = 0.125
"""Weight of a new sample in the smoothed round trip (RFC 6298's alpha)."""


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The peer asks; an ACK is already on its way. remaining_ms: what it still waits for."""

    request_id: bytes
    request: PeerRequest
    remaining_ms: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The peer has too many requests open; it is being told so."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The peer wants no answer any more; send nothing further for it."""

    request_id: bytes


@dataclass(frozen=True, slots=True)
class AnswerProgressed:
    """bytes: of the body so far; 0 = acknowledged only."""

    request_id: bytes
    bytes: int


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    request_id: bytes
    answer: PeerAnswer
    body: bytes


@dataclass(frozen=True, slots=True)
class RequestFailed:
    request_id: bytes
    cause: Cause
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The peer drains: answers may still come, new requests belong on another link. cause: close the link for it."""

    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class PeerFellSilent:
    """Not even a pong: close the link."""


Event = (
    RequestReceived
    | RequestRefused
    | RequestCancelled
    | AnswerProgressed
    | AnswerReceived
    | RequestFailed
    | PeerLeft
    | PeerFellSilent
)


@dataclass(slots=True)
class _Asked:
    """A request of ours."""

    asked_at: float
    acked: bool = False
    answer: PeerAnswer | None = None
    body_bytes: int = 0
    body: bytearray | None = None


class NativeLink:
    """See the module's text."""

    def __init__(self, now: float) -> None:
        self._asked: dict[bytes, _Asked] = {}
        self._open: set[bytes] = set()
        self._to_send: list[bytes] = []
        self._last_received = now
        self._ping: tuple[int, float] | None = None
        self._ping_count = 0
        self.rtt_s = 0.0
        self.stray_count = 0

    @property
    def asked_count(self) -> int:
        """Requests of ours without an answer."""
        return len(self._asked)

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> bytes:
        """Start a request. Returns: its frame. Raises: LocalProtocolError where the id is in use."""
        if request_id in self._asked:
            raise LocalProtocolError("request id in use")
        self._asked[request_id] = _Asked(now)
        return encode_frame(RequestFrame(request_id, request, remaining_ms, traceparent))

    def cancel(self, request_id: bytes) -> bytes | None:
        """Forget a request of ours. Returns: the frame that tells the peer; None where there is nothing to cancel."""
        if self._asked.pop(request_id, None) is None:
            return None
        return encode_frame(CancelFrame(request_id))

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> bytes | None:
        """Begin the answer to a peer's request; its BODY frames follow where body_bytes > 0.

        Returns: the frame; None where the peer has cancelled.
        """
        if request_id not in self._open:
            return None
        if body_bytes == 0:
            self._open.discard(request_id)
        return encode_frame(AnswerFrame(request_id, answer, body_bytes))

    def is_open(self, request_id: bytes) -> bool:
        """Whether the peer still waits for this answer."""
        return request_id in self._open

    def open_requests(self) -> list[bytes]:
        """The peer's requests that we still work on."""
        return list(self._open)

    def finish(self, request_id: bytes) -> None:
        """The answer's last BODY frame was handed over."""
        self._open.discard(request_id)

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> bytes | None:
        """Refuse a peer's request. Returns: the frame; None where the peer has cancelled."""
        if request_id not in self._open:
            return None
        self._open.discard(request_id)
        return encode_frame(FailedFrame(request_id, cause, retry_after_ms))

    def goodbye(self, cause: Cause | None = None) -> bytes:
        """Tell the peer that we drain, or for which cause it is to close the link."""
        return encode_frame(GoodbyeFrame(cause))

    def frames_to_send(self) -> list[bytes]:
        """Acks, pongs, pings and refusals that came up since the last call."""
        frames, self._to_send = self._to_send, []
        return frames

    def receive_frame(self, data: bytes, now: float) -> list[Event]:
        """Take one opened frame. Raises: RemoteProtocolError; close the link with its cause."""
        self._last_received = now
        frame = decode_frame(data)
        if frame is None:
            return []
        return self._receive(frame, now)

    def next_deadline(self) -> float:
        """When `handle_timer` wants to be called, monotonic seconds."""
        if self._ping is None:
            return self._last_received + PING_AFTER_S
        return min(self._ping[1] + PING_AFTER_S, self._last_received + SILENT_AFTER_S)

    def handle_timer(self, now: float) -> list[Event]:
        """Ping a quiet peer; give up on a silent one."""
        if now - self._last_received >= SILENT_AFTER_S:
            return [PeerFellSilent()]
        quiet = now - self._last_received >= PING_AFTER_S
        if quiet and (self._ping is None or now - self._ping[1] >= PING_AFTER_S):
            self._ping_count += 1
            self._ping = (self._ping_count, now)
            self._to_send.append(encode_frame(PingFrame(self._ping_count)))
        return []

    def _receive(self, frame: Frame, now: float) -> list[Event]:
        match frame:
            case BodyFrame():
                return self._receive_body(frame)
            case RequestFrame():
                return self._receive_request(frame)
            case AckFrame():
                return self._receive_ack(frame.request_id, now)
            case AnswerFrame():
                return self._receive_answer(frame)
            case FailedFrame():
                if self._asked.pop(frame.request_id, None) is None:
                    return self._stray()
                return [RequestFailed(frame.request_id, frame.cause, frame.retry_after_ms)]
            case CancelFrame():
                if frame.request_id not in self._open:
                    return self._stray()
                self._open.discard(frame.request_id)
                return [RequestCancelled(frame.request_id)]
            case PingFrame():
                self._to_send.append(encode_frame(PongFrame(frame.token)))
                return []
            case PongFrame():
                if self._ping is not None and self._ping[0] == frame.token:
                    self._sample_rtt(now - self._ping[1])
                    self._ping = None
                return []
            case GoodbyeFrame():
                return [PeerLeft(frame.cause)]

    def _receive_request(self, frame: RequestFrame) -> list[Event]:
        if frame.request_id in self._open:
            return self._stray()  # asked again on the same link: the answer is on its way
        if len(self._open) >= MAX_OPEN_REQUESTS:
            self._to_send.append(encode_frame(FailedFrame(frame.request_id, Cause.BUSY, int(PING_AFTER_S * 1000))))
            return [RequestRefused(Cause.BUSY)]
        self._open.add(frame.request_id)
        self._to_send.append(encode_frame(AckFrame(frame.request_id)))
        return [RequestReceived(frame.request_id, frame.request, frame.remaining_ms, frame.traceparent)]

    def _receive_ack(self, request_id: bytes, now: float) -> list[Event]:
        asked = self._asked.get(request_id)
        if asked is None or asked.acked:
            return self._stray()
        asked.acked = True
        self._sample_rtt(now - asked.asked_at)
        return [AnswerProgressed(request_id, 0)]

    def _receive_answer(self, frame: AnswerFrame) -> list[Event]:
        asked = self._asked.get(frame.request_id)
        if asked is None:
            return self._stray()
        if asked.body is not None:
            raise RemoteProtocolError("a second answer inside the first")
        if frame.body_bytes == 0:
            del self._asked[frame.request_id]
            return [AnswerReceived(frame.request_id, frame.answer, b"")]
        asked.answer, asked.body_bytes, asked.body = frame.answer, frame.body_bytes, bytearray()
        return [AnswerProgressed(frame.request_id, 0)]

    def _receive_body(self, frame: BodyFrame) -> list[Event]:
        asked = self._asked.get(frame.request_id)
        if asked is None:
            return self._stray()
        if asked.body is None or asked.answer is None:
            raise RemoteProtocolError("body before its answer")
        if frame.offset != len(asked.body) or frame.offset + len(frame.data) > asked.body_bytes:
            raise RemoteProtocolError("body out of order or too long")
        asked.body += frame.data
        if len(asked.body) < asked.body_bytes:
            return [AnswerProgressed(frame.request_id, len(asked.body))]
        del self._asked[frame.request_id]
        return [AnswerReceived(frame.request_id, asked.answer, bytes(asked.body))]

    def _sample_rtt(self, sample_s: float) -> None:
        self.rtt_s = sample_s if self.rtt_s == 0 else self.rtt_s + RTT_GAIN * (sample_s - self.rtt_s)

    def _stray(self) -> list[Event]:
        self.stray_count += 1
        return []
