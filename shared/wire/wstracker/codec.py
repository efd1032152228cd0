"""WebSocket tracker messages as JSON text, both directions.

20-byte fields are latin-1 strings, one character a byte. Numbers are JavaScript's: `Infinity` is written as
null, sums may be floats. Unknown keys are ignored, those beside an SDP kept.

Source: the WebSocket tracker protocol of WebTorrent (bittorrent-tracker 11).
"""

from __future__ import annotations

import math
from typing import Any, NoReturn, assert_never

import msgspec

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.undecodable import UNDECODABLE
from shared.wire.wstracker.messages import (
    HASH_BYTES,
    MAX_COUNT,
    MAX_EXTRA_BYTES,
    MAX_EXTRA_DEPTH,
    MAX_INFO_HASHES,
    MAX_MESSAGE_BYTES,
    MAX_OFFERS,
    MAX_RESPONSE_BYTES,
    Announce,
    AnnounceReply,
    AnswerRelayed,
    Description,
    Event,
    Failure,
    OfferRelayed,
    Request,
    Response,
    Scrape,
    ScrapeReply,
    SendAnswer,
    SwarmCounts,
    TrackerOffer,
)


class _Named(msgspec.Struct):
    """What a request is about, whatever else of it is broken."""

    action: Any = None
    info_hash: Any = None


class _WireRequest(msgspec.Struct):
    action: str
    info_hash: str | list[str] | None = None
    peer_id: str | None = None
    to_peer_id: str | None = None
    offer_id: str | None = None
    answer: dict[str, Any] | None = None
    offers: list[Any] | None = None
    event: str | None = None
    uploaded: float | None = None
    downloaded: float | None = None
    left: float | None = None
    numwant: float | None = None


class _WireCounts(msgspec.Struct):
    complete: float = 0
    incomplete: float = 0
    downloaded: float = 0


class _WireResponse(msgspec.Struct):
    action: str | None = None
    info_hash: str | None = None
    peer_id: str | None = None
    offer_id: str | None = None
    offer: dict[str, Any] | None = None
    answer: dict[str, Any] | None = None
    interval: float | None = None
    min_interval: float | None = msgspec.field(default=None, name="min interval")
    complete: float | None = None
    incomplete: float | None = None
    files: dict[str, _WireCounts] | None = None
    failure: str | None = msgspec.field(default=None, name="failure reason")
    warning: str | None = msgspec.field(default=None, name="warning message")


_EVENTS: dict[str, Event] = {
    "": "",
    "started": "started",
    "completed": "completed",
    "stopped": "stopped",
    "update": "update",
    "paused": "paused",
}
_named = msgspec.json.Decoder(_Named)
_requests = msgspec.json.Decoder(_WireRequest)
_responses = msgspec.json.Decoder(_WireResponse)
_encoder = msgspec.json.Encoder()


def encode_request(request: Request) -> str:
    """JSON text of what a peer sends.

    Raises: LocalProtocolError: a 20-byte field of another length, or over a limit.
    """
    return _dump(_request_tree(request), MAX_MESSAGE_BYTES)


def decode_request(text: str | bytes) -> Request:
    """Decode what a peer sent, for a tracker.

    Raises: RemoteProtocolError: INVALID, or TOO_LARGE over a limit of this module; answer with a Failure.
    """
    wire = _decode(_requests, text, MAX_MESSAGE_BYTES)
    if wire.action == "scrape":
        return _scrape(wire)
    if wire.action != "announce":
        _refuse("unknown action")
    info_hash, peer_id = _hash(wire.info_hash), _hash(wire.peer_id)
    # Either of them makes it an answer: one without the other is a broken answer, and no announce.
    if wire.to_peer_id is not None or wire.answer is not None:
        answer = _description(wire.answer, "answer")
        return SendAnswer(info_hash, peer_id, _hash(wire.to_peer_id), _hash(wire.offer_id), answer)
    event = _EVENTS.get(wire.event or "")
    if event is None:
        _refuse("unknown event")
    written = wire.offers or []
    # One bad offer is dropped, not the announce: it would take the peer out of the swarm.
    offers = [offer for offer in map(_offer, written[:MAX_OFFERS]) if offer is not None]
    return Announce(
        info_hash,
        peer_id,
        event,
        tuple(offers),
        _count(wire.uploaded) or 0,
        _count(wire.downloaded) or 0,
        _count(wire.left),
        _count(wire.numwant),
        dropped_offers=len(written) - len(offers),
    )


