"""swarm-space's manager dialect: what its RFC describes, BinaryPack objects on a PeerJS connection.

Layout:   {type, payload, from, timestamp}, timestamp in ms of the wall clock, from = the sender's PeerJS id

    announce   {peerId, userId, availableContent: [manifest id], timestamp}
    ping       {sentAt}        pong   {sentAt, receivedAt}
    chunk      {type, requestId, hash, …}:
               request_chunk, request_manifest
               chunk_data {chunk}, manifest_data {manifest}, chunk_not_found {error}, manifest_not_found {error}

Left out: posts, comments, gossip, skins and peer exchange, which are ignored. `from` is never believed: the PeerServer
vouches for who it is.
Source: swarm-space's RFC and its manager; vectors in tests/vectors/swarm_space.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.content.messages import ChunkData, NotFound, PeerAnswer, PeerRequest, RequestChunk
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


class ManagerDialect:
    """Implements page_dialect.Dialect."""

    patience_ms = 30_000

    def __init__(self, own_id: str) -> None:
        self._own_id = own_id

    def read(self, value: object, unix_ms: int) -> Said | None:
        if not isinstance(value, dict) or not isinstance(value.get("payload"), dict):
            return None
        payload = value["payload"]
        match kind := value.get("type"):
            case "chunk":
                return _read_chunk_message(payload)
            case "announce":
                return PageHolds(manifest_ids(payload.get("availableContent")))
            case "ping":
                # Its own clock back, so that it can time the round trip; nonsense comes back as null.
                reply = {"sentAt": clock_ms(payload.get("sentAt")), "receivedAt": unix_ms}
                return PagePings(self._envelope("pong", reply, unix_ms))
            case "pong":
                return PagePongs(clock_ms(payload.get("sentAt")))
            case _ if kind == NAME_TYPE and (guest := short_text(payload.get("guest"), MAX_GUEST_ID_BYTES)):
                return PageNamesItself(guest)
            case _:
                return None

    def ask(self, request_id: str, request: PeerRequest, unix_ms: int) -> Any:
        if isinstance(request, RequestChunk):
            return self._chunk("request_chunk", request_id, request.ref, unix_ms)
        return self._chunk("request_manifest", request_id, request.id, unix_ms)

    def answer(self, asked: PageAsks, answer: PeerAnswer, body: bytes, unix_ms: int) -> Any:
        what = "chunk" if asked.is_chunk else "manifest"
        if isinstance(answer, NotFound):
            error = f"{what.capitalize()} not found"
            return self._chunk(f"{what}_not_found", asked.id, asked.name, unix_ms, error=error)
        content = chunk_object(answer, body) if isinstance(answer, ChunkData) else manifest_object(body)
        return self._chunk(f"{what}_data", asked.id, asked.name, unix_ms, **{what: content})

    def announce(self, manifests: Sequence[str], before: Sequence[str], unix_ms: int) -> list[Any]:
        payload = {
            "userId": self._own_id,
            "peerId": self._own_id,
            "availableContent": list(manifests),
            "timestamp": unix_ms,
        }
        return [self._envelope("announce", payload, unix_ms)]

    def ping(self, unix_ms: int) -> Any:
        return self._envelope("ping", {"sentAt": unix_ms}, unix_ms)

    def _chunk(self, kind: str, request_id: str, name: str, unix_ms: int, **more: object) -> dict[str, Any]:
        return self._envelope("chunk", {"type": kind, "requestId": request_id, "hash": name, **more}, unix_ms)

    def _envelope(self, kind: str, payload: dict[str, Any], unix_ms: int) -> dict[str, Any]:
        return {"type": kind, "payload": payload, "from": self._own_id, "timestamp": unix_ms}


def _read_chunk_message(payload: dict[str, Any]) -> Said | None:
    request_id, name = short_text(payload.get("requestId")), short_text(payload.get("hash"))
    if not request_id:
        return None
    match payload.get("type"):
        case "request_chunk":
            return PageAsks(request_id, name, is_chunk=True)
        case "request_manifest":
            return PageAsks(request_id, name, is_chunk=False)
        case "chunk_data":
            return PageAnswers(request_id, payload.get("chunk"))
        case "manifest_data":
            return PageAnswers(request_id, payload.get("manifest"))
        case "chunk_not_found" | "manifest_not_found":
            return PageAnswers(request_id, None)
        case _:
            return None
