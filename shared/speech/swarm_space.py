"""Native frames without a seal: a plain `webtorrent` client that registered the `swarm-space` extension.

The same frames as between nodes, one a `swarm-space` message, so that the same machine serves both; what differs is
what may be said. Such a peer proves nothing: it is a guest, and its requests are answered like any stranger's.

On a wire that anybody on its way can read (TCP) cipher chunks by ref are all that is asked for, answered and said
(docs/trust.md#content): a manifest of ours is "not found" there, none is asked for, and none is announced. A data
channel is encrypted below us, so manifests and announcements go over it too.

Time: a page in the background is slower than a node: it is asked after PING_AFTER_S, given up after SILENT_AFTER_S.
Source: ours (docs/native.md); `services/webtorrent/extension/swarm-space.js` is the other end.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.content.messages import NotFound, PeerRequest, RequestManifest
from shared.errors import Cause
from shared.ids import guest_token
from shared.speech.budget import ByteBudget
from shared.speech.contract import (
    MAX_ASKED_OF_A_PAGE,
    Announced,
    AnswerReceived,
    Event,
    PeerProved,
    RequestReceived,
    RequestRefused,
)
from shared.speech.native import NativeLink
from shared.speech.native_queues import NativeQueues
from shared.speech.native_speech import NativeSpeech

SWARM_SPACE = "swarm_space"
SWARM_SPACE_CLEAR = "swarm_space_clear"
"""The same over a wire that is not encrypted."""

PING_AFTER_S = 5.0
SILENT_AFTER_S = 30.0
SLICE_BYTES = 16 * 1024
"""Of a body in one frame: what browsers' data channels move in one piece (docs/webtorrent.md)."""


class SwarmSpace(NativeSpeech):
    """Implements shared.speech.contract.Speech. guest: what the transport calls the peer. clear: see the module."""

    max_asked = MAX_ASKED_OF_A_PAGE
    claimed_key = b""

    def __init__(self, guest: str, budget: ByteBudget, now: float, *, clear: bool) -> None:
        native = NativeLink(now, budget, ping_after_s=PING_AFTER_S, silent_after_s=SILENT_AFTER_S)
        super().__init__(native, NativeQueues(native, SLICE_BYTES), budget)
        self._clear = clear
        self._queues.report(PeerProved(guest_token(guest)))

    # ── the wire ──

    def receive_record(self, record: bytes, now: float) -> None:
        """See the contract. Raises: RemoteProtocolError: of the frames."""
        self._queues.receive_frame(record, now)
        self._queues.queue_native()

    def events(self) -> list[Event]:
        return [heard for event in self._queues.events() if (heard := self._heard(event)) is not None]

    def next_record(self) -> bytes | None:
        return self._queues.next_frame()

    def has_more_to_send(self) -> bool:
        return self._queues.has_more_to_send()

    def next_deadline(self) -> float:
        return self._native.next_deadline()

    def handle_timer(self, now: float) -> None:
        self._queues.handle_timer(now)

    # ── requests ──

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        if self._clear and isinstance(request, RequestManifest):
            self._queues.report(AnswerReceived(request_id, NotFound(request.id), b""))
            return
        # A trace context would tell a stranger what belongs together.
        super().ask(request_id, request, remaining_ms, "", now)

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        if not self._clear:
            super().announce(manifests)

    # ── within ──

    def _heard(self, event: Event) -> Event | None:
        """What the worker hears of an event; on a clear wire a request for a manifest ends here, as a refusal."""
        if not self._clear:
            return event
        if isinstance(event, RequestReceived) and isinstance(event.request, RequestManifest):
            self._queues.answer(event.request_id, NotFound(event.request.id), 0)
            return RequestRefused(Cause.FORBIDDEN)
        # What it says to hold could only be fetched by a manifest.
        return None if isinstance(event, Announced) else event
