"""A peer's end of a tracker socket, for one info hash: announces, offers out and in, answers in and out.

Driven by:  handle_timer at next_deadline (the first is at once), receive_text for each WebSocket text message;
            data_to_send after either and after announce, answer, scrape and stop. Making an offer takes time
            (its SDP holds all candidates), so an announce is asked for with AnnounceDue and done by `announce`.
States:     due -> AnnounceDue -> waiting for `announce` -> due again after the tracker's interval. A lost socket
            is the glue's to replace, with a new machine.
Invariants: an answer is reported once, for an offer of ours that is neither answered nor older than
            OFFER_LIFETIME_S, and every offer ends as AnswerReceived or OfferExpired (or with the machine);
            at most MAX_INCOMING_OFFERS wait for our answer; nothing of our own peer id comes back to us.

Several machines may share one socket: each takes what is of its info hash and leaves the rest.

Source: the WebSocket tracker protocol of WebTorrent (bittorrent-tracker 11).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError, SwarmbridgeError
from shared.wire.wstracker.codec import decode_response, encode_request
from shared.wire.wstracker.messages import (
    Announce,
    AnnounceReply,
    AnswerRelayed,
    Description,
    Event,
    Failure,
    OfferRelayed,
    Response,
    Scrape,
    ScrapeReply,
    SendAnswer,
    SwarmCounts,
    TrackerOffer,
)

DEFAULT_INTERVAL_S = 120.0
"""Where the tracker names none; WebTorrent's own."""
MIN_INTERVAL_S = 5.0
"""Ours: a tracker cannot make us announce more often."""
MAX_INTERVAL_S = 1_800.0
"""Ours: nor so seldom that it forgets us."""
OFFER_LIFETIME_S = 50.0
"""WebTorrent's; trackers relay answers for 60 s (docs/limits.md)."""
MAX_PENDING_OFFERS = 64
"""docs/limits.md#data-channel: half-open links."""
MAX_INCOMING_OFFERS = 64
"""docs/limits.md#data-channel: half-open links."""


@dataclass(frozen=True, slots=True)
class AnnounceDue:
    """Make offers, as many as there is use for (none is possible), and call `announce` with them."""


@dataclass(frozen=True, slots=True)
class Announced:
    """The tracker took an announce. complete, incomplete: seeds and others in the swarm, None = not said."""

    complete: int | None
    incomplete: int | None


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """A peer's offer: answer it within OFFER_LIFETIME_S, or leave it."""

    peer_id: bytes
    offer_id: bytes
    offer: Description


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """A peer took our offer."""

    peer_id: bytes
    offer_id: bytes
    answer: Description


@dataclass(frozen=True, slots=True)
class OfferExpired:
    """Nobody took our offer: close its connection."""

    offer_id: bytes


@dataclass(frozen=True, slots=True)
class Scraped:
    counts: SwarmCounts


