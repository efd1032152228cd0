"""A page of swarm-space on a PeerJS connection: values in the dialect that its first message shows.

    records ─▶ packing ─▶ values ─▶ dialect ─▶ events       calls ─▶ dialect ─▶ values ─▶ packing ─▶ records

States:      undecided -> deciding value came -> manager or mesh; ended by a close message, silence or a flood.
             A text decides for mesh, an object with a payload for manager; what the OFFER's metadata said holds until
             then. A page of which neither is known (one that we dialled, and that waits to be spoken to) is spoken to
             in both: each ignores what is not its own.
Bounds:      those of page_speech, messages being joined (budget), values that wait.

A goodbye without a cause is not said: pages know only a close.
Source: peerjs 1.5 (data connection), swarm-space's dialects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from shared.content.messages import NotFound, PeerAnswer
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.speech.budget import ByteBudget
from shared.speech.contract import PeerLeft, SpeechEnded
from shared.speech.page_dialect import Dialect, PageAsks, PagePongs, Said
from shared.speech.page_packing import BINARY, packing_of
from shared.speech.page_speech import PageSpeech
from shared.speech.peerjs_manager import ManagerDialect
from shared.speech.peerjs_mesh import MeshDialect
from shared.wire.peerjs.chunking import CloseReceived

MANAGER, MESH = "peerjs_manager", "peerjs_mesh"
"""The dialects' names."""

PEERJS = "peerjs"
"""A page whose dialect is not known yet."""

PING_EVERY_S = 8.0
"""As often as a page's own heartbeat; pages drop who is idle for 60 s."""

SILENT_AFTER_S = 60.0
"""As pages have it: a tab in the background may be that slow."""

MAX_QUEUED_VALUES = 1024
"""Small values that wait for a page that does not read; one more ends the link."""

RTT_GAIN = 0.125
"""Weight of a new sample in the smoothed round trip (RFC 6298's alpha)."""

MAX_RTT_S = 60.0


