"""Native frames under the seal: the speech between nodes, and the only one that proves a member.

    records ─▶ SealedLink ─▶ NativeLink ─▶ events        frames ─▶ NativeQueues ─▶ seal ─▶ records

The seal numbers records, so a frame is sealed when the transport is ready for it and not before.
"""

from __future__ import annotations

from collections import deque

from shared.errors import Cause, RemoteProtocolError
from shared.ids import member_token
from shared.speech.budget import ByteBudget
from shared.speech.contract import PeerProved, SpeechEnded
from shared.speech.native import MAX_OPEN_REQUESTS, NativeLink
from shared.speech.native_queues import NativeQueues
from shared.speech.native_speech import NativeSpeech
from shared.wire.sealed.sealed_link import FrameOpened, Sealed, SealedLink

HANDSHAKE_TIMEOUT_S = 10.0
"""For three messages; a browser on a bad network is slower than a node."""


class SealedNative(NativeSpeech):
    """Implements shared.speech.contract.Speech.

    States:  handshake -> open (PeerProved) -> ended, by a failure of either layer or by silence.
    Source:  ours; the frames are shared.wire.native's, the seal is shared.wire.sealed's.
    """

    max_asked = MAX_OPEN_REQUESTS
    """The peer refuses more than this."""

    def __init__(self, seal: SealedLink, budget: ByteBudget, now: float, unix_s: float) -> None:
        """budget: for bodies in reassembly. now, unix_s: the same moment on the two clocks, for certificates."""
        native = NativeLink(now, budget)
        super().__init__(native, NativeQueues(native), budget)
        self._seal = seal
        self._opened_at = now
        self._unix_offset_s = unix_s - now
        self._handshake: deque[bytes] = deque(seal.data_to_send())

    @property
    def claimed_key(self) -> bytes:
        return self._seal.peer_key

    # ── the wire ──

    def receive_record(self, record: bytes, now: float) -> None:
        """See the contract. Raises: RemoteProtocolError: of the seal (UNAUTHENTICATED, CLOCK_SKEW) or of the frames."""
        try:
            for event in self._seal.receive_record(record, now + self._unix_offset_s):
                if isinstance(event, Sealed):
                    self._queues.report(PeerProved(member_token(event.identity_key)))
                elif isinstance(event, FrameOpened):
                    self._queues.receive_frame(event.frame, now)
        except RemoteProtocolError:
            # What is queued would go out under a seal that has failed; only the seal's own last word may.
            self._queues.forget_unsent()
            raise
        finally:
            # Also after a failure: the alert that says why is in there.
            self._handshake.extend(self._seal.data_to_send())
        self._queues.queue_native()

    def next_record(self) -> bytes | None:
        if self._handshake:
            return self._handshake.popleft()
        # What was asked before the peer is proved waits: it must not leave in the clear.
        if not self._seal.is_open:
            return None
        frame = self._queues.next_frame()
        return self._seal.seal(frame) if frame is not None else None

    def has_more_to_send(self) -> bool:
        return bool(self._handshake) or self._queues.has_more_to_send()

    def next_deadline(self) -> float:
        return self._native.next_deadline() if self._seal.is_open else self._opened_at + HANDSHAKE_TIMEOUT_S

    def handle_timer(self, now: float) -> None:
        if self._seal.is_open:
            self._queues.handle_timer(now)
        elif now - self._opened_at >= HANDSHAKE_TIMEOUT_S:
            self._queues.report(SpeechEnded(Cause.UNAUTHENTICATED))

    def close(self) -> None:
        super().close()
        self._handshake.clear()
        self._seal.close()