@dataclass(frozen=True, slots=True)
class TrackerRefused:
    """The tracker refused a request, or warned. It goes on; the next announce is due at the interval."""

    warning: bool


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A message was dropped for what it held; count it."""

    cause: Cause


TrackerEvent = (
    AnnounceDue | Announced | OfferReceived | AnswerReceived | OfferExpired | Scraped | TrackerRefused | MessageRefused
)

_Key = TypeVar("_Key")


class TrackerClient:
    """See the module."""

    def __init__(self, info_hash: bytes, peer_id: bytes, now: float) -> None:
        """Args: info_hash, peer_id: 20 bytes each."""
        self._info_hash, self._peer_id = info_hash, peer_id
        self._interval_s = DEFAULT_INTERVAL_S
        self._announced_s = now
        self._due_s: float | None = now
        self._started = False
        self._outbox: list[str] = []
        self._pending: OrderedDict[bytes, float] = OrderedDict()
        self._incoming: OrderedDict[tuple[bytes, bytes], float] = OrderedDict()

    def announce(
        self,
        offers: Sequence[TrackerOffer],
        now: float,
        *,
        event: Event = "",
        left: int | None = None,
        uploaded: int = 0,
        downloaded: int = 0,
    ) -> None:
        """Announce with these offers, at any time; the first one says `started` by itself.

        Args:   offers: each with an offer_id of its own, 20 random bytes. left: 0 = we are a seed.
        Raises: LocalProtocolError: too many offers, or an offer id used twice.
        """
        ids = [each.offer_id for each in offers]
        if len(set(ids)) < len(ids) or any(each in self._pending for each in ids):
            raise LocalProtocolError("an offer id is used once")
        if len(self._pending) + len(ids) > MAX_PENDING_OFFERS:
            raise LocalProtocolError("too many offers are open")
        # The first announce of a socket says so, whatever made it due.
        event = event if self._started or event else "started"
        request = Announce(
            self._info_hash, self._peer_id, event, tuple(offers), uploaded, downloaded, left, numwant=len(offers)
        )
        self._outbox.append(encode_request(request))
        self._started = True
        self._announced_s = now
        self._due_s = now + self._interval_s
        for offer_id in ids:
            self._pending[offer_id] = now + OFFER_LIFETIME_S

    def answer(self, peer_id: bytes, offer_id: bytes, answer: Description, now: float) -> None:
        """Answer an OfferReceived.

        Raises: SwarmbridgeError(EXPIRED): it is not open, or no longer; close the connection.
        """
        # Taken out even where it is too late: an offer is answered once.
        deadline = self._incoming.pop((peer_id, offer_id), None)
        if deadline is None or deadline <= now:
            raise SwarmbridgeError(Cause.EXPIRED, "the offer is not open")
        request = SendAnswer(self._info_hash, self._peer_id, peer_id, offer_id, answer)
        self._outbox.append(encode_request(request))

    def scrape(self) -> None:
        """Ask for the swarm's numbers: a Scraped follows."""
        self._outbox.append(encode_request(Scrape((self._info_hash,))))

    def stop(self) -> None:
        """Leave the swarm; flush data_to_send, then close the socket."""
        self._outbox.append(encode_request(Announce(self._info_hash, self._peer_id, "stopped", numwant=0)))
        self._due_s = None

    def data_to_send(self) -> list[str]:
        """Texts for the socket, in order; the caller has them now."""
        texts, self._outbox = self._outbox, []
        return texts

    def next_deadline(self) -> float | None:
        """When to call handle_timer."""
        first = [next(iter(each.values())) for each in (self._pending, self._incoming) if each]
        return min([*first, *([self._due_s] if self._due_s is not None else [])], default=None)

    def handle_timer(self, now: float) -> list[TrackerEvent]:
        """Ask for an announce that is due, and end offers that are too old."""
        events: list[TrackerEvent] = [OfferExpired(offer_id) for offer_id in _pop_due(self._pending, now)]
        _pop_due(self._incoming, now)
        if self._due_s is not None and now >= self._due_s:
            # Not due again until `announce` was called: making its offers takes a while, in which timers go on.
            self._due_s = None
            events.append(AnnounceDue())
        return events

    def receive_text(self, text: str | bytes, now: float) -> list[TrackerEvent]:
        """Take one message from the tracker. Never raises: what is broken is reported as MessageRefused."""
        try:
            response = decode_response(text)
        except RemoteProtocolError as error:
            return [MessageRefused(error.cause)]
        return self._receive(response, now)

    def _receive(self, response: Response, now: float) -> list[TrackerEvent]:
        if isinstance(response, ScrapeReply):
            counts = response.files.get(self._info_hash)
            return [Scraped(counts)] if counts is not None else []
        # None: a failure of the whole socket, which is every machine's business.
        if response.info_hash not in (self._info_hash, None):
            return []
        match response:
            case AnnounceReply():
                self._take_interval(response.interval_s)
                return [Announced(response.complete, response.incomplete)]
            case OfferRelayed():
                return self._receive_offer(response, now)
            case AnswerRelayed():
                return self._receive_answer(response, now)
            case Failure(warning=warning):
                return [TrackerRefused(warning)]
            case _:
                assert_never(response)

    def _take_interval(self, interval_s: float | None) -> None:
        if interval_s is None:
            return
        self._interval_s = min(MAX_INTERVAL_S, max(MIN_INTERVAL_S, interval_s))
        # Counted from the last announce: an interval that comes with the answer is for the next one.
        if self._due_s is not None and self._started:
            self._due_s = self._announced_s + self._interval_s

    def _receive_offer(self, relayed: OfferRelayed, now: float) -> list[TrackerEvent]:
        _pop_due(self._incoming, now)
        offer = (relayed.peer_id, relayed.offer_id)
        # A tracker may choose us for our own offer, or relay one to two sockets of ours.
        if relayed.peer_id == self._peer_id or offer in self._incoming:
            return []
        if len(self._incoming) >= MAX_INCOMING_OFFERS:
            return [MessageRefused(Cause.BUSY)]
        self._incoming[offer] = now + OFFER_LIFETIME_S
        return [OfferReceived(relayed.peer_id, relayed.offer_id, relayed.offer)]

    def _receive_answer(self, relayed: AnswerRelayed, now: float) -> list[TrackerEvent]:
        deadline = self._pending.get(relayed.offer_id)
        if deadline is None or deadline <= now or relayed.peer_id == self._peer_id:
            return [MessageRefused(Cause.EXPIRED)]
        del self._pending[relayed.offer_id]
        return [AnswerReceived(relayed.peer_id, relayed.offer_id, relayed.answer)]


def _pop_due(deadlines: OrderedDict[_Key, float], now: float) -> list[_Key]:
    due: list[_Key] = []
    while deadlines and next(iter(deadlines.values())) <= now:
        due.append(deadlines.popitem(last=False)[0])
    return due
