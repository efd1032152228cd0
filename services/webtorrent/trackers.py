"""WebSocket trackers: peers meet there, by a data channel, or nodes by the hint beside an SDP, over TCP.

An offer is answered by a data channel. One with a hint is a node's: its wire is dialled by TCP, our answer has our own
hint, so that both sides know, and the channel is there for where TCP does not lead. Offers of peers that are here
already, or had no `swarm-space` a moment ago, are ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

import aiohttp

from services.webtorrent.channels import TCP_FIRST_S, ChannelOffer, Channels
from services.webtorrent.endpoints import Endpoint, parse_endpoint
from services.webtorrent.limits import (
    REFUSED_TRACKER_MESSAGE,
    REFUSED_TRACKER_RATE,
    TRACKER_ANSWERS_PER_S,
)
from services.webtorrent.swarm import THEIR_TURN_S
from services.webtorrent.wires import Wires
from shared.clock import Clock
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError, SwarmbridgeError
from shared.tasks.owned import Tasks
from shared.token_bucket import TokenBucket
from shared.websocket.client import ClientOptions, ClientSocket, ClientState, ReconnectingClient, until_first_ends
from shared.wire.wstracker.client import (
    Announced,
    AnnounceDue,
    AnswerReceived,
    MessageRefused,
    OfferExpired,
    OfferReceived,
    Scraped,
    TrackerClient,
    TrackerEvent,
    TrackerRefused,
)
from shared.wire.wstracker.hint import wire_hint, with_wire_hint
from shared.wire.wstracker.messages import HASH_BYTES, MAX_MESSAGE_BYTES, Description, TrackerOffer

MAX_TRACKERS = 8
"""Trackers of a rendezvous document that are used."""
OFFERS = 3
"""docs/webtorrent.md: 2-5 offers; each reaches one random other peer."""
EMPTY_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
"""A session without media: what stands beside a hint where we have no data channels."""
MAX_OPEN_OFFERS = 50
"""Offers younger than OFFER_LIFETIME_S; the machine refuses more than 64."""
ALONE_INTERVAL_S = 60.0
"""Between announces while we have no link: the tracker's own interval is for swarms that stand. A newcomer's offers
reach us without one of ours."""
MIN_ANNOUNCE_S = 5.0
"""Between announces, however often somebody asks for a search."""
LOOK_AGAIN_S = 1.0
"""How often we look whether we have become alone."""
RETRY_FIRST_S = 1.0
OPTIONS = ClientOptions(
    max_message_bytes=MAX_MESSAGE_BYTES,
    connect_timeout_s=10.0,
    ping_s=30.0,
    retry_first_s=RETRY_FIRST_S,
    retry_cap_s=120.0,
    send_timeout_s=10.0,
)

Found = Callable[[Sequence[Endpoint], int, float], None]
"""endpoints of one peer, how many of its hint were none, seconds to wait before they are dialled"""

log = logging.getLogger(__name__)


class TrackerContext:
    """What the trackers of one run share.

    infohash, peer_id: 20 bytes. channels, wires: what peers are met over. wire: our `host:port`s, given the address of
    the socket to the tracker. found, alone, changed: as for Dht. refused: the worker's counter.
    """

    def __init__(
        self,
        *,
        infohash: bytes,
        peer_id: bytes,
        channels: Channels,
        wires: Wires,
        wire: Callable[[str], list[str]],
        found: Found,
        alone: Callable[[], bool],
        changed: Callable[[], None],
        refused: Counter[str],
        clock: Clock,
    ) -> None:
        self.infohash, self.peer_id = infohash, peer_id
        self.channels, self.wires = channels, wires
        self.wire, self.found = wire, found
        self.alone, self.changed, self.refused, self.clock = alone, changed, refused, clock


class Trackers:
    """All trackers of the rendezvous document. Cancellation: `run` closes their sockets before it ends."""

    def __init__(self, context: TrackerContext, urls: Sequence[str]) -> None:
        self._context = context
        self._urls = list(urls)
        self._members: dict[str, tuple[TrackerMember, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._crashed = False
        self._tasks = Tasks(on_crash=self._task_crashed)

    @property
    def up_count(self) -> int:
        """Trackers that took an announce on the socket they have now."""
        return sum(member.up for member, _ in self._members.values())

    @property
    def swarm_size(self) -> int:
        """The largest swarm, ourselves included, that a tracker reported."""
        return max((member.swarm_size for member, _ in self._members.values()), default=0)

    @property
    def round_trip_s(self) -> float | None:
        """The slowest tracker's last announce to its answer; None before the first."""
        times = [member.round_trip_s for member, _ in self._members.values() if member.round_trip_s is not None]
        return max(times, default=None)

    def states(self) -> dict[str, ReconnectingClient]:
        """The trackers that are used now, and how each does."""
        return {url: member.connection for url, (member, _) in self._members.items()}

    def set_urls(self, urls: Sequence[str]) -> None:
        """Other trackers, from a rendezvous document that changed."""
        self._urls = list(urls)
        self._wake.set()

    def search(self) -> None:
        """Announce soon, to be found and to find."""
        for member, _ in self._members.values():
            member.search()

    async def run(self) -> None:
        """Serve until cancelled. Raises: LocalProtocolError: a tracker's task broke; the transport is run again."""
        try:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
                while not self._crashed:
                    self._follow_urls(http)
                    await self._wake.wait()
                    self._wake.clear()
        finally:
            await self._tasks.close()
            self._members.clear()
        raise LocalProtocolError("the task of a tracker broke")

    def _task_crashed(self, name: str) -> None:
        self._crashed = True
        self._wake.set()

    def _follow_urls(self, http: aiohttp.ClientSession) -> None:
        wanted = list(dict.fromkeys(self._urls))[:MAX_TRACKERS]
        for url in [url for url in self._members if url not in wanted]:
            self._members.pop(url)[1].cancel()
        for url in wanted:
            if url not in self._members:
                member = TrackerMember(self._context, http, url)
                self._members[url] = (member, self._tasks.start(member.run(), name="tracker"))
        self._context.changed()


