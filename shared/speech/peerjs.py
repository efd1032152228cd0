"""A page of swarm-space on a PeerJS connection: values in the dialect that its first message shows.

    records ─▶ packing ─▶ values ─▶ dialect ─▶ events       calls ─▶ dialect ─▶ values ─▶ packing ─▶ records

States:      undecided -> deciding value came -> manager or mesh; ended by a close message, silence or a flood.
             A text decides for mesh, an object with a payload for manager; what the OFFER's metadata said holds until
             then. A page of which neither is known (one that we dialled, and that waits to be spoken to) is spoken to
             in both: each ignores what is not its own.
Invariants:  the peer is who the PeerServer vouches for, whatever `from` says. An answer counts once, for an id that we
             asked; late ones, and all that we do not know, are ignored, so many a second. A request that cannot be
             answered is "not found" at once.
Bounds:      requests both ways, bodies being gathered (gathering), messages being joined (budget), ignored messages.

There is no word for an ack or a cancel. A goodbye without a cause is not said: pages know only a close.
Source: peerjs 1.5 (data connection), swarm-space's dialects.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, assert_never

from shared.content.messages import ManifestData, NotFound, PeerAnswer, PeerRequest, RequestChunk
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.ids import REQUEST_ID_BYTES, guest_token
from shared.speech.budget import ByteBudget
from shared.speech.contract import (
    Announced,
    AnswerReceived,
    Event,
    PeerLeft,
    PeerProved,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    SpeechEnded,
)
from shared.speech.gathering import Gathering
from shared.speech.page_content import read_chunk, read_manifest
from shared.speech.page_dialect import Dialect, PageAnswers, PageAsks, PageHolds, PagePings, PagePongs, Said
from shared.speech.page_packing import BINARY, packing_of
from shared.speech.peerjs_manager import ManagerDialect
from shared.speech.peerjs_mesh import MeshDialect
from shared.token_bucket import TokenBucket
from shared.wire.peerjs.chunking import CloseReceived

MANAGER, MESH = "peerjs_manager", "peerjs_mesh"
"""The dialects' names."""

PEERJS = "peerjs"
"""A page whose dialect is not known yet."""

PING_EVERY_S = 8.0
"""As often as a page's own heartbeat; pages drop who is idle for 60 s."""

SILENT_AFTER_S = 60.0
"""As pages have it: a tab in the background may be that slow."""

MAX_ASKED = 8
"""A page answers one after another; more would only wait there."""

MAX_OPEN_REQUESTS = 64
MAX_QUEUED_VALUES = 1024
"""Small values that wait for a page that does not read; one more ends the link."""

IGNORED_PER_S = 50.0
IGNORED_BURST = 1_000.0
"""Posts, profiles and the like: what a page pours out when a link opens, and then some."""

RTT_GAIN = 0.125
"""Weight of a new sample in the smoothed round trip (RFC 6298's alpha)."""

MAX_RTT_S = 60.0


