"""A second speech, made up for tests, as unlike native frames as pages are: JSON text, a guest, no acks, whole bodies.

It proves that the worker and the manager know the contract and nothing of frames. It has no word for a cancel.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared.content.messages import PeerAnswer, PeerRequest
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.ids import guest_token, peerjs_id
from shared.speech.contract import (
    SEALED_NATIVE,
    Announced,
    AnswerReceived,
    Event,
    PeerLeft,
    PeerProved,
    RequestFailed,
    RequestReceived,
    Speech,
)
from shared.speech.gathering import Gathering
from shared.speech.peerjs import MANAGER, MESH, PeerjsSpeech
from shared.worker.speeches import SPEECHES, MakeSpeech, Opening

JSON = "json"
MAX_RECORD_BYTES = 8 * 2**20
PATIENCE_MS = 10_000


class JsonSpeech:
    """Implements shared.speech.contract.Speech."""

    acks = False
    confirms = True
    max_asked = 8
    rtt_s = 0.0
    claimed_key = b""

    def __init__(self, guest: str) -> None:
        self._events: list[Event] = [PeerProved(guest_token(guest))]
        self._records: deque[tuple[bytes, int]] = deque()
        self._asked: set[bytes] = set()
        self._open: set[bytes] = set()
        self._gathering = Gathering()

    @property
    def asked_count(self) -> int:
        return len(self._asked)

    def receive_record(self, record: bytes, now: float) -> None:
        try:
            message = json.loads(record)
            self._receive(message)
        except (ValueError, KeyError, TypeError):
            raise RemoteProtocolError("not JSON of ours") from None

    def _receive(self, message: dict[str, Any]) -> None:
        request_id = bytes.fromhex(message.get("id", ""))
        match message["say"]:
            case "ask":
                self._open.add(request_id)
                request: PeerRequest = msgspec.convert(message["request"], PeerRequest)
                self._events.append(RequestReceived(request_id, request, PATIENCE_MS))
            case "answer" if request_id in self._asked:
                self._asked.discard(request_id)
                answer: PeerAnswer = msgspec.convert(message["answer"], PeerAnswer)
                self._events.append(AnswerReceived(request_id, answer, base64.b64decode(message["body"])))
            case "failed" if request_id in self._asked:
                self._asked.discard(request_id)
                self._events.append(RequestFailed(request_id, Cause(message["cause"])))
            case "hold":
                self._events.append(Announced(tuple(message["manifests"])))
            case "bye":
                self._events.append(PeerLeft(Cause(message["cause"]) if message["cause"] else None))
            case _:
                pass  # an answer to nothing that was asked

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def next_record(self) -> bytes | None:
        if not self._records:
            return None
        record, body_bytes = self._records.popleft()
        self._gathering.release(body_bytes)
        return record

    def has_more_to_send(self) -> bool:
        return bool(self._records)

    def next_deadline(self) -> float | None:
        return None

    def handle_timer(self, now: float) -> None:
        return None

    def close(self) -> None:
        self._records.clear()

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        if request_id in self._asked:
            raise LocalProtocolError("request id in use")
        self._asked.add(request_id)
        self._say("ask", id=request_id.hex(), request=msgspec.to_builtins(request))

    def cancel(self, request_id: bytes) -> None:
        self._asked.discard(request_id)

    def open_requests(self) -> list[bytes]:
        return list(self._open)

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        if request_id not in self._open:
            return
        if body_bytes:
            self._gathering.begin(request_id, answer, body_bytes)
        else:
            self._send_answer(request_id, answer, b"")

    def take_body(self, request_id: bytes, data: memoryview) -> int:
        whole = self._gathering.take(request_id, data)
        if whole is not None:
            self._send_answer(request_id, *whole)
        return len(data)

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        self._gathering.drop(request_id)
        if request_id in self._open:
            self._open.discard(request_id)
            self._say("failed", id=request_id.hex(), cause=cause.value)

    def announce(self, manifests: Sequence[str]) -> None:
        self._say("hold", manifests=list(manifests))

    def goodbye(self, cause: Cause | None = None) -> None:
        self._say("bye", cause=cause.value if cause else "")

    def _send_answer(self, request_id: bytes, answer: PeerAnswer, body: bytes) -> None:
        self._open.discard(request_id)
        packed = msgspec.to_builtins(answer)
        text = base64.b64encode(body).decode()
        self._say("answer", len(body), id=request_id.hex(), answer=packed, body=text)

    def _say(self, word: str, body_bytes: int = 0, /, **fields: object) -> None:
        self._records.append((json.dumps({"say": word, **fields}).encode(), body_bytes))


def _json_speech(opening: Opening) -> Speech:
    return JsonSpeech(opening.up.guest)


def _page(hint: str | None) -> MakeSpeech:
    """A page's speech at both ends: who was dialled takes the dialect from the first message."""

    def make(opening: Opening) -> Speech:
        own_id = peerjs_id(opening.identity.certificate.identity_key)
        named = hint if opening.up.dialer else None
        return PeerjsSpeech(opening.up.guest, own_id, opening.budget, opening.now, opening.unix_s, named)

    return make


TEST_SPEECHES: Mapping[str, MakeSpeech] = {
    **SPEECHES,
    JSON: _json_speech,
    MANAGER: _page(MANAGER),
    MESH: _page(MESH),
}
BOTH = (SEALED_NATIVE, JSON)
