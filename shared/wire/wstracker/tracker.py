"""A WebSocket tracker without sockets: swarms, offers to random members, answers back, scrapes.

Driven by:  receive_text for each text message of a socket, close_socket when it is gone, handle_timer at
            next_deadline; data_to_send after each. A socket is any number that the glue gives it.
Invariants: a *member* is a (socket, info hash, peer id) that announced within `member_ttl_s`; a socket is in at
            most MAX_INFO_HASHES swarms; a swarm lives while it has members. An answer is relayed once, to the
            member whose offer was relayed to the answerer at most ANSWER_WINDOW_S ago, and to nobody else, so
            the same peer id on another socket can neither take nor block a peer's place; it is counted once.
Full:       a request that is broken or over a limit is answered with a failure reason, which names its action and
            info hash wherever they can be read, and counted in `refused` by cause; a broken offer is dropped and
            its announce served; an answer to no open offer is dropped and counted, since a late one is nobody's
            mistake; beyond MAX_RELAYS the oldest unanswered offer is forgotten.

Linked:     several instances may serve the same swarms (`linked=True`). Another instance's members are members of
            a socket that is its negative number; what is for one of them leaves by `news` as ToRemote, and what
            comes from one enters by the `remote_` calls. Only swarms with members of our own are shared: SwarmOpened
            and SwarmClosed say to the glue which. Who opens a swarm here announces before others' members of it are
            known, and again two minutes later: its offers are kept FIRST_OFFERS_S for them.

Left out: the count `downloaded` of a swarm that emptied. Rates are the glue's: it sees addresses.
Source: the WebSocket tracker protocol of WebTorrent (bittorrent-tracker 11).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from shared.errors import Cause, RemoteProtocolError
from shared.wire.wstracker.codec import decode_request, encode_response, named_failure
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
"""docs/limits.md#websocket-tracker: answers only to offers relayed in the last 60 s."""
MAX_MEMBERS_PER_SOCKET = 2 * MAX_INFO_HASHES
"""Ours: clients in one page share a socket, so one swarm may hold two peer ids of it."""
MAX_RELAYS = 100_000
"""Ours: unanswered offers in all; 10 from each of 10,000 sockets."""
MAX_REMOTE_MEMBERS = 100_000
"""Ours: members of one other instance; ten swarms of each of its 10,000 sockets."""
FIRST_OFFERS_S = 5.0
"""Ours: for other instances to say who is in a swarm that a member of ours has just opened; a round trip, and then
some."""
MAX_FIRST_OFFERS = 256
"""Ours: kept in all, at most 16 MiB; the oldest member's go first."""
TOO_MANY = "too many info hashes on one socket"

SocketId: TypeAlias = int
MemberKey: TypeAlias = tuple[SocketId, bytes, bytes]
"""(socket, info hash, peer id); a negative socket is another instance"""
Choose: TypeAlias = Callable[[Sequence[MemberKey], int], Sequence[MemberKey]]
"""`choose(members, count)`: that many different ones at random; `random.sample` is one."""


@dataclass(frozen=True, slots=True)
class SwarmOpened:
    """The first member of our own: hear what other instances say of this swarm, and ask who is there."""

    info_hash: bytes


@dataclass(frozen=True, slots=True)
class SwarmClosed:
    """The last member of our own is gone: so are, for us, the others."""

    info_hash: bytes


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A member of our own announced: the others' copy lives as long as ours."""

    info_hash: bytes
    peer_id: bytes
    seed: bool


@dataclass(frozen=True, slots=True)
class MemberLeft:
    info_hash: bytes
    peer_id: bytes


@dataclass(frozen=True, slots=True)
class ToRemote:
    """An offer or answer for a member `peer_id` of another instance."""

    instance: SocketId
    peer_id: bytes
    response: OfferRelayed | AnswerRelayed


News = SwarmOpened | SwarmClosed | MemberJoined | MemberLeft | ToRemote