class PeerjsSpeech:
    """Implements shared.speech.contract.Speech."""

    acks = False
    confirms = True
    max_asked = MAX_ASKED
    claimed_key = b""

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
        self._dialect = self._dialects[hint] if hint is not None else None
        self._decided = False
        self._budget = budget
        self._unix_offset_s = unix_s - now
        self._now = now
        self._events: list[Event] = [PeerProved(guest_token(guest))]
        self._packing = packing_of(serialization)
        self._joining_bytes = 0
        self._gathering = Gathering()
        self._asked: dict[str, tuple[bytes, PeerRequest]] = {}
        self._open: dict[bytes, PageAsks] = {}
        self._held: tuple[str, ...] = ()
        self._values: deque[bytes] = deque()
        self._answers: deque[tuple[PageAsks, PeerAnswer, bytes]] = deque()
        self._slices: deque[bytes] = deque()
        self._slices_of = 0
        self._ignored = TokenBucket(IGNORED_PER_S, IGNORED_BURST, now)
        self._last_received = now
        self._last_ping = now
        self.ignored_count = 0
        self.rtt_s = 0.0

    @property
    def asked_count(self) -> int:
        return len(self._asked)

    # ── the wire ──

    def receive_record(self, record: bytes, now: float) -> None:
        self._now = self._last_received = now
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

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

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
        if now - self._last_ping >= PING_EVERY_S:
            self._last_ping = now
            for dialect in self._spoken:
                self._say(dialect.ping(self._unix_ms))

    def close(self) -> None:
        for queue in (self._values, self._answers, self._slices):
            queue.clear()
        self._budget.give_all()

    # ── requests of ours ──

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        self._now = now
        name = request_id.hex()
        if name in self._asked:
            raise LocalProtocolError("request id in use")
        self._asked[name] = (request_id, request)
        for dialect in self._spoken:
            self._say(dialect.ask(name, request, self._unix_ms))

    def cancel(self, request_id: bytes) -> None:
        self._asked.pop(request_id.hex(), None)

    # ── requests of the page ──

    def open_requests(self) -> list[bytes]:
        return list(self._open)

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        asked = self._open.get(request_id)
        if asked is None:
            return
        if body_bytes:
            self._gathering.begin(request_id, answer, body_bytes)
        else:
            self._not_found(self._open.pop(request_id))

    def take_body(self, request_id: bytes, data: memoryview) -> int:
        whole = self._gathering.take(request_id, data)
        if whole is not None:
            asked = self._open.pop(request_id)
            self._answers.append((asked, *whole))
        return len(data)

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        self._gathering.drop(request_id)
        asked = self._open.pop(request_id, None)
        if asked is not None:
            self._not_found(asked)  # the only "no" that a page acts on at once: it asks its next peer

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        before, self._held = self._held, tuple(manifests)
        for dialect in self._spoken:
            self._announce(dialect, before)

    def goodbye(self, cause: Cause | None = None) -> None:
        record = self._packing.close_record() if cause is not None else None
        if record is not None:
            self._queue(record)

    # ── within ──

    @property
    def _unix_ms(self) -> int:
        return round((self._now + self._unix_offset_s) * 1000)

    @property
    def _spoken(self) -> list[Dialect]:
        """The page's dialect; both while it is not known."""
        return [self._dialect] if self._dialect is not None else list(self._dialects.values())

    def _decide(self, value: object) -> None:
        """The first message shows the dialect; where the OFFER named another, what was said is said again."""
        if not isinstance(value, str | dict):
            return
        self._decided = True
        manager = isinstance(value, dict) and isinstance(value.get("payload"), dict)
        before, self._dialect = self._dialect, self._dialects[MANAGER if manager else MESH]
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
        match said:
            case PageAsks():
                self._hear_request(said)
            case PageAnswers():
                self._hear_answer(said)
            case PageHolds():
                self._ignore()  # as much of it as of what is ignored
                if said.manifests:
                    self._events.append(Announced(said.manifests))
            case PagePings():
                self._ignore()
                self._say(said.reply)
            case PagePongs():
                self._hear_pong(said)
            case _:
                assert_never(said)

    def _hear_request(self, asked: PageAsks) -> None:
        request = asked.request
        request_id = hashlib.sha256(asked.id.encode(errors="surrogatepass")).digest()[:REQUEST_ID_BYTES]
        if request_id in self._open:
            self._ignore()
        elif request is None:
            self._ignore()
            self._not_found(asked)
        elif len(self._open) >= MAX_OPEN_REQUESTS:
            self._ignore()
            self._not_found(asked)
            self._events.append(RequestRefused(Cause.BUSY))
        else:
            assert self._dialect is not None
            self._open[request_id] = asked
            self._events.append(RequestReceived(request_id, request, self._dialect.patience_ms))

    def _hear_answer(self, said: PageAnswers) -> None:
        known = self._asked.pop(said.id, None)
        if known is None:
            self._ignore()  # late, or never asked
            return
        request_id, request = known
        name = request.ref if isinstance(request, RequestChunk) else request.id
        try:
            if said.content is None:
                self._events.append(AnswerReceived(request_id, NotFound(name), b""))
            elif isinstance(request, RequestChunk):
                self._events.append(AnswerReceived(request_id, *read_chunk(said.content)))
            else:
                self._events.append(AnswerReceived(request_id, ManifestData(name), read_manifest(said.content)))
        except RemoteProtocolError as error:
            # The page's content, not its protocol: another peer may have it in order.
            self._events.append(RequestFailed(request_id, error.cause))

    def _hear_pong(self, said: PagePongs) -> None:
        self._ignore()
        if said.sent_ms is None:
            return
        sample_s = (self._unix_ms - said.sent_ms) / 1000
        if 0 <= sample_s <= MAX_RTT_S:  # the page gives our own time back, or invents one
            self.rtt_s = sample_s if self.rtt_s == 0 else self.rtt_s + RTT_GAIN * (sample_s - self.rtt_s)

    def _not_found(self, asked: PageAsks) -> None:
        if self._dialect is not None:
            self._say(self._dialect.answer(asked, NotFound(asked.name), b"", self._unix_ms))

    def _answer_records(self, dialect: Dialect, asked: PageAsks, answer: PeerAnswer, body: bytes) -> list[bytes]:
        try:
            return self._packing.pack(dialect.answer(asked, answer, body, self._unix_ms))
        except (LocalProtocolError, RemoteProtocolError):
            # What the packing cannot carry (half a character in a manifest's name, a chunk in one message of JSON)
            # is not here for this page.
            return self._packing.pack(dialect.answer(asked, NotFound(asked.name), b"", self._unix_ms))

    def _ignore(self) -> None:
        self.ignored_count += 1
        if not self._ignored.take(self._now):
            raise RemoteProtocolError("too many messages that mean nothing to us", Cause.RATE_LIMITED)

    def _reserve_joining(self) -> None:
        joining = self._packing.joining_bytes
        grown, self._joining_bytes = joining - self._joining_bytes, joining
        if grown > 0 and not self._budget.take(grown):
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
