"""swarm-space's mesh dialect: what its pages speak today, JSON text as a BinaryPack string on a PeerJS connection.

    heartbeat {from}                            heartbeat-ack {from, ts}
    ping {from, ts}                             pong {from, echoTs}
    manifest-request {manifestId, requestId, from}
    manifest-response {requestId, manifestId, found, manifest?, from}
    chunk-request {chunkRef, requestId, from}   chunk-response {requestId, chunkRef, found, chunk?, from}
    seeding-available {manifestId, peerId}      a page fetches it, and takes it off its list of missing ones

A page asks one peer after another and waits 10 s for each that is silent, chunk by chunk: so `found: false` at once.
Left out: posts, profiles, libraries and chains, which are ignored and not answered with an error.
Source: swarm-space's pages, by observation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shared.content.canonical import decode_json
from shared.content.manifest import MAX_MANIFEST_VALUES
from shared.content.messages import (
    MAX_BODY_BYTES,
    MAX_MANIFEST_ID_CHARS,
    ChunkData,
    NotFound,
    PeerAnswer,
    PeerRequest,
    RequestChunk,
)
from shared.errors import RemoteProtocolError
from shared.ids import MAX_GUEST_ID_BYTES
from shared.speech.page_content import chunk_object, manifest_object
from shared.speech.page_dialect import (
    NAME_TYPE,
    PageAnswers,
    PageAsks,
    PageHolds,
    PageNamesItself,
    PagePings,
    PagePongs,
    Said,
    clock_ms,
    manifest_ids,
    short_text,
)


class MeshDialect:
    """Implements page_dialect.Dialect."""

    patience_ms = 10_000

    def __init__(self, own_id: str) -> None:
        self._own_id = own_id

    def read(self, value: object, unix_ms: int) -> Said | None:
        message = _message(value)
        request_id = short_text(message.get("requestId"))
        match kind := message.get("type"):
            case "heartbeat":
                return PagePings(self._say("heartbeat-ack", ts=unix_ms))
            case "ping":
                return PagePings(self._say("pong", echoTs=clock_ms(message.get("ts"))))
            # It has our time in no field: it shows that the page is there, and no round trip.
            case "heartbeat-ack":
                return PagePongs(None)
            case "pong":
                return PagePongs(clock_ms(message.get("echoTs")))
            case "chunk-request" if request_id:
                return PageAsks(request_id, short_text(message.get("chunkRef")), is_chunk=True)
            case "manifest-request" if request_id:
                return PageAsks(request_id, short_text(message.get("manifestId")), is_chunk=False)
            case "chunk-response" if request_id:
                # `found` decides: a page that says no may have left an old chunk in the message.
                return PageAnswers(request_id, message.get("chunk") if message.get("found") is True else None)
            case "manifest-response" if request_id:
                return PageAnswers(request_id, message.get("manifest") if message.get("found") is True else None)
            case _ if kind == NAME_TYPE and (guest := short_text(message.get("guest"), MAX_GUEST_ID_BYTES)):
                return PageNamesItself(guest)
            case "seeding-available":
                return PageHolds(manifest_ids([short_text(message.get("manifestId"), MAX_MANIFEST_ID_CHARS)]))
            case _:
                return None

    def ask(self, request_id: str, request: PeerRequest, unix_ms: int) -> Any:
        if isinstance(request, RequestChunk):
            return self._say("chunk-request", chunkRef=request.ref, requestId=request_id)
        return self._say("manifest-request", manifestId=request.id, requestId=request_id)

    def answer(self, asked: PageAsks, answer: PeerAnswer, body: bytes, unix_ms: int) -> Any:
        what, name = ("chunk", "chunkRef") if asked.is_chunk else ("manifest", "manifestId")
        fields: dict[str, object] = {"requestId": asked.id, name: asked.name, "found": False}
        if not isinstance(answer, NotFound):
            content = chunk_object(answer, body) if isinstance(answer, ChunkData) else manifest_object(body)
            fields |= {"found": True, what: content}
        return self._say(f"{what}-response", **fields)

    def announce(self, manifests: Sequence[str], before: Sequence[str], unix_ms: int) -> list[Any]:
        # A message each: what has been said would only be said again.
        new = [each for each in manifests if each not in set(before)]
        return [self._say("seeding-available", manifestId=each, peerId=self._own_id) for each in new]

    def ping(self, unix_ms: int) -> Any:
        return self._say("ping", ts=unix_ms)

    def _say(self, kind: str, **fields: object) -> str:
        return json.dumps({"type": kind, **fields, "from": self._own_id}, separators=(",", ":"))


def _message(value: object) -> dict[str, Any]:
    """The object in a text, or one as it is (over `json` and `raw`); empty for anything else, which is ignored."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        return {}
    try:
        message = decode_json(value.encode(), MAX_BODY_BYTES, MAX_MANIFEST_VALUES)
    except (RemoteProtocolError, UnicodeEncodeError):
        return {}
    return message if isinstance(message, dict) else {}