@dataclass(slots=True)
class _Swarm:
    """members: in no order, for choosing; places: where each is in it; seeds: those that have everything.

    peers: the members of each peer id: one that came on two sockets is still one peer.
    """

    members: list[MemberKey] = field(default_factory=list)
    places: dict[MemberKey, int] = field(default_factory=dict)
    seeds: set[MemberKey] = field(default_factory=set)
    peers: dict[bytes, set[MemberKey]] = field(default_factory=dict)
    seed_peers: Counter[bytes] = field(default_factory=Counter)
    own_count: int = 0
    downloaded: int = 0

    def add(self, member: MemberKey) -> None:
        if member not in self.places:
            self.places[member] = len(self.members)
            self.members.append(member)
            self.peers.setdefault(member[2], set()).add(member)
            self.own_count += member[0] >= 0

    def mark_seed(self, member: MemberKey, seed: bool) -> None:
        if seed and member not in self.seeds:
            self.seeds.add(member)
            self.seed_peers[member[2]] += 1
        elif not seed and member in self.seeds:
            self.seeds.discard(member)
            self.seed_peers -= Counter([member[2]])

    def remove(self, member: MemberKey) -> None:
        self.mark_seed(member, False)
        self.own_count -= member[0] >= 0
        same = self.peers[member[2]]
        same.discard(member)
        if not same:
            del self.peers[member[2]]
        # The last takes the place of the one that leaves: the list is chosen from at random, and has no order to keep.
        place, last = self.places.pop(member), self.members.pop()
        if last != member:
            self.members[place] = last
            self.places[last] = place

    def counts(self) -> SwarmCounts:
        return SwarmCounts(len(self.seed_peers), len(self.peers) - len(self.seed_peers), self.downloaded)


