"""WebSocket tracker messages: JSON text between a WebTorrent peer and its tracker, both directions.

The JSON is made and read by shared.wire.wstracker.codec. Its 20-byte fields (`info_hash`, `peer_id`,
`to_peer_id`, `offer_id`) are `bytes` here. Session descriptions keep keys that the protocol does not know: a
peer may put a hint beside its SDP (shared.wire.wstracker.hint), and a tracker passes it on.

Left out: a scrape without an info hash (every swarm of a tracker at once), which is refused; `compact` and
`tracker id`, which mean nothing over WebSockets.

Source: the WebSocket tracker protocol of WebTorrent (bittorrent-tracker 11); BEP 3 for the fields' meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MAX_MESSAGE_BYTES = 64 * 1024
"""docs/limits.md#websocket-tracker: the longest message of a peer."""
MAX_OFFERS = 10
"""docs/limits.md#websocket-tracker: offers in one announce."""
MAX_INFO_HASHES = 128
"""Ours: info hashes of a socket, and in a scrape. A page has one socket for all its torrents; one with 20 is common."""
MAX_EXTRA_BYTES = 4 * 1024
"""Ours: what a peer puts beside its SDP, as JSON."""
MAX_RESPONSE_BYTES = MAX_MESSAGE_BYTES + MAX_EXTRA_BYTES
"""A tracker encodes what it relays once more: numbers beside an SDP may get longer, nothing else can."""
MAX_EXTRA_DEPTH = 8
"""Ours: how deep what a peer puts beside its SDP may nest; recursion is bounded when it is passed on."""
HASH_BYTES = 20
"""Length of an info hash, a peer id and an offer id (BEP 3)."""

Event = Literal["", "started", "completed", "stopped", "update", "paused"]
"""What changed; "" and `update` are regular announces, `paused` is BEP 21's partial seed."""
MAX_COUNT = 2**53
"""Of peers or bytes: up to here JavaScript counts exactly. A number beyond it is read as this one: a tracker may write
1e308, and two of these have no sum that a float can hold."""


@dataclass(frozen=True, slots=True)
class Description:
    """An SDP with all candidates in it (there is no trickle). extra: keys beside `type` and `sdp`, kept as they are."""

    type: str
    sdp: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrackerOffer:
    """An offer for whichever peer the tracker picks. offer_id: 20 bytes, random."""

    offer_id: bytes
    offer: Description


# ── peer to tracker ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Announce:
    """left: bytes still wanted; None = not known, which is not a seed. numwant: None = as many as offers.

    dropped_offers: of a decoded one, how many were left out, broken or beyond MAX_OFFERS. Never written.
    """

    info_hash: bytes
    peer_id: bytes
    event: Event = ""
    offers: tuple[TrackerOffer, ...] = ()
    uploaded: int = 0
    downloaded: int = 0
    left: int | None = None
    numwant: int | None = None
    dropped_offers: int = 0


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """Answer the offer `offer_id` that `to_peer_id` made."""

    info_hash: bytes
    peer_id: bytes
    to_peer_id: bytes
    offer_id: bytes
    answer: Description


@dataclass(frozen=True, slots=True)
class Scrape:
    info_hashes: tuple[bytes, ...]


Request = Announce | SendAnswer | Scrape

# ── tracker to peer ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class AnnounceReply:
    """interval_s: announce again after this. complete, incomplete: seeds and others in the swarm; None = not said."""

    info_hash: bytes
    interval_s: float | None
    complete: int | None
    incomplete: int | None


@dataclass(frozen=True, slots=True)
class OfferRelayed:
    info_hash: bytes
    peer_id: bytes
    offer_id: bytes
    offer: Description


@dataclass(frozen=True, slots=True)
class AnswerRelayed:
    info_hash: bytes
    peer_id: bytes
    offer_id: bytes
    answer: Description


@dataclass(frozen=True, slots=True)
class SwarmCounts:
    complete: int
    incomplete: int
    downloaded: int


@dataclass(frozen=True, slots=True)
class ScrapeReply:
    files: Mapping[bytes, SwarmCounts]


@dataclass(frozen=True, slots=True)
class Failure:
    """The tracker refused. reason: its words, for the local log only. warning: it served the request all the same.

    action, info_hash: of the request, "" and None where they could not be read. The npm client takes a failure
    without them for an error of the socket that all torrents of a page share, and closes it.
    """

    reason: str
    action: str = ""
    info_hash: bytes | None = None
    warning: bool = False


Response = AnnounceReply | OfferRelayed | AnswerRelayed | ScrapeReply | Failure
