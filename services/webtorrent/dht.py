"""The DHT through libtorrent: announces our wire's TCP port for the control infohash and looks for others'.

libtorrent runs a thread of its own and wakes us through a socket when it has alerts. It moves no content here:
the control infohash is announced, never added as a torrent, and its own TCP and uTP are off (docs/webtorrent.md).

Joined = our routing table has a live node, and the bootstrap or a lookup of ours came back: the bootstrap alert
alone is no proof (docs/webtorrent.md). Announcing does not wait for that: the lookup that goes before an announce is
what
brings a late bootstrap node into the table.

An announce that reaches *us* as a DHT node tells where a peer is as well as a lookup does, and in a DHT of two
it is the only way: neither holds its own announce.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

from services.webtorrent.endpoints import Endpoint, endpoint
from shared.clock import Clock
from shared.errors import Cause, TransportError

ANNOUNCE_INTERVAL_S = 240.0
"""DHT nodes drop an announce after half an hour (BEP 5); a token lives 5-10 min."""
LOOKUP_INTERVAL_S = 60.0
EAGER_FIRST_S = 0.25
EAGER_CAP_S = 15.0
"""Between announces while we are alone in the swarm or not joined: doubling from the first to the last."""
MIN_SEARCH_S = 1.0
"""Between lookups, however often somebody asks for one."""
STATS_INTERVAL_S = 1.0
MAX_NODES = 32
"""Bootstrap nodes of a rendezvous document that are used."""

# libtorrent's own limits are made for the public network, where one address is one node (docs/webtorrent.md).
LOOPBACK_SETTINGS: dict[str, Any] = {
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_upload_rate_limit": 1_000_000,
    "dht_block_ratelimit": 10_000,
}

log = logging.getLogger(__name__)


class Dht:
    """One libtorrent session, for its DHT only.

    Args:         host, port: UDP address, port 0 = any. loopback: LOOPBACK_SETTINGS are wanted.
                  found: endpoints of one answer. alone: whether we have no link yet. changed: state may be another.
    Cancellation: `run` stops the session and its thread before it ends.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        loopback: bool,
        infohash: bytes,
        wire_port: int,
        found: Callable[[Iterable[Endpoint]], None],
        alone: Callable[[], bool],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.import_failed = False
        self.node_count = 0
        self.join_s: float | None = None
        """Seconds from start to joined; None until then."""
        self._interface = f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"  # noqa: S104
        self._loopback = loopback
        self._infohash_bytes = infohash
        self._wire_port = wire_port
        self._nodes: list[Endpoint] = []
        self._found, self._alone, self._changed = found, alone, changed
        self._clock = clock
        self.on_item: Callable[[bytes, bytes], None] = lambda public, value: None
        """Called with every mutable item that comes back: its key, 32 bytes, and its value."""
        self._answered = False
        self._session: Any = None
        self._infohash: Any = None
        self._wake = asyncio.Event()
        self._search_wanted = False
        self._eager_s = EAGER_FIRST_S
        self._started_at = self._searched_at = self._announced_at = float("-inf")

    @property
    def joined(self) -> bool:
        return self.node_count > 0 and self._answered

    def use_node(self, node: Endpoint) -> None:
        """A node of the rendezvous document that answers."""
        if node in self._nodes:
            return
        # The one that answered last first.
        self._nodes = [node, *self._nodes][:MAX_NODES]
        self._eager_s = EAGER_FIRST_S
        if self._session is not None:
            self._session.add_dht_node((node.host, node.port))
        self._wake.set()

    def search(self) -> None:
        """Look for peers soon; no more often than every MIN_SEARCH_S."""
        self._search_wanted = True
        self._wake.set()

    def get_item(self, public: bytes) -> None:
        """Look for a mutable item (BEP 44); `on_item` hears of each answer that is better than the last."""
        if self._session is not None:
            self._session.dht_get_mutable_item(public, b"")

    def put_item(self, private: bytes, public: bytes, value: bytes) -> None:
        """Store a mutable item with the next sequence number. private: expanded, 64 bytes."""
        if self._session is not None:
            self._session.dht_put_mutable_item(private, public, value, b"")

    async def run(self) -> None:
        """Serve until cancelled; returns early, with `import_failed` set, where libtorrent cannot be used."""
        try:
            self._session, self._infohash = await asyncio.to_thread(self._make_session)
        except TransportError:
            self.import_failed = True
            self._changed()
            return
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        try:
            ours.setblocking(False)
            theirs.setblocking(False)
            loop.add_reader(ours, self._alerts_came, ours)
            self._session.set_alert_fd(theirs.fileno())
            self._started_at = self._clock()
            await self._keep_announced()
        finally:
            loop.remove_reader(ours)
            # Before the socket is closed: libtorrent's thread would write into whatever has that number next.
            self._session.set_alert_fd(-1)
            await self._drop_session()
            ours.close()
            theirs.close()
            self.node_count, self.join_s, self._answered = 0, None, False

    # ── the session ─────────────────────────────────────────────────────────────────────────────────────

    def _make_session(self) -> tuple[Any, Any]:
        """Blocking, in a thread. Raises: TransportError(IMPORT_FAILED)."""
        try:
            libtorrent: Any = importlib.import_module("libtorrent")
            categories = libtorrent.alert.category_t
            settings = {
                "listen_interfaces": self._interface,
                "alert_mask": categories.dht_notification
                | categories.dht_operation_notification
                | categories.stats_notification,
                "enable_dht": True,
                # None of its own: the public DHT is asked only where the rendezvous document names it.
                "dht_bootstrap_nodes": "",
                # A port that is taken is an error to be seen: on the next one nobody would look for us.
                "max_retry_port_bind": 0,
                "listen_system_port_fallback": False,
                **dict.fromkeys(("enable_lsd", "enable_upnp", "enable_natpmp"), False),
                **{f"enable_{way}_{kind}": False for way in ("incoming", "outgoing") for kind in ("tcp", "utp")},
                **(LOOPBACK_SETTINGS if self._loopback else {}),
            }
            return libtorrent.session(settings), libtorrent.sha1_hash(self._infohash_bytes)
        except Exception as error:  # a broken native library raises anything at all
            log.warning("libtorrent cannot be used: %s", type(error).__name__)
            raise TransportError(Cause.IMPORT_FAILED) from error

    async def _drop_session(self) -> None:
        # Its destructor waits for its thread; nothing else may hold it then.
        held = [self._session]
        self._session = None
        await asyncio.to_thread(held.clear)

    # ── what we ask ─────────────────────────────────────────────────────────────────────────────────────

    async def _keep_announced(self) -> None:
        while True:
            now = self._clock()
            self._session.post_session_stats()
            if now - self._announced_at >= self._announce_interval_s():
                self._announce(now)
                self._look_up(now)
            elif now - self._searched_at >= (MIN_SEARCH_S if self._search_wanted else LOOKUP_INTERVAL_S):
                self._look_up(now)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(STATS_INTERVAL_S, self._announce_interval_s())):
                    await self._wake.wait()

    def _announce_interval_s(self) -> float:
        return ANNOUNCE_INTERVAL_S if self.joined and not self._alone() else self._eager_s

    def _announce(self, now: float) -> None:
        self._announced_at = now
        settled = self.joined and not self._alone()
        self._eager_s = EAGER_FIRST_S if settled else min(EAGER_CAP_S, 2 * self._eager_s)
        for node in self._nodes[:MAX_NODES]:
            # libtorrent forgets a node that did not answer; given again it is asked again.
            if not self.joined:
                self._session.add_dht_node((node.host, node.port))
        self._session.dht_announce(self._infohash, self._wire_port, 0)

    def _look_up(self, now: float) -> None:
        self._searched_at = now
        self._search_wanted = False
        self._session.dht_get_peers(self._infohash)

    # ── what it tells ───────────────────────────────────────────────────────────────────────────────────

    def _alerts_came(self, ours: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            # It writes a byte for each batch of alerts; they are taken all at once.
            while ours.recv(4096):
                pass
        for alert in self._session.pop_alerts():
            self._alert(type(alert).__name__, alert)

    def _alert(self, kind: str, alert: Any) -> None:
        if kind == "session_stats_alert":
            self._learn_state(alert.values["dht.dht_nodes"], self._answered)
        elif kind == "dht_bootstrap_alert":
            self._learn_state(self.node_count, answered=True)
        elif kind == "dht_get_peers_reply_alert" and alert.info_hash == self._infohash:
            self._learn_state(self.node_count, answered=True)
            self._tell(alert.peers())
        elif kind == "dht_mutable_item_alert":
            self._item(alert)
        elif kind == "dht_announce_alert" and alert.info_hash == self._infohash:
            self._tell([(alert.ip, alert.port)])

    def _item(self, alert: Any) -> None:
        # A list, a number or nothing at all is what somebody else has put there, or nobody has.
        if isinstance(alert.item, bytes) and alert.item and isinstance(alert.key, bytes):
            self.on_item(alert.key, alert.item)

    def _tell(self, addresses: list[tuple[str, int]]) -> None:
        self._found(each for each in (endpoint(str(host), port) for host, port in addresses) if each is not None)

    def _learn_state(self, node_count: int, answered: bool) -> None:
        was_joined = self.joined
        self.node_count, self._answered = node_count, answered
        if self.joined == was_joined:
            return
        if self.join_s is None:
            self.join_s = self._clock() - self._started_at
        self._changed()
