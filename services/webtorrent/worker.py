"""One run of the transport: its parts made, wired and closed together.

dht, trackers, hints ── endpoints ──▶ Swarm ── DialWanted ──▶ Wires ── LinkUp … ──▶ emit
                                        ▲──── linked, unlinked ────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.webtorrent.addresses import OurAddresses
from services.webtorrent.beacon import Beacon, SignRecord
from services.webtorrent.bootstrap import Bootstrap
from services.webtorrent.channel import MAX_READ_BYTES
from services.webtorrent.channels import Channels
from services.webtorrent.dht import Dht
from services.webtorrent.endpoints import Endpoint, is_wildcard, parse_endpoint
from services.webtorrent.health import START_GRACE_S, Ways, state_of
from services.webtorrent.limits import REFUSED_ENDPOINT
from services.webtorrent.swarm import Source, Swarm, control_infohash
from services.webtorrent.trackers import TrackerContext, Trackers
from services.webtorrent.wires import Wires
from shared.bus.messages.records import MeetingPlace
from shared.clock import Clock, unix_ms
from shared.errors import Cause, TransportError
from shared.rtc import available
from shared.rtc.addresses import address_rule
from shared.rtc.contract import LinkSettings
from shared.settings.config import Config
from shared.settings.rendezvous_follower import DocumentFollower
from shared.tasks.owned import Tasks
from shared.transport.contract import Emit, PeerHint, StateChanged
from shared.transport.places import connected_place, places_of
from shared.version import VERSION

PEER_ID_PREFIX = f"-sb{VERSION.replace('.', '')[:4].ljust(4, '0')}-".encode()
"""BEP 20's form: client sb and four digits of the version. In capitals it would be Swiftbit's."""
PEER_ID_RANDOM_BYTES = 12


@dataclass(frozen=True, slots=True)
class Membership:
    """What a node's record in the DHT needs: the mesh secret, 32 bytes, its own identity key, and who signs with it."""

    mesh_secret: bytes
    identity: bytes
    sign: SignRecord


@dataclass(frozen=True, slots=True)
class SwarmMetrics:
    """dht_join_s: None = not joined. known: endpoints by who named them. tracker_swarm_size: the largest reported."""

    links: int
    dht_nodes: int
    dht_join_s: float | None
    known: dict[str, int]
    trackers_up: int
    tracker_swarm_size: int


