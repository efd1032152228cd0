"""What every speech of swarm-space's pages shares: requests both ways, whatever carries the values.

Invariants:  the peer is who the transport says, whatever `from` says. An answer counts once, for an id that we asked;
             late ones, and all that we do not know, are ignored, so many a second. A request that cannot be answered is
             "not found" at once: the only "no" that a page acts on without waiting, since it asks its next peer.
Bounds:      requests both ways, bodies being gathered (gathering), ignored messages.

There is no word for an ack or a cancel. `swarmbridge-also` is ours: a page says as whom another transport knows it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, assert_never

from shared.content.messages import ManifestData, NotFound, PeerAnswer, PeerRequest, RequestChunk
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.ids import REQUEST_ID_BYTES, guest_token
from shared.speech.contract import (
    MAX_ASKED_OF_A_PAGE,
    Announced,
    AnswerReceived,
    Event,
    NamedElsewhere,
    PeerProved,
    RequestFailed,
    RequestReceived,
    RequestRefused,
)
from shared.speech.gathering import Gathering
from shared.speech.page_content import read_chunk, read_manifest
from shared.speech.page_dialect import (
    Dialect,
    PageAnswers,
    PageAsks,
    PageHolds,
    PageNamesItself,
    PagePings,
    PagePongs,
    Said,
)
from shared.token_bucket import TokenBucket

MAX_OPEN_REQUESTS = 64

IGNORED_PER_S = 50.0
IGNORED_BURST = 1_000.0
"""Posts, profiles and the like, which a page pours out when a link opens; on a channel, what is for others."""


class PageSpeech(ABC):
    """The part of shared.speech.contract.Speech that needs no wire: a subclass reads records, and writes `_say`."""

    acks = False
    confirms = True
    max_asked = MAX_ASKED_OF_A_PAGE
    claimed_key = b""

    def __init__(self, guest: str, dialect: Dialect | None, now: float, unix_s: float) -> None:
        """guest: the page, as the transport knows it. dialect: its own; None while it is not known."""
        self._dialect = dialect
        self._unix_offset_s = unix_s - now
        self._now = now
        self._events: list[Event] = [PeerProved(guest_token(guest))]
        self._gathering = Gathering()
        self._asked: dict[str, tuple[bytes, PeerRequest]] = {}
        self._open: dict[bytes, PageAsks] = {}
        self._answers: deque[tuple[PageAsks, PeerAnswer, bytes]] = deque()
        self._ignored = TokenBucket(IGNORED_PER_S, IGNORED_BURST, now)

    @abstractmethod
    def _say(self, value: Any) -> None:
        """Queue one small value for the page."""

    @property
    def _spoken(self) -> list[Dialect]:
        """The dialects that the page is spoken to in."""
        return [self._dialect] if self._dialect is not None else []

    @property
    def _unix_ms(self) -> int:
        return round((self._now + self._unix_offset_s) * 1000)

    @property
    def asked_count(self) -> int:
        return len(self._asked)

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

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
        # No word for it: the page answers all the same, and that is ignored as late.
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
            # Chunks and manifests have bodies: without one it is a NotFound.
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
            self._not_found(asked)

    # ── what the page says ──

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
            case PageNamesItself():
                self._ignore()
                self._events.append(NamedElsewhere(said.guest))
            case PagePings():
                self._ignore()
                self._say(said.reply)
            case PagePongs():
                self._ignore()
            case _:
                assert_never(said)

    def _hear_request(self, asked: PageAsks) -> None:
        request = asked.request
        # The page's id is text of any length; ours are 16 bytes, and the same id must give the same.
        request_id = hashlib.sha256(asked.id.encode()).digest()[:REQUEST_ID_BYTES]
        if request_id in self._open:
            self._ignore()  # said again by a page that has reconnected
        elif request is None:
            self._ignore()
            # The only "no" that a page acts on at once: it asks its next peer.
            self._not_found(asked)
        elif len(self._open) >= MAX_OPEN_REQUESTS:
            self._ignore()
            self._not_found(asked)
            self._events.append(RequestRefused(Cause.BUSY))
        else:
            assert self._dialect is not None  # it has just been read by it
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
        if self._dialect is not None:
            self._say(self._dialect.answer(asked, NotFound(asked.name), b"", self._unix_ms))

    def _ignore(self) -> None:
        if not self._ignored.take(self._now):
            raise RemoteProtocolError("too many messages that mean nothing to us", Cause.RATE_LIMITED)