class Tracker:
    """See the module."""

    def __init__(self, choose: Choose, *, interval_s: int = ANNOUNCE_INTERVAL_S, linked: bool = False) -> None:
        """Args: linked: there may be other instances; the glue takes `news`."""
        self._choose, self._interval_s, self._linked = choose, interval_s, linked
        self._news: list[News] = []
        self._member_ttl_s = interval_s * MEMBER_TTL_INTERVALS
        self._swarms: dict[bytes, _Swarm] = {}
        self._sockets: dict[SocketId, set[MemberKey]] = {}
        self._members: OrderedDict[MemberKey, float] = OrderedDict()
        self._relays: OrderedDict[tuple[MemberKey, bytes, bytes], tuple[MemberKey, float]] = OrderedDict()
        self._first_offers: OrderedDict[MemberKey, tuple[float, list[TrackerOffer]]] = OrderedDict()
        self._outbox: list[tuple[SocketId, str]] = []
        self.refused: Counter[Cause] = Counter()

    @property
    def swarm_count(self) -> int:
        return len(self._swarms)

    @property
    def member_count(self) -> int:
        """Members of our own: those of other instances are theirs to count."""
        return sum(swarm.own_count for swarm in self._swarms.values())

    def receive_text(self, socket: SocketId, text: str | bytes, now: float) -> None:
        """Take one message from a socket. Never raises: a bad one is answered with a failure and counted."""
        try:
            request = decode_request(text)
        except RemoteProtocolError as error:
            self.refused[error.cause] += 1
            # The codec's own fixed words: they never quote the peer.
            self._send(socket, named_failure(text, str(error)))
            return
        match request:
            case Announce():
                self._announce(socket, request, now)
            case SendAnswer():
                self._answer(socket, request, now)
            case Scrape():
                self._scrape(socket, request)
            case _:
                assert_never(request)

    def close_socket(self, socket: SocketId) -> None:
        """The socket is gone, or the instance that is its negative number: so are its members."""
        for member in self._sockets.pop(socket, ()):
            if member in self._members:  # the end of a swarm's last own member may have taken it along
                self._forget(member)

    # ── the other instances ──────────────────────────────────────────────────────────────────────────────

    def news(self) -> list[News]:
        """What the other instances are to hear, in order; the caller has it now."""
        news, self._news = self._news, []
        return news

    def remote_joined(self, instance: SocketId, info_hash: bytes, peer_id: bytes, seed: bool, now: float) -> None:
        """Another instance has this member. Ignored for a swarm without members of our own."""
        swarm = self._swarms.get(info_hash)
        member = (instance, info_hash, peer_id)
        # An instance is a socket with many members: its end takes them all.
        joined = self._sockets.setdefault(instance, set())
        if swarm is None or (member not in joined and len(joined) >= MAX_REMOTE_MEMBERS):
            return
        is_new = member not in joined
        joined.add(member)
        self._members[member] = now + self._member_ttl_s
        self._members.move_to_end(member)
        swarm.add(member)
        swarm.mark_seed(member, seed)
        if is_new:
            self._introduce(member, now)

    def remote_left(self, instance: SocketId, info_hash: bytes, peer_id: bytes) -> None:
        member = (instance, info_hash, peer_id)
        if member in self._members:
            self._leave(member)

    def remote_offer(self, instance: SocketId, target: bytes, offer: OfferRelayed, now: float) -> None:
        """Another instance chose a member of ours, `target`, for an offer of one of its own."""
        swarm = self._swarms.get(offer.info_hash)
        # One socket of the peer is enough, if it came on several: the others are the same page.
        own = [each for each in (swarm.peers.get(target, ()) if swarm else ()) if each[0] >= 0]
        if not own:
            self.refused[Cause.CLOSED] += 1
            return
        offerer = (instance, offer.info_hash, offer.peer_id)
        if offerer not in self._members:  # its announce and its offer may overtake each other
            self.remote_joined(instance, offer.info_hash, offer.peer_id, False, now)
        self._relay(own[0], offerer, TrackerOffer(offer.offer_id, offer.offer), now)

    def remote_answer(self, instance: SocketId, target: bytes, answer: AnswerRelayed, now: float) -> None:
        """A member of another instance answers an offer of ours, `target`'s."""
        sent = SendAnswer(answer.info_hash, answer.peer_id, target, answer.offer_id, answer.answer)
        self._answer(instance, sent, now)

    def own_members(self, info_hash: bytes) -> list[MemberJoined]:
        """The members of one swarm that are ours, for an instance that asks."""
        swarm = self._swarms.get(info_hash)
        if swarm is None:
            return []
        return [MemberJoined(info_hash, each[2], each in swarm.seeds) for each in swarm.members if each[0] >= 0]

    def own_swarms(self) -> list[bytes]:
        return [info_hash for info_hash, swarm in self._swarms.items() if swarm.own_count]

    def data_to_send(self) -> list[tuple[SocketId, str]]:
        """Texts and the sockets they are for, in order; the caller has them now."""
        texts, self._outbox = self._outbox, []
        return texts

    def next_deadline(self) -> float | None:
        """When to call handle_timer."""
        deadlines = [next(iter(self._members.values()))] if self._members else []
        if self._relays:
            deadlines.append(next(iter(self._relays.values()))[1])
        if self._first_offers:
            deadlines.append(next(iter(self._first_offers.values()))[0])
        return min(deadlines, default=None)

    def handle_timer(self, now: float) -> None:
        """Forget members that stopped announcing and offers that nobody answered."""
        while self._members and next(iter(self._members.values())) <= now:
            self._leave(next(iter(self._members)))
        while self._relays and next(iter(self._relays.values()))[1] <= now:
            self._relays.popitem(last=False)
        while self._first_offers and next(iter(self._first_offers.values()))[0] <= now:
            self._first_offers.popitem(last=False)

    def _announce(self, socket: SocketId, announce: Announce, now: float) -> None:
        member = (socket, announce.info_hash, announce.peer_id)
        if announce.dropped_offers:
            self.refused[Cause.INVALID] += announce.dropped_offers
        if announce.event == "stopped":
            # Somebody who says `stopped` twice, or never joined, gets a reply all the same.
            if member in self._members:
                self._leave(member)
        elif not self._may_join(member):
            self.refused[Cause.RATE_LIMITED] += 1
            self._send(socket, Failure(TOO_MANY, "announce", announce.info_hash))
            return
        else:
            before = self._swarms.get(announce.info_hash)
            # Asked before it joins, which makes it the first.
            opens = before is None or not before.own_count
            self._join(member, announce, now)
            if opens and self._linked:
                self._keep_first_offers(member, announce.offers, now)
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
        if not swarm.own_count:
            self._report(SwarmOpened(info_hash))
        swarm.add(member)
        if announce.event == "completed" and member not in swarm.seeds:
            swarm.downloaded += 1
        if announce.event == "completed" or announce.left == 0:
            swarm.mark_seed(member, True)
        elif announce.left is not None:
            swarm.mark_seed(member, False)
        self._report(MemberJoined(info_hash, announce.peer_id, member in swarm.seeds))

    def _relay_offers(self, swarm: _Swarm, member: MemberKey, offers: tuple[TrackerOffer, ...], now: float) -> None:
        peer_id = member[2]
        # One more than there are offers: the announcer is among the members and may be chosen.
        chosen = self._choose(swarm.members, min(len(offers) + 1, len(swarm.members)))
        # By peer id and not by member: the same peer on another socket is no one to meet.
        others = [each for each in chosen if each[2] != peer_id]
        for target, each in zip(others, offers, strict=False):
            self._relay(target, member, each, now)

    def _keep_first_offers(self, member: MemberKey, offers: tuple[TrackerOffer, ...], now: float) -> None:
        if not offers:
            return
        self._first_offers[member] = (now + FIRST_OFFERS_S, list(offers))
        while sum(len(kept) for _, kept in self._first_offers.values()) > MAX_FIRST_OFFERS:
            self._first_offers.popitem(last=False)

    def _introduce(self, newcomer: MemberKey, now: float) -> None:
        """Give a member of another instance an offer of who opened its swarm here, while there is one."""
        _, info_hash, peer_id = newcomer
        for member, (deadline, offers) in self._first_offers.items():
            if (
                member[1] == info_hash
                and member[2] != peer_id
                and deadline > now
                and member in self._members
                and offers
            ):
                self._relay(newcomer, member, offers.pop(), now)
                return

    def _relay(self, target: MemberKey, offerer: MemberKey, offer: TrackerOffer, now: float) -> None:
        _, info_hash, peer_id = offerer
        # By the offerer's peer id, which is all that an answer names; its socket is looked up in here.
        relay = (target, offer.offer_id, peer_id)
        self._relays[relay] = (offerer, now + ANSWER_WINDOW_S)
        self._relays.move_to_end(relay)
        if len(self._relays) > MAX_RELAYS:
            self._relays.popitem(last=False)
        self._send_to(target, OfferRelayed(info_hash, peer_id, offer.offer_id, offer.offer))

    def _answer(self, socket: SocketId, answer: SendAnswer, now: float) -> None:
        answerer = (socket, answer.info_hash, answer.peer_id)
        offerer, deadline = self._relays.pop((answerer, answer.offer_id, answer.to_peer_id), (None, 0.0))
        if offerer is None or deadline <= now:
            self.refused[Cause.EXPIRED] += 1
            return
        # It left between its offer and the answer: nobody there expects it any more.
        if offerer not in self._members:
            self.refused[Cause.CLOSED] += 1
            return
        relayed = AnswerRelayed(answer.info_hash, answer.peer_id, answer.offer_id, answer.answer)
        self._send_to(offerer, relayed)

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
        socket, info_hash, peer_id = member
        swarm = self._swarms[info_hash]
        swarm.remove(member)
        if socket >= 0 and not any(each[0] >= 0 for each in swarm.peers.get(peer_id, ())):
            self._report(MemberLeft(info_hash, peer_id))
        if socket >= 0 and not swarm.own_count:
            # Others' members of a swarm that nobody here is in are of no use to anybody.
            for other in list(swarm.members):
                del self._members[other]
                self._sockets[other[0]].discard(other)
            swarm.members.clear()
            self._report(SwarmClosed(info_hash))
        if not swarm.members:
            del self._swarms[info_hash]

    def _report(self, news: News) -> None:
        if self._linked:
            self._news.append(news)

    def _send_to(self, member: MemberKey, response: OfferRelayed | AnswerRelayed) -> None:
        socket, _, peer_id = member
        if socket >= 0:
            self._send(socket, response)
        else:
            self._news.append(ToRemote(socket, peer_id, response))

    def _send(self, socket: SocketId, response: Response) -> None:
        self._outbox.append((socket, encode_response(response)))