def named_failure(text: str | bytes, reason: str) -> Failure:
    """The failure for a request that cannot be served: with its action and info hash wherever they can be read."""
    try:
        wire = _named.decode(text)
    except UNDECODABLE:
        return Failure(reason)
    # A scrape has a list; its failure is for the first.
    first = wire.info_hash[0] if isinstance(wire.info_hash, list) and wire.info_hash else wire.info_hash
    try:
        info_hash = _hash(first) if isinstance(first, str) else None
    except RemoteProtocolError:
        info_hash = None
    return Failure(reason, wire.action if wire.action in ("announce", "scrape") else "", info_hash)


def encode_response(response: Response) -> str:
    """JSON text of what a tracker sends.

    Raises: LocalProtocolError: a 20-byte field of another length, or over a limit.
    """
    return _dump(_response_tree(response), MAX_RESPONSE_BYTES)


def decode_response(text: str | bytes) -> Response:
    """Decode what a tracker sent, for a peer.

    Raises: RemoteProtocolError: INVALID or TOO_LARGE; drop the message and count it.
    """
    wire = _decode(_responses, text, MAX_RESPONSE_BYTES)
    # Before the action: a failure may name one that it has refused.
    if wire.failure is not None or wire.warning is not None:
        info_hash = _hash(wire.info_hash) if wire.info_hash is not None else None
        reason = wire.failure if wire.failure is not None else wire.warning or ""
        return Failure(reason, wire.action or "", info_hash, warning=wire.failure is None)
    if wire.action == "scrape" or wire.files is not None:
        files = wire.files or {}
        if len(files) > MAX_INFO_HASHES:
            _refuse("too many swarms in a scrape", Cause.TOO_LARGE)
        return ScrapeReply({_hash(info_hash): _swarm_counts(counts) for info_hash, counts in files.items()})
    # A tracker may leave it out: what the fields are then shows what it is.
    if wire.action not in (None, "announce"):
        _refuse("unknown action")
    info_hash = _hash(wire.info_hash)
    if wire.offer is not None:
        return OfferRelayed(info_hash, _hash(wire.peer_id), _hash(wire.offer_id), _description(wire.offer, "offer"))
    if wire.answer is not None:
        return AnswerRelayed(info_hash, _hash(wire.peer_id), _hash(wire.offer_id), _description(wire.answer, "answer"))
    interval_s = wire.interval if wire.interval is not None else wire.min_interval
    if interval_s is not None and not 0 <= interval_s < math.inf:
        _refuse("interval out of range")
    return AnnounceReply(info_hash, interval_s, _count(wire.complete), _count(wire.incomplete))


def _request_tree(request: Request) -> dict[str, Any]:
    match request:
        case Announce():
            return _announce_tree(request)
        case SendAnswer():
            return {
                "action": "announce",
                "info_hash": _latin1(request.info_hash),
                "peer_id": _latin1(request.peer_id),
                "to_peer_id": _latin1(request.to_peer_id),
                "offer_id": _latin1(request.offer_id),
                "answer": _description_tree(request.answer),
            }
        case Scrape():
            if not 0 < len(request.info_hashes) <= MAX_INFO_HASHES:
                raise LocalProtocolError(f"a scrape names 1 to {MAX_INFO_HASHES} info hashes")
            return {"action": "scrape", "info_hash": [_latin1(info_hash) for info_hash in request.info_hashes]}
        case _:
            assert_never(request)


def _response_tree(response: Response) -> dict[str, Any]:
    match response:
        case AnnounceReply():
            tree = {
                "action": "announce",
                "interval": _json_number(response.interval_s),
                "info_hash": _latin1(response.info_hash),
                "complete": response.complete,
                "incomplete": response.incomplete,
            }
            return {key: value for key, value in tree.items() if value is not None}
        case OfferRelayed():
            return _relayed_tree(response) | {"offer": _description_tree(response.offer)}
        case AnswerRelayed():
            return _relayed_tree(response) | {"answer": _description_tree(response.answer)}
        case ScrapeReply():
            files = {_latin1(info_hash): _counts_tree(counts) for info_hash, counts in response.files.items()}
            return {"action": "scrape", "files": files}
        case Failure():
            return _failure_tree(response)
        case _:
            assert_never(response)


def _failure_tree(failure: Failure) -> dict[str, Any]:
    tree = {"warning message" if failure.warning else "failure reason": failure.reason}
    if failure.action:
        tree["action"] = failure.action
    if failure.info_hash is not None:
        tree["info_hash"] = _latin1(failure.info_hash)
    return tree


