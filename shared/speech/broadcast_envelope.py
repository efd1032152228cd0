"""A page of swarm-space on its BroadcastChannel: `{type, payload, from, target, transport}`, one value a record.

    records ─▶ value ─▶ envelope ─▶ events       calls ─▶ envelope ─▶ value ─▶ records

What is in type and payload is the manager dialect's (peerjs_manager): requests, answers, announcements. Everybody on
a channel hears everything, so that a message of our own id (`from`), and one that is for somebody else (`target`), are
ignored, as the page's own adapter ignores them; one without a target is for all. Ours name the page as the target once
it has said who it is.

Invariants:  the peer is who the transport says, whatever `from` says. An answer counts once, for an id that we asked;
             late ones, and all that we do not know, are ignored, so many a second. A request that cannot be answered is
             "not found" at once.
Bounds:      requests both ways, bodies being gathered (gathering), queued values, ignored messages.

There is no word for an ack, a cancel or a goodbye, and no ping: the transport knows when a page is gone.
Source: swarm-space's adapter, by observation; the manager dialect.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, assert_never

from shared.content.messages import ManifestData, NotFound, PeerAnswer, PeerRequest, RequestChunk
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.ids import REQUEST_ID_BYTES, guest_token
from shared.speech.contract import (
    Announced,
    AnswerReceived,
    Event,
    PeerProved,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    SpeechEnded,
)
from shared.speech.gathering import Gathering
from shared.speech.page_content import read_chunk, read_manifest
from shared.speech.page_dialect import PageAnswers, PageAsks, PageHolds, PagePings, PagePongs, Said, short_text
from shared.speech.peerjs_manager import ManagerDialect
from shared.token_bucket import TokenBucket
from shared.wire.pages.values import decode_value, encode_value

BROADCAST_ENVELOPE = "broadcast_envelope"
TRANSPORT = "webtorrent"
"""What the adapter writes into `transport`, whatever carries it."""

MAX_ASKED = 8
"""As of a page on PeerJS: it answers one after another."""
MAX_OPEN_REQUESTS = 64
MAX_QUEUED_VALUES = 256
"""Small values that wait for a page that does not read; one more ends the link."""
MAX_VALUE_BYTES = 1_900_000
"""Of an answer: a chunk with its base64 is 1.4 MB. What is longer (a manifest of 2 MiB) no post can carry."""
IGNORED_PER_S = 50.0
IGNORED_BURST = 1_000.0
"""Messages that are for others: everybody on a channel hears them all."""


class BroadcastEnvelope:
    """Implements shared.speech.contract.Speech."""

    acks = False
    confirms = True
    max_asked = MAX_ASKED
    rtt_s = 0.0
    claimed_key = b""

    def __init__(self, guest: str, own_id: str, now: float, unix_s: float) -> None:
        """guest: as the transport knows the page. own_id: ours in `from`, which pages name in `target`."""
        self._dialect = ManagerDialect(own_id)
        self._own_id = own_id
        self._page_id = ""
        self._unix_offset_s = unix_s - now
        self._now = now
        self._events: list[Event] = [PeerProved(guest_token(guest))]
        self._gathering = Gathering()
        self._asked: dict[str, tuple[bytes, PeerRequest]] = {}
        self._open: dict[bytes, PageAsks] = {}
        self._values: deque[bytes] = deque()
        self._answers: deque[tuple[PageAsks, PeerAnswer, bytes]] = deque()
        self._ignored = TokenBucket(IGNORED_PER_S, IGNORED_BURST, now)
        self.ignored_count = 0

    @property
    def asked_count(self) -> int:
        return len(self._asked)

    # ── the wire ──

    def receive_record(self, record: bytes, now: float) -> None:
        self._now = now
        try:
            value = decode_value(record)
        except RemoteProtocolError:
            value = None  # a channel is everybody's: what is no value of ours is not the page's fault
        said = self._read(value)
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
        if not self._answers:
            return None
        # Written when the one before is out: the base64 of one body at a time.
        asked, answer, body = self._answers.popleft()
        self._gathering.release(len(body))
        return self._answer_record(asked, answer, body)

    def has_more_to_send(self) -> bool:
        return bool(self._values or self._answers)

    def next_deadline(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None:
        self._now = now

    def close(self) -> None:
        self._values.clear()
        self._answers.clear()

    # ── requests of ours ──

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        self._now = now
        name = request_id.hex()
        if name in self._asked:
            raise LocalProtocolError("request id in use")
        self._asked[name] = (request_id, request)
        self._say(self._dialect.ask(name, request, self._unix_ms))

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
            self._answers.append((self._open.pop(request_id), *whole))
        return len(data)

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        self._gathering.drop(request_id)
        asked = self._open.pop(request_id, None)
        if asked is not None:
            self._not_found(asked)  # the only "no" that a page acts on at once

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        for value in self._dialect.announce(manifests, (), self._unix_ms):
            self._say(value)

    def goodbye(self, cause: Cause | None = None) -> None:
        """Pages know no such word."""

    # ── within ──

    @property
    def _unix_ms(self) -> int:
        return round((self._now + self._unix_offset_s) * 1000)

    def _read(self, value: object) -> Said | None:
        """What the page says to us; None for what is not for us, or means nothing."""
        if not isinstance(value, dict):
            return None
        sender = short_text(value.get("from"))
        if not sender or sender == self._own_id or value.get("target") not in (None, "", self._own_id):
            return None
        said = self._dialect.read(value, self._unix_ms)
        if said is not None:
            self._page_id = sender
        return said

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
                self._ignore()  # we never ask: the transport knows when a page is gone
            case _:
                assert_never(said)

    def _hear_request(self, asked: PageAsks) -> None:
        request = asked.request
        request_id = hashlib.sha256(asked.id.encode()).digest()[:REQUEST_ID_BYTES]
        if request_id in self._open:
            self._ignore()  # said again by a page that has reconnected
        elif request is None:
            self._ignore()
            self._not_found(asked)
        elif len(self._open) >= MAX_OPEN_REQUESTS:
            self._ignore()
            self._not_found(asked)
            self._events.append(RequestRefused(Cause.BUSY))
        else:
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

    def _not_found(self, asked: PageAsks) -> None:
        self._say(self._dialect.answer(asked, NotFound(asked.name), b"", self._unix_ms))

    def _answer_record(self, asked: PageAsks, answer: PeerAnswer, body: bytes) -> bytes:
        missing = self._dialect.answer(asked, NotFound(asked.name), b"", self._unix_ms)
        try:
            record = self._record(self._dialect.answer(asked, answer, body, self._unix_ms))
        except (LocalProtocolError, RemoteProtocolError):
            return self._record(missing)  # what no value can carry is not here for this page
        return record if len(record) <= MAX_VALUE_BYTES else self._record(missing)

    def _ignore(self) -> None:
        self.ignored_count += 1
        if not self._ignored.take(self._now):
            raise RemoteProtocolError("too many messages that mean nothing to us", Cause.RATE_LIMITED)

    def _say(self, value: dict[str, Any]) -> None:
        if len(self._values) >= MAX_QUEUED_VALUES:
            self._events.append(SpeechEnded(Cause.BUSY))
        else:
            self._values.append(self._record(value))

    def _record(self, value: dict[str, Any]) -> bytes:
        envelope = {**value, "transport": TRANSPORT}
        if self._page_id:
            envelope["target"] = self._page_id
        return encode_value(envelope)