class Worker:
    """See the module. Each has a wire peer_id of its own: the seal is bound to it (docs/seal.md).

    Cancellation: `run` closes every link (a LinkDown each), socket and thread before it ends.
    """

    def __init__(
        self,
        config: Config,
        addresses: OurAddresses,
        emit: Emit,
        refused: Counter[str],
        clock: Clock,
        membership: Membership | None = None,
    ) -> None:
        """membership: what makes the node's record in the DHT; None = there is none."""
        self._membership = membership
        self._settings = config.webtorrent
        self._addresses = addresses
        self._emit = emit
        self._refused = refused
        self._clock = clock
        self._infohash = control_infohash(config.webtorrent.room)
        self._peer_id = PEER_ID_PREFIX + os.urandom(PEER_ID_RANDOM_BYTES)
        self._started_at = clock()
        self._dial_wake, self._state_wake = asyncio.Event(), asyncio.Event()
        self._tasks = Tasks()
        self._rule = address_rule(addresses.host, ())
        self._swarm = Swarm(self._rule.allows, clock())
        self._document = DocumentFollower(config.rendezvous.document)
        self._dht: Dht | None = None
        self._bootstrap: Bootstrap | None = None
        self._beacon: Beacon | None = None
        self._trackers: Trackers | None = None
        self.wires = Wires(self._infohash, self._peer_id, self._swarm, emit, refused, clock)
        self.wires.on_change = self._wires_changed
        self._time_to_peer_s: float | None = None
        self._looking_since: float | None = clock()
        self._channels = Channels(self._link_settings, self.wires, refused, self._changed, clock, available.load)

    async def run(self) -> None:
        """Serve until cancelled. Raises: TransportError(REFUSED): the wire's address is taken or not ours."""
        try:
            await self._listen()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._dial_due(), name="dials")
                group.create_task(self._report_state(), name="state")
                group.create_task(self._document.run(self._document_changed), name="document")
                if self._dht is not None:
                    group.create_task(self._dht.run(), name="dht")
                if self._beacon is not None:
                    group.create_task(self._beacon.run(), name="beacon")
                if self._bootstrap is not None:
                    group.create_task(self._bootstrap.run(), name="bootstrap")
                if self._trackers is not None:
                    group.create_task(self._trackers.run(), name="trackers")
                    group.create_task(self._channels.run(), name="channels")
        finally:
            await self._tasks.close()
            await self.wires.close()
            await self._channels.finish()

    def search(self, hint: PeerHint) -> None:
        """Look for one peer: its own endpoints, the DHT, the trackers, whoever we know.

        Raises: TransportError(SIGNALLING_UNAVAILABLE): none of them can lead anywhere now.
        """
        now = self._clock()
        endpoints = [each for each in map(parse_endpoint, hint.endpoints) if each is not None]
        self._count_refused(len(hint.endpoints) - len(endpoints) + self._swarm.hint(endpoints, hint.key, now))
        if self._beacon is not None and hint.key:
            self._beacon.look_up(hint.key)
        if self._looking_since is None and not self.wires.link_count:
            self._looking_since = now
        self._swarm.hurry(now)
        for way in (self._dht, self._trackers):
            if way is not None:
                way.search()
        self._dial_wake.set()
        ways = self._ways()
        hopeless = not (ways.dht_joined or ways.trackers_up or self._swarm.may_lead_somewhere)
        if hopeless and ways.age_s >= START_GRACE_S:
            raise TransportError(Cause.SIGNALLING_UNAVAILABLE)

    def metrics(self) -> SwarmMetrics:
        dht, trackers = self._dht, self._trackers
        return SwarmMetrics(
            links=self.wires.link_count,
            dht_nodes=dht.node_count if dht else 0,
            dht_join_s=dht.join_s if dht else None,
            known=self._swarm.size_by_source(),
            trackers_up=trackers.up_count if trackers else 0,
            tracker_swarm_size=trackers.swarm_size if trackers else 0,
        )

    def measures(self) -> dict[str, float]:
        """The same for the bus: one flat table of numbers."""
        dht, trackers, wires = self._dht, self._trackers, self.wires
        found: dict[str, float | None] = {
            "dht_nodes": dht.node_count if dht is not None else None,
            "dht_join_s": dht.join_s if dht is not None else None,
            "tracker_round_trip_s": trackers.round_trip_s if trackers is not None else None,
            "time_to_peer_s": self._time_to_peer_s,
            "swarm_size_tracker": trackers.swarm_size if trackers is not None else None,
            **{f"swarm_size_{source}": count for source, count in self._swarm.size_by_source().items()},
            "offers_made": self._channels.offers_made,
            "offers_answered": self._channels.offers_answered,
            **wires.counts(),
        }
        return {name: float(number) for name, number in found.items() if number is not None}

    def meeting_places(self) -> list[MeetingPlace]:
        """The trackers with their sockets, and the DHT's bootstrap nodes."""
        document, faults, now = self._document.current, self._document.faults, self._clock()
        clients = self._trackers.states() if self._trackers is not None else {}
        trackers = places_of(
            "webtorrentTrackers",
            document.webtorrent_trackers,
            faults,
            lambda url, index: connected_place("webtorrentTrackers", index, clients.get(url), now, unix_ms()),
        )
        asked = self._bootstrap
        nodes = places_of(
            "dhtNodes",
            document.dht_nodes,
            faults,
            lambda text, index: connected_place(
                "dhtNodes", index, asked.state(text) if asked is not None else None, now, unix_ms()
            ),
        )
        return [*trackers, *nodes]

    # ── start ───────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        await self.wires.listen(self._addresses.host, self._settings.port)
        for own in self._addresses.own(self.wires.port):
            self._swarm.mark_own(own, self._clock())
        if self._settings.dht:
            self._dht = self._make_dht()
            self._bootstrap = Bootstrap(
                self._addresses.host,
                self._document.current.dht_nodes,
                self._dht.use_node,
                self._changed,
                self._clock,
            )
        if self._dht is not None and self._membership is not None:
            self._beacon = Beacon(
                self._membership.mesh_secret,
                self._membership.identity,
                self._dht,
                self._membership.sign,
                lambda: self._addresses.advertised(self.wires.port, ""),
                self._found_by_record,
                self._refused,
                self._clock,
            )
        if self._settings.trackers:
            self._trackers = Trackers(self._tracker_context(), self._document.current.webtorrent_trackers)

    def _make_dht(self) -> Dht:
        return Dht(
            host=self._addresses.host,
            port=self._settings.dht_port,
            loopback=self._rule.loopback,
            infohash=self._infohash,
            wire_port=self.wires.port,
            found=self._found_by_dht,
            alone=self._is_alone,
            changed=self._changed,
            clock=self._clock,
        )

    def _tracker_context(self) -> TrackerContext:
        return TrackerContext(
            infohash=self._infohash,
            peer_id=self._peer_id,
            channels=self._channels,
            wires=self.wires,
            wire=lambda local_address: self._addresses.advertised(self.wires.port, local_address),
            found=self._found_by_tracker,
            alone=self._is_alone,
            changed=self._changed,
            refused=self._refused,
            clock=self._clock,
        )

    def _link_settings(self) -> LinkSettings:
        # Where the wire listens, channels gather: on all addresses where it listens on all.
        host = "" if is_wildcard(self._addresses.host) else self._addresses.host
        servers = tuple(self._document.current.ice_servers)
        return LinkSettings(host, servers, MAX_READ_BYTES, self._addresses.advertise)

    def _is_alone(self) -> bool:
        return self.wires.link_count == 0

    def _document_changed(self) -> None:
        document = self._document.current
        if self._bootstrap is not None:
            self._bootstrap.set_nodes(document.dht_nodes)
        if self._trackers is not None:
            self._trackers.set_urls(document.webtorrent_trackers)
        self._changed()

    # ── discovery and dialling ──────────────────────────────────────────────────────────────────────────

    def _found_by_dht(self, endpoints: Iterable[Endpoint]) -> None:
        self._count_refused(self._swarm.learn(endpoints, Source.DHT, self._clock()))
        self._dial_wake.set()

    def _found_by_record(self, texts: Sequence[str], key: bytes) -> None:
        endpoints = [each for each in map(parse_endpoint, texts) if each is not None]
        self._count_refused(len(texts) - len(endpoints) + self._swarm.hint(endpoints, key, self._clock()))
        self._dial_wake.set()

    def _found_by_tracker(self, endpoints: Sequence[Endpoint], malformed: int, wait_s: float) -> None:
        refused = self._swarm.learn(endpoints, Source.TRACKER, self._clock(), wait_s)
        self._count_refused(malformed + refused)
        self._dial_wake.set()

    def _count_refused(self, count: int) -> None:
        if count:
            self._refused[REFUSED_ENDPOINT] += count

    async def _dial_due(self) -> None:
        while True:
            self._dial_wake.clear()
            for wanted in self._swarm.due(self._clock(), self.wires.dial_room):
                self._tasks.start(self.wires.dial(wanted), name="dial")
            now = self._clock()
            # Where there is no room a wire that opens or ends wakes us.
            deadline = self._swarm.next_deadline(now, self.wires.dial_room)
            await _wait(self._dial_wake, None if deadline is None else deadline - now)

    # ── state ───────────────────────────────────────────────────────────────────────────────────────────

    def _changed(self) -> None:
        if self._beacon is not None:
            self._beacon.dht_changed()
        self._dial_wake.set()
        self._state_wake.set()

    def _wires_changed(self) -> None:
        if self._looking_since is not None and self.wires.link_count:
            self._time_to_peer_s = self._clock() - self._looking_since
            self._looking_since = None
        self._changed()

    def _ways(self) -> Ways:
        dht, trackers = self._dht, self._trackers
        return Ways(
            dht_joined=dht is not None and dht.joined,
            trackers_up=trackers.up_count if trackers is not None else 0,
            import_failed=self._channels.import_failed or (dht is not None and dht.import_failed),
            age_s=self._clock() - self._started_at,
            document_broken=bool(self._document.problem),
        )

    async def _report_state(self) -> None:
        reported: StateChanged | None = None
        while True:
            self._state_wake.clear()
            ways = self._ways()
            state = state_of(ways)
            if state != reported:
                reported = state
                self._emit(state)
            await _wait(self._state_wake, START_GRACE_S - ways.age_s if ways.age_s < START_GRACE_S else None)


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        # A deadline that has just passed still gives the loop a turn.
        async with asyncio.timeout(None if timeout_s is None else max(0.01, timeout_s)):
            await event.wait()