def _announce_tree(announce: Announce) -> dict[str, Any]:
    if len(announce.offers) > MAX_OFFERS:
        raise LocalProtocolError("too many offers in one announce")
    tree: dict[str, Any] = {
        "action": "announce",
        "info_hash": _latin1(announce.info_hash),
        "peer_id": _latin1(announce.peer_id),
        "uploaded": announce.uploaded,
        "downloaded": announce.downloaded,
        "left": announce.left,
    }
    if announce.event:
        tree["event"] = announce.event
    if announce.numwant is not None:
        tree["numwant"] = announce.numwant
    if announce.offers:
        tree["offers"] = [
            {"offer": _description_tree(each.offer), "offer_id": _latin1(each.offer_id)} for each in announce.offers
        ]
    return tree


def _scrape(wire: _WireRequest) -> Scrape:
    wanted = wire.info_hash if isinstance(wire.info_hash, list) else [wire.info_hash]
    if len(wanted) > MAX_INFO_HASHES:
        _refuse("too many info hashes in a scrape", Cause.TOO_LARGE)
    if not wanted:
        _refuse("a scrape names its info hashes")
    return Scrape(tuple(_hash(info_hash) for info_hash in wanted))


def _offer(tree: Any) -> TrackerOffer | None:
    """One offer of an announce; None where it is broken."""
    if not isinstance(tree, dict) or not isinstance(tree.get("offer"), dict):
        return None
    try:
        return TrackerOffer(_hash(tree.get("offer_id")), _description(tree["offer"], "offer"))
    except RemoteProtocolError:
        return None


def _relayed_tree(relayed: OfferRelayed | AnswerRelayed) -> dict[str, Any]:
    return {
        "action": "announce",
        "info_hash": _latin1(relayed.info_hash),
        "peer_id": _latin1(relayed.peer_id),
        "offer_id": _latin1(relayed.offer_id),
    }


def _description_tree(description: Description) -> dict[str, Any]:
    return {**description.extra, "type": description.type, "sdp": description.sdp}


def _description(tree: dict[str, Any] | None, kind: str) -> Description:
    if tree is None:
        _refuse("no session description")
    type_, sdp = tree.get("type"), tree.get("sdp")
    if type_ != kind or not isinstance(sdp, str):
        _refuse("not a session description")
    extra = {key: value for key, value in tree.items() if key not in ("type", "sdp")}
    # Before it is encoded, which goes down by recursion.
    if not _is_shallow(extra, MAX_EXTRA_DEPTH):
        _refuse("nested too deep beside an SDP", Cause.TOO_LARGE)
    if extra and len(_encoder.encode(extra)) > MAX_EXTRA_BYTES:
        _refuse("too much beside an SDP", Cause.TOO_LARGE)
    return Description(type_, sdp, extra)


def _is_shallow(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(each, depth - 1) for each in inner)


def _counts_tree(counts: SwarmCounts) -> dict[str, int]:
    return {"complete": counts.complete, "incomplete": counts.incomplete, "downloaded": counts.downloaded}


def _swarm_counts(wire: _WireCounts) -> SwarmCounts:
    return SwarmCounts(_count(wire.complete) or 0, _count(wire.incomplete) or 0, _count(wire.downloaded) or 0)


def _latin1(raw: bytes) -> str:
    if len(raw) != HASH_BYTES:
        raise LocalProtocolError("an info hash, peer id or offer id is 20 bytes")
    return raw.decode("latin-1")


def _hash(text: str | list[str] | None) -> bytes:
    if not isinstance(text, str) or len(text) != HASH_BYTES:
        _refuse("a 20-byte field is missing or of another length")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        _refuse("a 20-byte field is not latin-1")


def _count(number: float | None) -> int | None:
    # Infinity: a page that does not know yet how much is left, which is as good as not said.
    if number is None or math.isinf(number):
        return None
    if number < 0:
        _refuse("negative count")
    return min(int(number), MAX_COUNT)


def _json_number(number: float | None) -> float | int | None:
    return int(number) if number is not None and number == int(number) else number


def _dump(tree: dict[str, Any], max_bytes: int) -> str:
    data = _encoder.encode(tree)
    if len(data) > max_bytes:
        raise LocalProtocolError("tracker message too long")
    return data.decode()


def _decode(decoder: msgspec.json.Decoder[Any], text: str | bytes, max_bytes: int) -> Any:
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > max_bytes:
            raise RemoteProtocolError("tracker message too long", Cause.TOO_LARGE)
        return decoder.decode(data)
    except UNDECODABLE as error:
        raise RemoteProtocolError("not a tracker message") from error


def _refuse(text: str, cause: Cause = Cause.INVALID) -> NoReturn:
    raise RemoteProtocolError(text, cause)
