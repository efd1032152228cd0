"""Several rendezvous on one bus are one meeting place: the glue between the machines and the account `mesh`.

    PeerServer ── Claim, Forward ──▶ request `peer.<id>` ──▶ whichever instance has the id (interest is the registry)
               ── Registered ──────▶ subscribe `peer.<id>`, then news: what waits elsewhere for the id comes
    Tracker    ── SwarmOpened ─────▶ subscribe `swarm.<hash>`, ask who is there
               ── MemberJoined … ──▶ publish there; offers and answers go to the one instance they are for

Without the bus it serves those who are registered here, as an instance that is alone does: claims count as free,
what is for an unknown id waits and expires. After a reconnect it says again what it has.
Full: over MAX_LANES targets or MAX_QUEUED news, what comes is treated as if nobody were there, and counted.
Cancellation: `close` says goodbye and ends every task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import assert_never

from services.rendezvous.machines import LinkCommand
from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.envelopes import Done
from shared.bus.messages.meeting import (
    ClaimPeer,
    InstanceAlive,
    InstanceNews,
    PeerCall,
    PeerClaimed,
    PeersRegistered,
    RelayText,
    SwarmLeft,
    SwarmMembers,
    SwarmNews,
    SwarmWanted,
    TrackerRelay,
)
from shared.bus.messages.subjects import RENDEZVOUS_NEWS, rendezvous_instance, rendezvous_peer, rendezvous_swarm
from shared.clock import Clock
from shared.errors import BusError, Cause, NoResponders, RemoteFailure, RemoteProtocolError, SwarmbridgeError
from shared.tasks.owned import Tasks
from shared.wire.peerjs.server import PeerServer
from shared.wire.peerjs.server_commands import Claim, ClaimAnswer, Forward, Registered, Unregistered
from shared.wire.wstracker.codec import decode_response, encode_response
from shared.wire.wstracker.messages import AnnounceReply, AnswerRelayed, Failure, OfferRelayed, ScrapeReply
from shared.wire.wstracker.tracker import (
    MemberJoined,
    MemberLeft,
    News,
    SwarmClosed,
    SwarmOpened,
    ToRemote,
    Tracker,
)

CLAIM_TIMEOUT_S = 0.5
RELAY_TIMEOUT_S = 1.0
"""For another instance: it looks into a table. One that is frozen must not hold up those who register here."""
ALIVE_EVERY_S = 1.0
LOST_AFTER_S = 5.0
"""Five beats missed: an instance was killed, and its members with it."""
MAX_LANES = 4_096
"""Targets to whom messages are on their way at the same time; each costs a task."""
MAX_LANE_MESSAGES = 256
MAX_QUEUED = 10_000
"""News not yet on the bus."""
BATCH = 500
"""Registrations or members in one message: some 40 KB."""

log = logging.getLogger(__name__)


class Instances:
    """This instance among the others. `start`, then `close` once."""

    def __init__(self, bus: Bus, peers: PeerServer, tracker: Tracker, flush: Callable[[], None], clock: Clock) -> None:
        """Args: flush: carries out what the two machines want after they were called here."""
        self._bus, self._peers, self._tracker = bus, peers, tracker
        self._flush, self._clock = flush, clock
        self._lanes: dict[str, deque[Forward]] = {}
        self._work: asyncio.Queue[Registered | Unregistered | News] = asyncio.Queue(MAX_QUEUED)
        self._interest: dict[str, Subscription] = {}
        self._fixed: list[Subscription] = []
        self._numbers: dict[str, int] = {}
        self._heard: dict[str, float] = {}
        self.failed = asyncio.Event()
        """Set when a task broke without which instances no longer hear each other."""
        self._tasks = Tasks(on_crash=self._crashed)
        self.refused: Counter[str] = Counter()

    async def start(self) -> None:
        """Raises: BusError."""
        self._fixed = [
            await self._bus.serve(RENDEZVOUS_NEWS, InstanceNews, self._hear),
            await self._bus.serve(rendezvous_instance(self._bus.instance), TrackerRelay, self._relayed),
        ]
        self._bus.on_reconnect(self._say_all)
        self._tasks.start(self._keep_saying(), name="news")
        self._tasks.start(self._beat(), name="alive")

    async def close(self) -> None:
        with contextlib.suppress(BusError):
            await self._bus.publish(RENDEZVOUS_NEWS, InstanceAlive(self._bus.instance, leaving=True))
        await self._tasks.close()
        for subscription in [*self._fixed, *self._interest.values()]:
            with contextlib.suppress(BusError):
                await subscription.close()

    @property
    def other_count(self) -> int:
        """Other instances that are heard."""
        return len(self._heard)

    def _crashed(self, name: str) -> None:
        if name in ("news", "alive"):
            self.failed.set()

    # ── from our machines ────────────────────────────────────────────────────────────────────────────────

    def carry_out(self, command: LinkCommand) -> None:
        """One command of the PeerServer."""
        match command:
            case Claim():
                self._tasks.start(self._claim(command), name="claim")
            case Forward():
                self._forward(command)
            case Registered() | Unregistered():
                self._queue(command)
            case _:
                assert_never(command)

    def tell(self, news: News) -> None:
        """One piece of news of the tracker."""
        self._queue(news)

    def _queue(self, item: Registered | Unregistered | News) -> None:
        try:
            self._work.put_nowait(item)
        except asyncio.QueueFull:
            self.refused[Cause.BUSY.value] += 1

    async def _claim(self, claim: Claim) -> None:
        taken = False
        try:
            call = ClaimPeer(claim.peer_id, claim.digest)
            reply = await self._bus.request(rendezvous_peer(claim.peer_id), call, PeerClaimed, CLAIM_TIMEOUT_S)
            taken = reply.answer == ClaimAnswer.TAKEN.value
        except NoResponders:
            pass  # nobody has it
        except BusError as error:
            # Nobody can say: who comes is served. Should another have it, the news of both settles it.
            self.refused[error.cause.value] += 1
        self._peers.claimed(claim.socket, taken, self._clock())
        self._flush()

    def _forward(self, forward: Forward) -> None:
        """Messages to one target leave one after another, so that candidates do not overtake their offer."""
        lane = self._lanes.get(forward.target)
        if lane is None and len(self._lanes) < MAX_LANES:
            lane = self._lanes[forward.target] = deque()
            self._tasks.start(self._run_lane(forward.target, lane), name="lane")
        if lane is None or len(lane) >= MAX_LANE_MESSAGES:
            self.refused[Cause.BUSY.value] += 1
            self._peers.not_forwarded(forward, Cause.BUSY, self._clock())
            # We may be within the machine's own flush, which goes on to what this added.
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            lane.append(forward)

    async def _run_lane(self, target: str, lane: deque[Forward]) -> None:
        try:
            while lane:
                forward = lane.popleft()
                cause = await self._send(forward)
                if cause is not None:
                    self._peers.not_forwarded(forward, cause, self._clock())
                    self._flush()
        finally:
            del self._lanes[target]

    async def _send(self, forward: Forward) -> Cause | None:
        call = RelayText(forward.target, forward.source, forward.type, forward.text)
        try:
            await self._bus.request(rendezvous_peer(forward.target), call, Done, RELAY_TIMEOUT_S)
        except RemoteFailure as error:
            return error.cause
        except BusError:
            # No responders: nobody has it. Without a bus nobody can be asked, which comes to the same.
            return Cause.PEER_UNKNOWN
        return None

    async def _keep_saying(self) -> None:
        while True:
            item = await self._work.get()
            try:
                await self._say(item)
            except BusError as error:
                self.refused[error.cause.value] += 1  # `_say_all` makes up for it

    async def _say(self, item: Registered | Unregistered | News) -> None:
        me, bus = self._bus.instance, self._bus
        match item:
            case Registered(peer_id, digest):
                await self._listen(rendezvous_peer(peer_id))
                await bus.publish(RENDEZVOUS_NEWS, PeersRegistered(me, [(peer_id, digest)]))
            case Unregistered(peer_id):
                if not self._peers.has(peer_id):  # it may have come back meanwhile
                    await self._stop_listening(rendezvous_peer(peer_id))
            case SwarmOpened(info_hash):
                await self._listen_to_swarm(info_hash)
                await bus.publish(rendezvous_swarm(info_hash), SwarmWanted(me, info_hash))
            case SwarmClosed(info_hash):
                if not self._tracker.own_members(info_hash):
                    await self._stop_listening(rendezvous_swarm(info_hash))
            case MemberJoined(info_hash, peer_id, seed):
                await bus.publish(rendezvous_swarm(info_hash), SwarmMembers(me, info_hash, [(peer_id, seed)]))
            case MemberLeft(info_hash, peer_id):
                await bus.publish(rendezvous_swarm(info_hash), SwarmLeft(me, info_hash, peer_id))
            case ToRemote(number, target, response):
                instance = next((name for name, known in self._numbers.items() if known == number), None)
                if instance is not None:
                    relay = TrackerRelay(me, target, encode_response(response))
                    await bus.publish(rendezvous_instance(instance), relay)
            case _:
                assert_never(item)

    async def _listen(self, subject: str) -> None:
        if subject not in self._interest:
            self._interest[subject] = await self._bus.serve(subject, PeerCall, self._called)

    async def _listen_to_swarm(self, info_hash: bytes) -> None:
        subject = rendezvous_swarm(info_hash)
        if subject not in self._interest:
            self._interest[subject] = await self._bus.serve(subject, SwarmNews, self._hear_of_swarm)

    async def _stop_listening(self, subject: str) -> None:
        subscription = self._interest.pop(subject, None)
        if subscription is not None:
            await subscription.close()

    # ── from the others ──────────────────────────────────────────────────────────────────────────────────

    async def _called(self, call: ClaimPeer | RelayText, incoming: Incoming) -> PeerClaimed | Done:
        if isinstance(call, ClaimPeer):
            answer = self._peers.claimed_elsewhere(call.peer_id, call.digest)
            self._flush()
            return PeerClaimed(answer.value)
        cause = self._peers.receive_forwarded(call.target, call.source, call.kind, call.text, self._clock())
        self._flush()
        if cause is not None:
            raise SwarmbridgeError(cause)
        return Done()

    async def _hear(self, news: PeersRegistered | InstanceAlive, incoming: Incoming) -> None:
        if news.instance == self._bus.instance:
            return
        match news:
            case PeersRegistered(instance, peers):
                self._heard[instance] = self._clock()
                for peer_id, digest in peers:
                    # The lesser name keeps an id that both registered in the same moment.
                    they_keep = instance < self._bus.instance
                    self._peers.registered_elsewhere(peer_id, digest, they_keep=they_keep)
            case InstanceAlive(instance, leaving):
                if leaving:
                    self._lose(instance)
                else:
                    self._heard[instance] = self._clock()
            case _:
                assert_never(news)
        self._flush()

    async def _hear_of_swarm(self, news: SwarmWanted | SwarmMembers | SwarmLeft, incoming: Incoming) -> None:
        if news.instance == self._bus.instance:
            return
        number, now = self._number(news.instance), self._clock()
        match news:
            case SwarmWanted(_, info_hash):
                await self._say_members(info_hash)
            case SwarmMembers(_, info_hash, members):
                for peer_id, seed in members:
                    self._tracker.remote_joined(number, info_hash, peer_id, seed, now)
            case SwarmLeft(_, info_hash, peer_id):
                self._tracker.remote_left(number, info_hash, peer_id)
            case _:
                assert_never(news)
        self._flush()

    async def _relayed(self, relay: TrackerRelay, incoming: Incoming) -> None:
        number, now = self._number(relay.instance), self._clock()
        try:
            response = decode_response(relay.text)
        except RemoteProtocolError as error:
            self.refused[error.cause.value] += 1
            return
        match response:
            case OfferRelayed():
                self._tracker.remote_offer(number, relay.target, response, now)
            case AnswerRelayed():
                self._tracker.remote_answer(number, relay.target, response, now)
            case AnnounceReply() | ScrapeReply() | Failure():
                self.refused[Cause.INVALID.value] += 1  # a tracker answers those itself: no instance relays one
            case _:
                assert_never(response)
        self._flush()

    async def _say_members(self, info_hash: bytes) -> None:
        members = [(each.peer_id, each.seed) for each in self._tracker.own_members(info_hash)]
        for start in range(0, len(members), BATCH):
            news = SwarmMembers(self._bus.instance, info_hash, members[start : start + BATCH])
            with contextlib.suppress(BusError):
                await self._bus.publish(rendezvous_swarm(info_hash), news)

    # ── life and death of instances ──────────────────────────────────────────────────────────────────────

    def _number(self, instance: str) -> int:
        """Another instance, just heard of, as the tracker knows it: a negative socket."""
        # Whatever it says counts as a beat: one that is killed before its first must be missed too.
        self._heard[instance] = self._clock()
        return self._numbers.setdefault(instance, -1 - len(self._numbers))

    def _lose(self, instance: str) -> None:
        self._heard.pop(instance, None)
        if instance in self._numbers:
            self._tracker.close_socket(self._numbers[instance])

    async def _beat(self) -> None:
        while True:
            now = self._clock()
            for instance in [name for name, heard in self._heard.items() if heard + LOST_AFTER_S < now]:
                self._lose(instance)
            with contextlib.suppress(BusError):
                await self._bus.publish(RENDEZVOUS_NEWS, InstanceAlive(self._bus.instance))
            self._flush()
            await asyncio.sleep(ALIVE_EVERY_S)

    def _say_all(self) -> None:
        """After a reconnect: what the others did not hear meanwhile."""
        self._tasks.start(self._repeat(), name="repeat")

    async def _repeat(self) -> None:
        peers = [(each.peer_id, each.digest) for each in self._peers.registrations()]
        try:
            for peer_id, _ in peers:
                await self._listen(rendezvous_peer(peer_id))
            for start in range(0, len(peers), BATCH):
                news = PeersRegistered(self._bus.instance, peers[start : start + BATCH])
                await self._bus.publish(RENDEZVOUS_NEWS, news)
            for info_hash in self._tracker.own_swarms():
                await self._listen_to_swarm(info_hash)
                await self._bus.publish(rendezvous_swarm(info_hash), SwarmWanted(self._bus.instance, info_hash))
                await self._say_members(info_hash)
        except BusError:
            log.info("the bus went away again; what is here is said after the next reconnect")
