"""A page of swarm-space on its BroadcastChannel: `{type, payload, from, target, transport}`, one value a record.

    records ─▶ value ─▶ envelope ─▶ events       calls ─▶ envelope ─▶ value ─▶ records

What is in type and payload is the manager dialect's (peerjs_manager): requests, answers, announcements. Everybody on
a channel hears everything, so that a message of our own id (`from`), and one that is for somebody else (`target`), are
ignored, as the page's own adapter ignores them; one without a target is for all. Ours name the page as the target once
it has said who it is.

Bounds:      those of page_speech, queued values.

There is no word for a goodbye, and no ping: the transport knows when a page is gone.
Source: swarm-space's adapter, by observation; the manager dialect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from shared.content.messages import NotFound, PeerAnswer
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.speech.contract import NamedElsewhere, SpeechEnded
from shared.speech.page_dialect import PageAsks, Said, short_text
from shared.speech.page_speech import PageSpeech
from shared.speech.peerjs_manager import ManagerDialect
from shared.wire.pages.values import decode_value, encode_value

BROADCAST_ENVELOPE = "broadcast_envelope"
TRANSPORT = "webtorrent"
"""What the adapter writes into `transport`, whatever carries it."""

MAX_QUEUED_VALUES = 256
"""Small values that wait for a page that does not read; one more ends the link."""
MAX_VALUE_BYTES = 1_900_000
"""Of an answer: a chunk with its base64 is 1.4 MB. What is longer (a manifest of 2 MiB) no post can carry."""


class BroadcastEnvelope(PageSpeech):
    """Implements shared.speech.contract.Speech."""

    rtt_s = 0.0

    def __init__(self, guest: str, own_id: str, now: float, unix_s: float) -> None:
        """guest: as the transport knows the page. own_id: ours in `from`, which pages name in `target`."""
        self._manager = ManagerDialect(own_id)
        super().__init__(guest, self._manager, now, unix_s)
        self._own_id = own_id
        self._page_id = ""
        self._values: deque[bytes] = deque()

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

    def next_record(self) -> bytes | None:
        if self._values:
            return self._values.popleft()
        if not self._answers:
            return None
        # Written when the one before is out: the base64 of one body at a time.
        asked, answer, body = self._answers.popleft()
        # Its room is free when the body leaves the queue, not when it was whole: answers that wait count.
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

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        for value in self._manager.announce(manifests, (), self._unix_ms):
            self._say(value)

    def goodbye(self, cause: Cause | None = None) -> None:
        """Pages know no such word."""

    # ── within ──

    def _read(self, value: object) -> Said | None:
        """What the page says to us; None for what is not for us, or means nothing."""
        if not isinstance(value, dict):
            return None
        sender = short_text(value.get("from"))
        if not sender or sender == self._own_id or value.get("target") not in (None, "", self._own_id):
            return None
        said = self._manager.read(value, self._unix_ms)
        if said is not None and sender != self._page_id:
            # Only of a sender that made sense: a stranger's noise must not become our target.
            self._page_id = sender
            # In `from` a page writes its PeerJS id: its word, which counts once that peer has named this page.
            self._events.append(NamedElsewhere(sender))
        return said

    def _answer_record(self, asked: PageAsks, answer: PeerAnswer, body: bytes) -> bytes:
        missing = self._manager.answer(asked, NotFound(asked.name), b"", self._unix_ms)
        try:
            record = self._record(self._manager.answer(asked, answer, body, self._unix_ms))
        except (LocalProtocolError, RemoteProtocolError):
            return self._record(missing)  # what no value can carry is not here for this page
        return record if len(record) <= MAX_VALUE_BYTES else self._record(missing)

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
