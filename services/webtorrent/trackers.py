"""WebSocket trackers: nodes find each other's wire there, by the hint beside the SDP of an offer.

A node's offer (one with a hint) is answered with our own hint, so that both sides know; it needs no data channel.
Browsers' offers and answers have no hint: they are not served yet, left alone and counted as `no_extension`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

import aiohttp

from services.webtorrent.endpoints import Endpoint, parse_endpoint
from services.webtorrent.limits import (
    REFUSED_TRACKER_MESSAGE,
    REFUSED_TRACKER_RATE,
    TRACKER_ANSWERS_PER_S,
)
from services.webtorrent.offer import EMPTY_SDP
from services.webtorrent.swarm import THEIR_TURN_S
from shared.clock import Clock
from shared.errors import Cause, LocalProtocolError, SwarmbridgeError
from shared.tasks.owned import Tasks
from shared.token_bucket import TokenBucket
from shared.websocket.client import ClientOptions, ClientSocket, ClientState, ReconnectingClient, until_first_ends
from shared.wire.wstracker.client import (
    OFFER_LIFETIME_S,
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
OFFERS = 5
"""docs/webtorrent.md: 2-5 offers; each reaches one random other peer."""
MAX_OPEN_OFFERS = 50
"""Offers younger than OFFER_LIFETIME_S; the machine refuses more than 64."""
ALONE_INTERVAL_S = 15.0
"""Between announces while we have no link: the tracker's own interval is for swarms that stand."""
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

    infohash, peer_id: 20 bytes. sdp: for an offer, now. wire: our `host:port`s, given the local address of the
    socket to the tracker. found, alone, changed: as for Dht. refused: the worker's counter.
    """

    def __init__(
        self,
        *,
        infohash: bytes,
        peer_id: bytes,
        sdp: Callable[[], str],
        wire: Callable[[str], list[str]],
        found: Found,
        alone: Callable[[], bool],
        changed: Callable[[], None],
        refused: Counter[str],
        clock: Clock,
    ) -> None:
        self.infohash, self.peer_id = infohash, peer_id
        self.sdp, self.wire, self.found = sdp, wire, found
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
        self._context = context
        options = replace(OPTIONS, retry_first_s=RETRY_FIRST_S)
        self.connection = ReconnectingClient(http, self._where, self._serve, options, context.clock, context.changed)
        self._url = url
        self._wake = asyncio.Event()
        self._search_wanted = False
        self._announced_at = float("-inf")
        self._offered_at: deque[float] = deque()
        self._answers = TokenBucket(TRACKER_ANSWERS_PER_S, TRACKER_ANSWERS_PER_S, context.clock())

    def search(self) -> None:
        self._search_wanted = True
        self._wake.set()

    async def run(self) -> None:
        """Stay connected until cancelled; each lost socket is followed by another after a growing pause."""
        await self.connection.run()

    @property
    def up(self) -> bool:
        """Whether the tracker took an announce on the socket we have now."""
        return self.connection.state is ClientState.OPEN

    # ── one socket ──────────────────────────────────────────────────────────────────────────────────────

    async def _where(self) -> str:
        return self._url

    async def _serve(self, socket: ClientSocket) -> None:
        context = self._context
        client = TrackerClient(context.infohash, context.peer_id, context.clock(), offer_count=OFFERS)
        wire = context.wire(socket.local_address)
        self._offered_at.clear()
        await until_first_ends(self._read(socket, client, wire), self._write(socket, client, wire))

    async def _write(self, socket: ClientSocket, client: TrackerClient, wire: list[str]) -> None:
        while True:
            self._wake.clear()
            self._announce_if_due(client, wire)
            for text in client.data_to_send():
                await socket.send(text)
            await self._sleep(client)

    async def _read(self, socket: ClientSocket, client: TrackerClient, wire: list[str]) -> None:
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

    def _announce_if_due(self, client: TrackerClient, wire: list[str]) -> None:
        now = self._context.clock()
        due = any(isinstance(event, AnnounceDue) for event in client.handle_timer(now))
        since_s = now - self._announced_at
        wanted = self._search_wanted and since_s >= MIN_ANNOUNCE_S
        alone = self._context.alone() and since_s >= ALONE_INTERVAL_S
        if due or wanted or alone:
            self._search_wanted = False
            self._announced_at = now
            client.announce(self._offers(now, wire), now, left=1)

    def _offers(self, now: float, wire: list[str]) -> list[TrackerOffer]:
        while self._offered_at and self._offered_at[0] + OFFER_LIFETIME_S <= now:
            self._offered_at.popleft()
        count = min(OFFERS, MAX_OPEN_OFFERS - len(self._offered_at))
        self._offered_at.extend([now] * count)
        offer = with_wire_hint(Description("offer", self._context.sdp()), wire)
        return [TrackerOffer(os.urandom(HASH_BYTES), offer) for _ in range(count)]

    # ── what the tracker says ──────────────────────────────────────────────────────────────────────────

    def _handle(self, event: TrackerEvent, client: TrackerClient, wire: list[str]) -> None:
        match event:
            case Announced():
                self.swarm_size = (event.complete or 0) + (event.incomplete or 0)
                self.connection.proved()
            case OfferReceived():
                if self._found(event.offer, 0.0):
                    self._answer(event, client, wire)
            case AnswerReceived():
                # Who answered has our hint, and dials.
                self._found(event.answer, THEIR_TURN_S)
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

    def _found(self, description: Description, wait_s: float) -> bool:
        """Returns: whether it is a node's."""
        hint = wire_hint(description)
        if not hint:
            self._context.refused[Cause.NO_EXTENSION.value] += 1
            return False
        endpoints = [each for each in map(parse_endpoint, hint) if each is not None]
        self._context.found(endpoints, len(hint) - len(endpoints), wait_s)
        return True

    def _answer(self, event: OfferReceived, client: TrackerClient, wire: list[str]) -> None:
        now = self._context.clock()
        if not wire:
            return
        if not self._answers.take(now):
            self._context.refused[REFUSED_TRACKER_RATE] += 1
            return
        with contextlib.suppress(SwarmbridgeError):  # the offer has expired meanwhile
            client.answer(event.peer_id, event.offer_id, with_wire_hint(Description("answer", EMPTY_SDP), wire), now)
