"""What every speech of native frames shares: requests both ways, by the queues, whatever is around the frames.

As `page_speech` for pages: a subclass makes records of frames, and says who the peer is and what it may hear.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.content.messages import PeerAnswer, PeerRequest
from shared.errors import Cause
from shared.speech.budget import ByteBudget
from shared.speech.contract import Event
from shared.speech.native import NativeLink
from shared.speech.native_queues import NativeQueues


class NativeSpeech:
    """The part of shared.speech.contract.Speech that needs no wire. budget: for bodies in reassembly."""

    acks = True
    confirms = True

    def __init__(self, native: NativeLink, queues: NativeQueues, budget: ByteBudget) -> None:
        self._native = native
        self._queues = queues
        self._budget = budget

    @property
    def rtt_s(self) -> float:
        return self._native.rtt_s

    @property
    def asked_count(self) -> int:
        return self._native.asked_count

    def events(self) -> list[Event]:
        return self._queues.events()

    def close(self) -> None:
        self._queues.forget_unsent()
        self._budget.give_all()

    # ── requests ──

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        self._queues.ask(request_id, request, remaining_ms, traceparent, now)

    def cancel(self, request_id: bytes) -> None:
        self._queues.cancel(request_id)

    def open_requests(self) -> list[bytes]:
        return self._native.open_requests()

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        self._queues.answer(request_id, answer, body_bytes)

    def take_body(self, request_id: bytes, data: memoryview) -> int:
        return self._queues.take_body(request_id, data)

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        self._queues.fail(request_id, cause, retry_after_ms)

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        self._queues.announce(manifests)

    def goodbye(self, cause: Cause | None = None) -> None:
        self._queues.goodbye(cause)
