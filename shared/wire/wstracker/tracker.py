"""A WebSocket tracker without sockets: swarms, offers to random members, answers back, scrapes.

Driven by:  receive_text for each text message of a socket, close_socket when it is gone, handle_timer at
            next_deadline; data_to_send after each. A socket is any number that the glue gives it.
Invariants: a *member* is a (socket, info hash, peer id) that announced within `member_ttl_s`; a socket is in at
            most MAX_INFO_HASHES swarms; a swarm lives while it has members. An answer is relayed once, to the
            member whose offer was relayed to the answerer at most ANSWER_WINDOW_S ago, and to nobody else, so
            the same peer id on another socket can neither take nor block a peer's place.
Full:       a request that is broken or over a limit is answered with a failure reason and counted in `refused` by
            cause; an answer to no open offer is dropped and counted, since a late one is nobody's mistake; beyond
            MAX_RELAYS the oldest unanswered offer is forgotten.

Left out: the count `downloaded` of a swarm that emptied. Rates are the glue's: it sees addresses.
Source: the WebSocket tracker protocol of WebTorrent (bittorrent-tracker 11).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from shared.errors import Cause, RemoteProtocolError
from shared.wire.wstracker.codec import decode_request, encode_response
from shared.wire.wstracker.messages import (
    MAX_INFO_HASHES,
    Announce,
    AnnounceReply,
    AnswerRelayed,
    Failure,
    OfferRelayed,
    Response,
    Scrape,
    ScrapeReply,
    SendAnswer,
    SwarmCounts,
    TrackerOffer,
)

ANNOUNCE_INTERVAL_S = 120
"""bittorrent-tracker's own for WebSockets."""
MEMBER_TTL_INTERVALS = 2.5
"""Ours: a member that missed two announces has left."""
ANSWER_WINDOW_S = 60.0
"""TRUST, WebSocket tracker: answers only to offers relayed in the last 60 s."""
MAX_MEMBERS_PER_SOCKET = 2 * MAX_INFO_HASHES
"""Ours: clients in one page share a socket, so one swarm may hold two peer ids of it."""
MAX_RELAYS = 100_000
"""Ours: unanswered offers in all; 10 from each of 10,000 sockets."""
TOO_MANY = "too many info hashes on one socket"

SocketId: TypeAlias = int
MemberKey: TypeAlias = tuple[SocketId, bytes, bytes]
"""(socket, info hash, peer id)"""
Choose: TypeAlias = Callable[[Sequence[MemberKey], int], Sequence[MemberKey]]
"""`choose(members, count)`: that many different ones at random; `random.sample` is one."""


@dataclass(slots=True)
class _Swarm:
    """members: in no order, for choosing; places: where each is in it; seeds: those that have everything."""

    members: list[MemberKey] = field(default_factory=list)
    places: dict[MemberKey, int] = field(default_factory=dict)
    seeds: set[MemberKey] = field(default_factory=set)
    downloaded: int = 0

    def add(self, member: MemberKey) -> None:
        if member not in self.places:
            self.places[member] = len(self.members)
            self.members.append(member)

    def remove(self, member: MemberKey) -> None:
        place, last = self.places.pop(member), self.members.pop()
        if last != member:
            self.members[place] = last
            self.places[last] = place
        self.seeds.discard(member)

    def counts(self) -> SwarmCounts:
        return SwarmCounts(len(self.seeds), len(self.members) - len(self.seeds), self.downloaded)


