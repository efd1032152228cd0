"""Native frames on one link: requests both ways, their answers put together, and whether the peer is alive.

Driven by:   `receive_frame(bytes, now)` for each opened frame, `handle_timer(now)` at `next_deadline()`.
States:      a request of ours is asked -> acked -> answering -> gone; a peer's is open -> gone.
Invariants:  an answer counts once, for an id that we asked and did not cancel. A body arrives in order, whole, never
             beyond its announced length, and only where the budget has room for it.
Useless:     a frame that changes nothing (a stray, an unknown kind, a ping) is counted; what a cancel crossed on its
             way is not. More than USELESS_PER_S of them ends the link.

`now` is in seconds, monotonic. Frames to send come from the methods' return values and `frames_to_send()`;
the seal and the queues are SealedNative's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

from shared.content.messages import MAX_ANNOUNCED, PeerAnswer, PeerRequest
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.speech.budget import MAX_LINK_BYTES, ByteBudget
from shared.speech.contract import (
    Announced,
    AnswerProgressed,
    AnswerReceived,
    Event,
    PeerLeft,
    RequestCancelled,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    SpeechEnded,
)
from shared.token_bucket import TokenBucket
from shared.wire.native.frames import (
    AckFrame,
    AnnounceFrame,
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
"""Nothing came for so long, pings included: the peer is dead (aiortc alone takes up to 33 s)."""

MAX_OPEN_REQUESTS = 64
"""Requests of the peer that we work on at a time, a link."""

MAX_REMEMBERED = 256
"""Requests that ended a moment ago, each way: what crosses their end on the wire is late, not useless."""

BUSY_RETRY_MS = 1000
"""When one whose request did not fit may ask again."""

USELESS_PER_S = 20.0
USELESS_BURST = 200.0
"""A peer pings once a second and is otherwise useful; the burst covers what a stalled link delivers at once."""

RTT_GAIN = 0.125
"""Weight of a new sample in the smoothed round trip (RFC 6298's alpha)."""

_T = TypeVar("_T")


@dataclass(slots=True)
class _Asked:
    """A request of ours."""

    asked_at: float
    acked: bool = False
    answer: PeerAnswer | None = None
    body_bytes: int = 0
    body: bytearray | None = None


@dataclass(slots=True)
class _Late:
    """A request of ours that we want no answer to any more. left: body bytes still to come; None = no header yet."""

    left_bytes: int | None


class NativeLink:
    """See the module's text."""

    def __init__(
        self,
        now: float,
        budget: ByteBudget | None = None,
        *,
        ping_after_s: float = PING_AFTER_S,
        silent_after_s: float = SILENT_AFTER_S,
    ) -> None:
        """budget: for bodies in reassembly; the link's own where none is given."""
        self._ping_after_s, self._silent_after_s = ping_after_s, silent_after_s
        self._budget = budget or ByteBudget(MAX_LINK_BYTES)
        self._asked: dict[bytes, _Asked] = {}
        self._late: OrderedDict[bytes, _Late] = OrderedDict()
        self._open: set[bytes] = set()
        self._closed: OrderedDict[bytes, None] = OrderedDict()
        self._useless = TokenBucket(USELESS_PER_S, USELESS_BURST, now)
        self._to_send: list[bytes] = []
        self._last_received = now
        self._ping: tuple[int, float] | None = None
        self._ping_count = 0
        self.rtt_s = 0.0

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
        """Forget a request of ours. Returns: the frame that says so; None where there is nothing to cancel."""
        asked = self._asked.get(request_id)
        if asked is None:
            return None
        self._leave(request_id, asked)
        return encode_frame(CancelFrame(request_id))

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> bytes | None:
        """Begin the answer to a peer's request; its BODY frames follow where body_bytes > 0.

        Returns: the frame; None where the peer has cancelled.
        """
        if request_id not in self._open:
            return None
        # Nothing follows that `finish` could be called for.
        if body_bytes == 0:
            self.finish(request_id)
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
        _remember(self._closed, request_id, None)

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> bytes | None:
        """Refuse a peer's request. Returns: the frame; None where the peer has cancelled."""
        if request_id not in self._open:
            return None
        self.finish(request_id)
        return encode_frame(FailedFrame(request_id, cause, retry_after_ms))

    def goodbye(self, cause: Cause | None = None) -> bytes:
        """Say to the peer that we drain, or for which cause it is to close the link."""
        return encode_frame(GoodbyeFrame(cause))

    def announce(self, manifests: Sequence[str]) -> bytes:
        """Say which manifests we hold, the first MAX_ANNOUNCED of them."""
        return encode_frame(AnnounceFrame(tuple(manifests[:MAX_ANNOUNCED])))

    def frames_to_send(self) -> list[bytes]:
        """Acks, pongs, pings and refusals that came up since the last call."""
        frames, self._to_send = self._to_send, []
        return frames

    def receive_frame(self, data: bytes, now: float) -> list[Event]:
        """Take one opened frame. Raises: RemoteProtocolError; close the link with its cause."""
        # Of any kind, useless ones too: it shows that the peer is alive.
        self._last_received = now
        frame = decode_frame(data)
        if frame is None:
            return self._idle(now)
        return self._receive(frame, now)

    def next_deadline(self) -> float:
        """When `handle_timer` wants to be called, monotonic seconds."""
        if self._ping is None:
            return self._last_received + self._ping_after_s
        return min(self._ping[1] + self._ping_after_s, self._last_received + self._silent_after_s)

    def handle_timer(self, now: float) -> list[Event]:
        """Ping a quiet peer; give up on a silent one."""
        if now - self._last_received >= self._silent_after_s:
            return [SpeechEnded(Cause.SILENT)]
        quiet = now - self._last_received >= self._ping_after_s
        if quiet and (self._ping is None or now - self._ping[1] >= self._ping_after_s):
            self._ping_count += 1
            self._ping = (self._ping_count, now)
            self._to_send.append(encode_frame(PingFrame(self._ping_count)))
        return []

    def _receive(self, frame: Frame, now: float) -> list[Event]:
        match frame:
            case BodyFrame():
                return self._receive_body(frame, now)
            case RequestFrame():
                return self._receive_request(frame, now)
            case AckFrame():
                return self._receive_ack(frame.request_id, now)
            case AnswerFrame():
                return self._receive_answer(frame, now)
            case FailedFrame():
                return self._receive_failed(frame, now)
            case CancelFrame():
                return self._receive_cancel(frame.request_id, now)
            case PingFrame():
                self._to_send.append(encode_frame(PongFrame(frame.token)))
                return self._idle(now)
            case PongFrame():
                return self._receive_pong(frame.token, now)
            case AnnounceFrame():
                self._idle(now)  # it costs the node something and may come as often as a ping
                return [Announced(frame.manifests)]
            case GoodbyeFrame():
                self._idle(now)
                return [PeerLeft(frame.cause)]
            case _:
                assert_never(frame)

    def _receive_request(self, frame: RequestFrame, now: float) -> list[Event]:
        if frame.request_id in self._open:
            return self._idle(now)  # asked again on the same link: the answer is on its way
        if len(self._open) >= MAX_OPEN_REQUESTS:
            self._idle(now)
            # Refused here, before the worker makes a task or a span of it.
            self._to_send.append(encode_frame(FailedFrame(frame.request_id, Cause.BUSY, BUSY_RETRY_MS)))
            _remember(self._closed, frame.request_id, None)
            return [RequestRefused(Cause.BUSY)]
        # The ack goes out before anything is looked up: the peer times the link by it, not our work.
        self._open.add(frame.request_id)
        self._to_send.append(encode_frame(AckFrame(frame.request_id)))
        return [RequestReceived(frame.request_id, frame.request, frame.remaining_ms, frame.traceparent)]

    def _receive_cancel(self, request_id: bytes, now: float) -> list[Event]:
        if request_id in self._open:
            # Not remembered as closed: the cancel is here already, and another would be useless.
            self._open.discard(request_id)
            return [RequestCancelled(request_id)]
        if request_id in self._closed:
            del self._closed[request_id]  # it crossed our answer: once for each request
            return []
        return self._idle(now)

    def _receive_pong(self, token: int, now: float) -> list[Event]:
        if self._ping is None or self._ping[0] != token:
            return self._idle(now)
        self._sample_rtt(now - self._ping[1])
        self._ping = None
        return []

    def _receive_ack(self, request_id: bytes, now: float) -> list[Event]:
        asked = self._asked.get(request_id)
        if asked is None or asked.acked:
            return self._receive_late(request_id, now)
        asked.acked = True
        self._sample_rtt(now - asked.asked_at)
        return [AnswerProgressed(request_id, 0)]

    def _receive_failed(self, frame: FailedFrame, now: float) -> list[Event]:
        asked = self._asked.pop(frame.request_id, None)
        if asked is None:
            return self._receive_late(frame.request_id, now, over=True)
        self._budget.give(asked.body_bytes)
        return [RequestFailed(frame.request_id, frame.cause, frame.retry_after_ms)]

    def _receive_answer(self, frame: AnswerFrame, now: float) -> list[Event]:
        asked = self._asked.get(frame.request_id)
        if asked is None:
            late = self._late.get(frame.request_id)
            # Left before its header came: now it is known how much of its body may still follow.
            if late is None or late.left_bytes is not None:
                return self._idle(now)
            late.left_bytes = frame.body_bytes
            return self._receive_late(frame.request_id, now, over=frame.body_bytes == 0)
        # No body yet means no answer yet: a bodiless one has left `_asked`.
        if asked.body is not None:
            raise RemoteProtocolError("a second answer inside the first")
        if frame.body_bytes == 0:
            del self._asked[frame.request_id]
            return [AnswerReceived(frame.request_id, frame.answer, b"")]
        if not self._budget.take(frame.body_bytes):
            self._leave(frame.request_id, asked)
            # The whole body may be on its way already; our cancel only stops what is not.
            self._late[frame.request_id].left_bytes = frame.body_bytes
            self._to_send.append(encode_frame(CancelFrame(frame.request_id)))
            return [RequestFailed(frame.request_id, Cause.BUSY, BUSY_RETRY_MS)]
        asked.answer, asked.body_bytes, asked.body = frame.answer, frame.body_bytes, bytearray()
        return [AnswerProgressed(frame.request_id, 0)]

    def _receive_body(self, frame: BodyFrame, now: float) -> list[Event]:
        asked = self._asked.get(frame.request_id)
        if asked is None:
            return self._receive_late_body(frame, now)
        if asked.body is None or asked.answer is None:
            raise RemoteProtocolError("body before its answer")
        if frame.offset != len(asked.body) or frame.offset + len(frame.data) > asked.body_bytes:
            raise RemoteProtocolError("body out of order or too long")
        asked.body += frame.data
        if len(asked.body) < asked.body_bytes:
            return [AnswerProgressed(frame.request_id, len(asked.body))]
        del self._asked[frame.request_id]
        self._budget.give(asked.body_bytes)
        return [AnswerReceived(frame.request_id, asked.answer, bytes(asked.body))]

    def _receive_late_body(self, frame: BodyFrame, now: float) -> list[Event]:
        """What the peer had sent before our cancel reached it: no more than the body it had announced."""
        late = self._late.get(frame.request_id)
        if late is None or late.left_bytes is None or len(frame.data) > late.left_bytes:
            return self._idle(now)
        late.left_bytes -= len(frame.data)
        if late.left_bytes == 0:
            del self._late[frame.request_id]
        return []

    def _receive_late(self, request_id: bytes, now: float, *, over: bool = False) -> list[Event]:
        if request_id not in self._late:
            return self._idle(now)
        if over:
            del self._late[request_id]
        return []

    def _leave(self, request_id: bytes, asked: _Asked) -> None:
        del self._asked[request_id]
        self._budget.give(asked.body_bytes)
        # None: the header is still to come, and says how long the body would have been.
        left_bytes = asked.body_bytes - len(asked.body) if asked.body is not None else None
        _remember(self._late, request_id, _Late(left_bytes))

    def _sample_rtt(self, sample_s: float) -> None:
        self.rtt_s = sample_s if self.rtt_s == 0 else self.rtt_s + RTT_GAIN * (sample_s - self.rtt_s)

    def _idle(self, now: float) -> list[Event]:
        """A frame that changes nothing. Raises: RemoteProtocolError(RATE_LIMITED) where there are too many."""
        if not self._useless.take(now):
            raise RemoteProtocolError("too many frames that mean nothing", Cause.RATE_LIMITED)
        return []


def _remember(kept: OrderedDict[bytes, _T], request_id: bytes, value: _T) -> None:
    kept[request_id] = value
    # An id that is used again is young again, or the bound would forget it first.
    kept.move_to_end(request_id)
    if len(kept) > MAX_REMEMBERED:
        kept.popitem(last=False)