class TrackerMember:
    """Our membership at one tracker, over as many sockets as it takes."""

    def __init__(self, context: TrackerContext, http: aiohttp.ClientSession, url: str) -> None:
        self.swarm_size = 0
        self.round_trip_s: float | None = None
        self._context = context
        options = replace(OPTIONS, retry_first_s=RETRY_FIRST_S)
        self.connection = ReconnectingClient(http, self._where, self._serve, options, context.clock, context.changed)
        self._url = url
        self._wake = asyncio.Event()
        self._search_wanted = False
        self._announced_at = float("-inf")
        self._sent_at: float | None = None
        self._offers: dict[bytes, ChannelOffer | None] = {}
        """Those that are out at this tracker, by their id; None where it described nothing."""
        self._tasks = Tasks()
        self._answers = TokenBucket(TRACKER_ANSWERS_PER_S, TRACKER_ANSWERS_PER_S, context.clock())

    def search(self) -> None:
        self._search_wanted = True
        self._wake.set()

    async def run(self) -> None:
        """Stay connected until cancelled; each lost socket is followed by another after a growing pause."""
        try:
            await self.connection.run()
        finally:
            await self._tasks.close()

    @property
    def up(self) -> bool:
        """Whether the tracker took an announce on the socket we have now."""
        return self.connection.state is ClientState.OPEN

    # ── one socket ──────────────────────────────────────────────────────────────────────────────────────

    async def _where(self) -> str:
        return self._url

    async def _serve(self, socket: ClientSocket) -> None:
        context = self._context
        client = TrackerClient(context.infohash, context.peer_id, context.clock())
        wire = context.wire(socket.local_address)
        try:
            await until_first_ends(self._read(socket, client, wire), self._write(socket, client, wire))
        finally:
            for offer_id in list(self._offers):
                self._expired(offer_id)  # a tracker forgets what a lost socket offered

    async def _write(self, socket: ClientSocket, client: TrackerClient, wire: list[str]) -> None:
        while True:
            # Before the work: a message that is read during a send is followed by another round.
            self._wake.clear()
            await self._announce_if_due(client, wire)
            for text in client.data_to_send():
                await socket.send(text)
            await self._sleep(client)

    async def _read(self, socket: ClientSocket, client: TrackerClient, wire: list[str]) -> None:
        try:
            await self._read_messages(socket, client, wire)
        except RemoteProtocolError:
            self._context.refused[REFUSED_TRACKER_MESSAGE] += 1
            raise  # it ends this socket, and is the tracker's last error

    async def _read_messages(self, socket: ClientSocket, client: TrackerClient, wire: list[str]) -> None:
        async for message in socket.messages():
            if isinstance(message, bytes):
                self._context.refused[REFUSED_TRACKER_MESSAGE] += 1
                continue
            for event in client.receive_text(message, self._context.clock()):
                self._handle(event, client, wire)
            self._wake.set()

    async def _sleep(self, client: TrackerClient) -> None:
        now = self._context.clock()
        deadline = client.next_deadline()
        wait_s = LOOK_AGAIN_S if deadline is None else min(LOOK_AGAIN_S, deadline - now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, wait_s)):
                await self._wake.wait()

    async def _announce_if_due(self, client: TrackerClient, wire: list[str]) -> None:
        now = self._context.clock()
        due = False
        for event in client.handle_timer(now):
            if isinstance(event, OfferExpired):
                self._expired(event.offer_id)
            due = due or isinstance(event, AnnounceDue)
        since_s = now - self._announced_at
        wanted = self._search_wanted and since_s >= MIN_ANNOUNCE_S
        alone = self._context.alone() and since_s >= ALONE_INTERVAL_S
        if due or wanted or alone:
            # Before the offers are awaited: a search that is asked for meanwhile is one more.
            self._search_wanted = False
            self._announced_at = now
            offers = await self._make_offers(wire)
            # Behind the offers, whose gathering is no part of the tracker's round trip.
            self._sent_at = self._context.clock()
            # left=1: we are no seed; a tracker may bring seeds together with leechers only.
            client.announce(offers, self._sent_at, left=1)

    def _expired(self, offer_id: bytes) -> None:
        offer = self._offers.pop(offer_id, None)
        if offer is not None:
            self._context.channels.give_back(offer)

    async def _make_offers(self, wire: list[str]) -> list[TrackerOffer]:
        channels = self._context.channels
        count = min(OFFERS, MAX_OPEN_OFFERS - len(self._offers))
        made: list[ChannelOffer | None] = list(await channels.offers(count))
        if channels.import_failed:
            # Nodes still find each other's wire by the hint beside it.
            made = [None] * count
        described = []
        for offer in made:
            offer_id = os.urandom(HASH_BYTES)
            self._offers[offer_id] = offer
            sdp = offer.sdp if offer is not None else EMPTY_SDP
            described.append(TrackerOffer(offer_id, with_wire_hint(Description("offer", sdp), wire)))
        return described

    # ── what the tracker says ──────────────────────────────────────────────────────────────────────────

    def _handle(self, event: TrackerEvent, client: TrackerClient, wire: list[str]) -> None:
        match event:
            case Announced():
                self.swarm_size = (event.complete or 0) + (event.incomplete or 0)
                if self._sent_at is not None:
                    self.round_trip_s = self._context.clock() - self._sent_at
                    self._sent_at = None
                self.connection.proved()
            case OfferReceived():
                self._offered(event, client, wire)
            case AnswerReceived():
                self._answered(event)
            case MessageRefused():
                if event.cause is not Cause.EXPIRED:
                    self._context.refused[REFUSED_TRACKER_MESSAGE] += 1
            case TrackerRefused():
                if not event.warning:
                    log.info("a tracker refused a request")
            case AnnounceDue() | OfferExpired():
                pass  # of the machine's timers, which `_announce_if_due` reads; an offer holds nothing of ours
            case Scraped():
                pass  # we never scrape: an announce brings the same counts
            case _:
                assert_never(event)

    def _offered(self, event: OfferReceived, client: TrackerClient, wire: list[str]) -> None:
        if self._context.wires.has_peer(event.peer_id):
            return
        if self._context.wires.is_stranger(event.peer_id):
            self._context.refused[Cause.NO_EXTENSION.value] += 1
            return
        # After the free refusals: only what would cost us a channel takes a token.
        if not self._answers.take(self._context.clock()):
            self._context.refused[REFUSED_TRACKER_RATE] += 1
            return
        is_node = self._found(event.offer, 0.0)
        self._tasks.start(self._answer(event, client, wire, is_node), name="tracker-answer")

    def _answered(self, event: AnswerReceived) -> None:
        offer = self._offers.pop(event.offer_id, None)
        # Who answered has our hint, and dials.
        is_node = self._found(event.answer, THEIR_TURN_S)
        if offer is None:
            return
        if self._context.wires.is_stranger(event.peer_id) or event.answer.sdp == EMPTY_SDP:
            self._context.channels.give_back(offer)
        else:
            wait_s = TCP_FIRST_S if is_node else 0.0
            self._context.channels.take(offer, event.peer_id, event.answer.sdp, wait_s)

    def _found(self, description: Description, wait_s: float) -> bool:
        """Returns: whether it is a node's."""
        hint = wire_hint(description)
        if not hint:
            return False
        endpoints = [each for each in map(parse_endpoint, hint) if each is not None]
        self._context.found(endpoints, len(hint) - len(endpoints), wait_s)
        return True

    async def _answer(self, event: OfferReceived, client: TrackerClient, wire: list[str], is_node: bool) -> None:
        # A node that has no channels still gives its wire by the hint.
        sdp = None
        if event.offer.sdp != EMPTY_SDP:
            sdp = await self._context.channels.answer(event.peer_id, event.offer.sdp, tcp_first=is_node)
        if sdp is None and not (is_node and wire):
            return
        answer = with_wire_hint(Description("answer", sdp or EMPTY_SDP), wire)
        with contextlib.suppress(SwarmbridgeError):  # the offer has expired meanwhile
            client.answer(event.peer_id, event.offer_id, answer, self._context.clock())
            self._wake.set()