class Tracker:
    """See the module."""

    def __init__(self, choose: Choose, *, interval_s: int = ANNOUNCE_INTERVAL_S) -> None:
        self._choose, self._interval_s = choose, interval_s
        self._member_ttl_s = interval_s * MEMBER_TTL_INTERVALS
        self._swarms: dict[bytes, _Swarm] = {}
        self._sockets: dict[SocketId, set[MemberKey]] = {}
        self._members: OrderedDict[MemberKey, float] = OrderedDict()
        self._relays: OrderedDict[tuple[MemberKey, bytes, bytes], tuple[MemberKey, float]] = OrderedDict()
        self._outbox: list[tuple[SocketId, str]] = []
        self.refused: Counter[Cause] = Counter()

    @property
    def swarm_count(self) -> int:
        return len(self._swarms)

    @property
    def member_count(self) -> int:
        return len(self._members)

    def receive_text(self, socket: SocketId, text: str | bytes, now: float) -> None:
        """Take one message from a socket. Never raises: a bad one is answered with a failure and counted."""
        try:
            request = decode_request(text)
        except RemoteProtocolError as error:
            self.refused[error.cause] += 1
            # The codec's own fixed words: they never quote the peer.
            self._send(socket, Failure(str(error)))
            return
        match request:
            case Announce():
                self._announce(socket, request, now)
            case SendAnswer():
                self._answer(socket, request, now)
            case Scrape():
                self._scrape(socket, request)

    def close_socket(self, socket: SocketId) -> None:
        """The socket is gone: so are its members."""
        for member in self._sockets.pop(socket, ()):
            self._forget(member)

    def data_to_send(self) -> list[tuple[SocketId, str]]:
        """Texts and the sockets they are for, in order; the caller has them now."""
        texts, self._outbox = self._outbox, []
        return texts

    def next_deadline(self) -> float | None:
        """When to call handle_timer."""
        deadlines = [next(iter(self._members.values()))] if self._members else []
        if self._relays:
            deadlines.append(next(iter(self._relays.values()))[1])
        return min(deadlines, default=None)

    def handle_timer(self, now: float) -> None:
        """Forget members that stopped announcing and offers that nobody answered."""
        while self._members and next(iter(self._members.values())) <= now:
            self._leave(next(iter(self._members)))
        while self._relays and next(iter(self._relays.values()))[1] <= now:
            self._relays.popitem(last=False)

    def _announce(self, socket: SocketId, announce: Announce, now: float) -> None:
        member = (socket, announce.info_hash, announce.peer_id)
        if announce.event == "stopped":
            if member in self._members:
                self._leave(member)
        elif not self._may_join(member):
            self.refused[Cause.RATE_LIMITED] += 1
            self._send(socket, Failure(TOO_MANY, "announce", announce.info_hash))
            return
        else:
            self._join(member, announce, now)
        swarm = self._swarms.get(announce.info_hash)
        counts = swarm.counts() if swarm is not None else SwarmCounts(0, 0, 0)
        reply = AnnounceReply(announce.info_hash, self._interval_s, counts.complete, counts.incomplete)
        self._send(socket, reply)
        if swarm is not None and announce.offers and announce.event != "stopped":
            self._relay_offers(swarm, member, announce.offers, now)

    def _may_join(self, member: MemberKey) -> bool:
        joined = self._sockets.get(member[0], set())
        if member in joined:
            return True
        swarms = {info_hash for _, info_hash, _ in joined} | {member[1]}
        return len(joined) < MAX_MEMBERS_PER_SOCKET and len(swarms) <= MAX_INFO_HASHES

    def _join(self, member: MemberKey, announce: Announce, now: float) -> None:
        socket, info_hash, _ = member
        self._sockets.setdefault(socket, set()).add(member)
        self._members[member] = now + self._member_ttl_s
        self._members.move_to_end(member)
        swarm = self._swarms.setdefault(info_hash, _Swarm())
        swarm.add(member)
        if announce.event == "completed" and member not in swarm.seeds:
            swarm.downloaded += 1
        if announce.event == "completed" or announce.left == 0:
            swarm.seeds.add(member)
        elif announce.left is not None:
            swarm.seeds.discard(member)

    def _relay_offers(self, swarm: _Swarm, member: MemberKey, offers: tuple[TrackerOffer, ...], now: float) -> None:
        _, info_hash, peer_id = member
        # One more than there are offers: the announcer is among the members and may be chosen.
        chosen = self._choose(swarm.members, min(len(offers) + 1, len(swarm.members)))
        others = [each for each in chosen if each[2] != peer_id]
        for target, each in zip(others, offers, strict=False):
            self._relays[(target, each.offer_id, peer_id)] = (member, now + ANSWER_WINDOW_S)
            self._relays.move_to_end((target, each.offer_id, peer_id))
            if len(self._relays) > MAX_RELAYS:
                self._relays.popitem(last=False)
            self._send(target[0], OfferRelayed(info_hash, peer_id, each.offer_id, each.offer))

    def _answer(self, socket: SocketId, answer: SendAnswer, now: float) -> None:
        answerer = (socket, answer.info_hash, answer.peer_id)
        offerer, deadline = self._relays.pop((answerer, answer.offer_id, answer.to_peer_id), (None, 0.0))
        if offerer is None or deadline <= now:
            self.refused[Cause.EXPIRED] += 1
            return
        if offerer not in self._members:
            self.refused[Cause.CLOSED] += 1
            return
        relayed = AnswerRelayed(answer.info_hash, answer.peer_id, answer.offer_id, answer.answer)
        self._send(offerer[0], relayed)

    def _scrape(self, socket: SocketId, scrape: Scrape) -> None:
        swarms = {info_hash: self._swarms.get(info_hash) for info_hash in scrape.info_hashes}
        nobody = SwarmCounts(0, 0, 0)
        self._send(socket, ScrapeReply({each: swarm.counts() if swarm else nobody for each, swarm in swarms.items()}))

    def _leave(self, member: MemberKey) -> None:
        joined = self._sockets[member[0]]
        joined.discard(member)
        if not joined:
            del self._sockets[member[0]]
        self._forget(member)

    def _forget(self, member: MemberKey) -> None:
        del self._members[member]
        swarm = self._swarms[member[1]]
        swarm.remove(member)
        if not swarm.members:
            del self._swarms[member[1]]

    def _send(self, socket: SocketId, response: Response) -> None:
        self._outbox.append((socket, encode_response(response)))