class PeerjsSpeech(PageSpeech):
    """Implements shared.speech.contract.Speech."""

    def __init__(
        self,
        guest: str,
        own_id: str,
        budget: ByteBudget,
        now: float,
        unix_s: float,
        hint: str | None = None,
        serialization: str = BINARY,
    ) -> None:
        """guest: the page's id, own_id: ours, as the PeerServer knows them. hint: the dialect that the OFFER named."""
        self._dialects: dict[str, Dialect] = {MANAGER: ManagerDialect(own_id), MESH: MeshDialect(own_id)}
        super().__init__(guest, self._dialects[hint] if hint is not None else None, now, unix_s)
        self._decided = False
        self._budget = budget
        self._packing = packing_of(serialization)
        self._joining_bytes = 0
        self._held: tuple[str, ...] = ()
        self._values: deque[bytes] = deque()
        self._slices: deque[bytes] = deque()
        self._slices_of = 0
        self._last_received = now
        self._last_ping = now
        self.rtt_s = 0.0

    # ── the wire ──

    def receive_record(self, record: bytes, now: float) -> None:
        self._now = self._last_received = now
        # The budget right behind it, before the value is used: slices of an unfinished message are what it bounds.
        event = self._packing.unpack(record, now)
        self._reserve_joining()
        if event is None:
            return
        if isinstance(event, CloseReceived):
            self._events.append(PeerLeft(Cause.CLOSED))
            return
        if not self._decided:
            self._decide(event.value)
        said = self._dialect.read(event.value, self._unix_ms) if self._dialect is not None else None
        if said is None:
            self._ignore()
        else:
            self._hear(said)

    def next_record(self) -> bytes | None:
        if self._values:
            return self._values.popleft()
        if not self._slices and self._answers and self._dialect is not None:
            # Written when the one before is out: base64 and slices of one body at a time.
            asked, answer, body = self._answers.popleft()
            self._slices_of = len(body)
            self._slices.extend(self._answer_records(self._dialect, asked, answer, body))
        if not self._slices:
            return None
        record = self._slices.popleft()
        if not self._slices:
            # With the last slice and not before: what waits for a slow page counts.
            self._gathering.release(self._slices_of)
        return record

    def has_more_to_send(self) -> bool:
        return bool(self._values or self._slices or self._answers)

    def next_deadline(self) -> float:
        times = [self._last_ping + PING_EVERY_S, self._last_received + SILENT_AFTER_S]
        joining = self._packing.next_deadline()
        return min(times) if joining is None else min(*times, joining)

    def handle_timer(self, now: float) -> None:
        self._now = now
        self._packing.handle_timer(now)
        self._reserve_joining()
        if now - self._last_received >= SILENT_AFTER_S:
            self._events.append(SpeechEnded(Cause.SILENT))
        # Always, not only after silence: pages drop who has said nothing for 60 s, whatever they say themselves.
        if now - self._last_ping >= PING_EVERY_S:
            self._last_ping = now
            for dialect in self._spoken:
                self._say(dialect.ping(self._unix_ms))

    def close(self) -> None:
        for queue in (self._values, self._answers, self._slices):
            queue.clear()
        self._budget.give_all()

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        before, self._held = self._held, tuple(manifests)
        for dialect in self._spoken:
            self._announce(dialect, before)

    def goodbye(self, cause: Cause | None = None) -> None:
        # A drain says nothing: pages would take a close for the end of the link at once.
        record = self._packing.close_record() if cause is not None else None
        if record is not None:
            self._queue(record)

    # ── within ──

    @property
    def _spoken(self) -> list[Dialect]:
        """The page's dialect; both while it is not known."""
        return [self._dialect] if self._dialect is not None else list(self._dialects.values())

    def _decide(self, value: object) -> None:
        """The first message shows the dialect; where the OFFER named another, what was said is said again."""
        if not isinstance(value, str | dict):
            return
        # Whatever comes later: a page has one dialect, and a text of its own may look like the other.
        self._decided = True
        manager = isinstance(value, dict) and isinstance(value.get("payload"), dict)
        before, self._dialect = self._dialect, self._dialects[MANAGER if manager else MESH]
        # None: both were spoken, so what was said was said in this one too.
        if before is None or before is self._dialect:
            return
        for request_id, (_, request) in self._asked.items():
            self._say(self._dialect.ask(request_id, request, self._unix_ms))
        if self._held:
            self._announce(self._dialect, ())

    def _announce(self, dialect: Dialect, before: Sequence[str]) -> None:
        for value in dialect.announce(self._held, before, self._unix_ms):
            self._say(value)

    def _hear(self, said: Said) -> None:
        super()._hear(said)
        if isinstance(said, PagePongs) and said.sent_ms is not None:
            self._measure(said.sent_ms)

    def _measure(self, sent_ms: float) -> None:
        sample_s = (self._unix_ms - sent_ms) / 1000
        if 0 <= sample_s <= MAX_RTT_S:  # the page gives our own time back, or invents one
            self.rtt_s = sample_s if self.rtt_s == 0 else self.rtt_s + RTT_GAIN * (sample_s - self.rtt_s)

    def _answer_records(self, dialect: Dialect, asked: PageAsks, answer: PeerAnswer, body: bytes) -> list[bytes]:
        try:
            return self._packing.pack(dialect.answer(asked, answer, body, self._unix_ms))
        except (LocalProtocolError, RemoteProtocolError):
            # What the packing cannot carry (half a character in a manifest's name, a chunk in one message of JSON)
            # is not here for this page.
            return self._packing.pack(dialect.answer(asked, NotFound(asked.name), b"", self._unix_ms))

    def _reserve_joining(self) -> None:
        joining = self._packing.joining_bytes
        grown, self._joining_bytes = joining - self._joining_bytes, joining
        if grown > 0 and not self._budget.take(grown):
            # Nothing was reserved: `close` gives back what the budget has, and no more.
            self._joining_bytes -= grown
            raise RemoteProtocolError("too much in reassembly", Cause.BUSY)
        if grown < 0:
            self._budget.give(-grown)

    def _say(self, value: Any) -> None:
        for record in self._packing.pack(value):
            self._queue(record)

    def _queue(self, record: bytes) -> None:
        if len(self._values) >= MAX_QUEUED_VALUES:
            self._events.append(SpeechEnded(Cause.BUSY))
        else:
            self._values.append(record)
