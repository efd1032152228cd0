"""Two complete nodes on this machine that trust each other, on one nats-server and with one rendezvous.

Everything is in one directory and in our own child processes. Nothing but loopback is ever listened on or dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.home_secrets import ensure_identity
from services.supervisor.machine.nats_process import start_nats
from services.supervisor.machine.node import SERVICES, Node, NodePlan, lay_out
from services.supervisor.machine.ports import free_port, usable_host
from services.supervisor.machine.processes import Children
from services.supervisor.machine.rendezvous_process import start_rendezvous, write_document
from services.supervisor.nursery.client import Nursery
from services.supervisor.nursery.start import start_nursery
from shared.bus.messages.conversations import ADMIN
from shared.bus.nats.users import make_users
from shared.ids import PeerToken
from shared.settings.config import (
    BroadcastSettings,
    Config,
    NodeSettings,
    RendezvousSettings,
    TelemetrySettings,
    TrustSettings,
    WebrtcSettings,
    WebtorrentSettings,
)

NAMES = ("a", "b")
LOOPBACK = "127.0.0.1"
NODE_HOSTS = {"a": "127.0.0.2", "b": "127.0.0.3"}
"""libtorrent takes no two DHT nodes at one address for honest (docs/webtorrent.md)."""


class Pair:
    """Nodes A and B. `start`, then always `clear`, also where `start` raised or was cancelled.

    counts: processes a service on each node, one where none is said. otlp_endpoint: where spans go as well.
    environment: production, or development, in which chaos flags act. broadcast: of both nodes, such as whose pages
    may come. nursery: that is loading already, ours
    from here on; without one, `start` starts one, or with fork=False everything is executed.
    """

    def __init__(
        self,
        work: Path,
        counts: Mapping[str, int] | None = None,
        otlp_endpoint: str = "",
        *,
        environment: str = "production",
        broadcast: BroadcastSettings | None = None,
        nursery: Nursery | None = None,
        fork: bool = True,
    ) -> None:
        self._work = work
        self._environment = environment
        self._broadcast = broadcast or BroadcastSettings()
        self._telemetry = TelemetrySettings(propagation="join", otlp_endpoint=otlp_endpoint)
        self._counts = dict(counts or {})
        self._fork = fork and nursery is None
        self._children = Children(nursery)
        self._nodes: list[Node] = []

    @property
    def a(self) -> Node:
        return self._nodes[0]

    @property
    def b(self) -> Node:
        return self._nodes[1]

    @property
    def admin(self) -> dict[str, tuple[str, Path]]:
        """For whoever watches: each node's NATS URL and the seed file of its admin, who hears everything."""
        return {node.name: (node.plan.nats_url, node.plan.seeds[ADMIN].node) for node in self._nodes}

    def process_counts(self) -> dict[str, int]:
        """How many processes of each kind there are."""
        names = (child.program.name.rpartition("/")[2] for child in self._children)
        return dict(Counter(name.partition("-")[0] if name != "nats-server" else name for name in names))

    async def start(self, binary: Path | None, nats_url: str = "") -> None:
        """Start everything and wait until both nodes are ready. Raises: CannotStart.

        nats_url: of your own server, where no binary is given.
        """
        if self._fork:
            self._children.use(start_nursery())
        homes = {name: self._work / f"node-{name}" for name in NAMES}
        members = {name: ensure_identity(home) for name, home in homes.items()}
        users = make_users(self._work / "seeds", dict.fromkeys(NAMES, SERVICES))
        base = Config(
            node=NodeSettings(environment=self._environment), telemetry=self._telemetry, broadcast=self._broadcast
        )
        if binary is not None:
            nats = await start_nats(
                self._children,
                binary=binary,
                run_dir=self._work / "nats",
                store_dir=self._work / "nats" / "store",
                log_file=self._work / "logs" / "nats-server.log",
                accounts=users.accounts,
            )
            nats_url = nats.url
        dht = {name: (_host(name), free_port("webtorrent", _host(name), socket.SOCK_DGRAM)) for name in NAMES}
        document_file = await self._meeting_place(base, dht)
        for name in NAMES:
            config = _node_config(base, name, homes[name], members, document_file, dht[name])
            plan = NodePlan(config, nats_url, users.of_node(name) if binary else {}, self._counts)
            self._nodes.append(Node(plan, self._children))
        for node in self._nodes:
            await node.start()
        ready = [asyncio.create_task(node.ready()) for node in self._nodes]
        try:
            await asyncio.gather(*ready)
        finally:
            for task in ready:
                task.cancel()

    async def clear(self, *, keep: bool = False) -> None:
        """End every process, then remove the directory unless `keep`."""
        try:
            await asyncio.gather(*(node.stop() for node in self._nodes))
            await self._clear_own_server()
        finally:
            await self._children.close()
            if not keep:
                await asyncio.to_thread(shutil.rmtree, self._work, ignore_errors=True)

    async def _clear_own_server(self) -> None:
        """On somebody's own server nothing of ours stays; one that is gone has nothing to clear."""
        for plan in (node.plan for node in self._nodes if node.plan.scope):
            with contextlib.suppress(CannotStart):
                ca_file = plan.config.bus.ca_file
                await lay_out(plan.config.node.id, plan.nats_url, {}, scope=plan.scope, ca_file=ca_file, remove=True)

    async def _meeting_place(self, base: Config, dht: Mapping[str, tuple[str, int]]) -> Path:
        """Start the rendezvous and write its document. Returns: the document's path."""
        rendezvous = await start_rendezvous(
            self._children,
            settings=base.rendezvous,
            log_level=base.telemetry.log_level,
            home=self._work / "rendezvous",
            log_file=self._work / "logs" / "rendezvous.log",
        )
        document_file = self._work / "rendezvous.json"
        write_document(document_file, rendezvous.document([f"{host}:{port}" for host, port in dht.values()]))
        return document_file


def _node_config(
    base: Config,
    name: str,
    home: Path,
    members: Mapping[str, PeerToken],
    document_file: Path,
    dht: tuple[str, int],
) -> Config:
    host, dht_port = dht
    return msgspec.structs.replace(
        base,
        node=msgspec.structs.replace(base.node, id=name, home=str(home)),
        trust=TrustSettings(members=[token for other, token in members.items() if other != name]),
        rendezvous=RendezvousSettings(document=str(document_file)),
        webrtc=WebrtcSettings(host=LOOPBACK),
        webtorrent=WebtorrentSettings(host=host, dht_port=dht_port),
    )


def _host(name: str) -> str:
    return NODE_HOSTS[name] if usable_host(NODE_HOSTS[name]) else LOOPBACK
