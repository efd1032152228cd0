"""`up`: one node on this machine until Ctrl-C.

Without `--nats-url` it has a nats-server of its own, with an account for the node and one called `mesh`; with
it, the server is used as it is: one node a server, JetStream on, no accounts made, no seeds but the one that
`bus.seed_file` names. Without `--rendezvous` it has a rendezvous of its own, whose document it leaves in `run/`
for other nodes of this machine.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.supervisor.machine.home_lock import locked_home
from services.supervisor.machine.interrupts import unbroken
from services.supervisor.machine.nats_process import find_binary, start_nats
from services.supervisor.machine.node import SERVICES, Node, NodePlan, run_dir
from services.supervisor.machine.ports import check_port, free_port, port_is_free
from services.supervisor.machine.processes import Children
from services.supervisor.machine.remembered import recall, remember
from services.supervisor.machine.rendezvous_process import start_rendezvous, write_document
from services.supervisor.nursery.client import Nursery
from shared.bus.nats.users import Seeds, make_users
from shared.settings.config import Config, checked

DOCUMENT_NAME = "rendezvous.json"


@dataclass(frozen=True)
class UpOptions:
    """What the command line says over the settings; empty leaves the settings.

    members: to trust from now on, in later runs too. forgotten: no more.
    """

    home: Path | None = None
    name: str = ""
    port: int | None = None
    nats_url: str = ""
    nats_binary: str = ""
    rendezvous: Path | None = None
    members: Sequence[str] = ()
    forgotten: Sequence[str] = ()
    json: bool = False


class Whereabouts(msgspec.Struct, frozen=True, rename="camel"):
    """Where a running node is. page holds the operator's token: it opens everything."""

    page: str
    url: str
    node: str
    peer: str
    home: str
    rendezvous: str


async def up(config: Config, options: UpOptions, nursery: Nursery | None = None) -> None:
    """Run the node until cancelled; nursery: as for `Children`.

    Raises: CannotStart; CancelledError after everything is cleaned up.
    """
    children = Children(nursery)
    try:
        config = with_options(config, options)
        with locked_home(config.home):
            machine = Machine(config, options, children)
            machine.prepare()
            try:
                where = await machine.start()
                print(
                    msgspec.json.encode(where).decode() if options.json else whereabouts_text(where, machine.config),
                    flush=True,
                )
                await asyncio.Event().wait()
            finally:
                await unbroken(machine.clear())
    finally:
        await unbroken(children.close())  # the nursery too, where nothing was started


class Machine:
    """The node and what is below it on this machine."""

    def __init__(self, config: Config, options: UpOptions, children: Children) -> None:
        self.config = config
        self._options = options
        self._children = children
        self._run_dir = run_dir(config.home)
        self._node: Node | None = None

    def prepare(self) -> None:
        """Find out what keeps it from starting, and what earlier runs in this home were given. Raises: CannotStart."""
        config, options, home = self.config, self._options, self.config.home
        gateway = config.gateway
        check_port("gateway", gateway.host, gateway.port, "--port")
        old = recall(home)
        now = old.with_members(options.members, options.forgotten)
        if not gateway.port:
            last = old.gateway_port if options.port is None else 0
            port = last if last and port_is_free(gateway.host, last) else free_port("gateway", gateway.host)
            gateway = msgspec.structs.replace(gateway, port=port)
            now = msgspec.structs.replace(now, gateway_port=port)
        remember(home, now)
        members = list(dict.fromkeys([*config.trust.members, *now.members]))
        trust = msgspec.structs.replace(config.trust, members=members)
        self.config = checked(msgspec.structs.replace(config, gateway=gateway, trust=trust))

    async def start(self) -> Whereabouts:
        shutil.rmtree(self._run_dir, ignore_errors=True)  # of a run that was killed
        self._run_dir.mkdir(mode=0o700, parents=True)
        nats_url, seeds = await self._bus()
        config = await self._with_rendezvous(self._pinned(self.config))
        self._node = Node(NodePlan(config, nats_url, seeds), self._children)
        await self._node.start()
        await self._node.ready()
        api = self._node.api
        node = await api.node()
        token = self._node.token()
        return Whereabouts(
            page=f"{api.url}/#token={token}",
            url=api.url,
            node=node.node,
            peer=node.peer,
            home=str(config.home),
            rendezvous=config.rendezvous.document,
        )

    async def clear(self) -> None:
        """End every process, the bus last, and remove what belonged to this run."""
        if self._node is not None:
            await self._node.stop()
        await self._children.close()
        shutil.rmtree(self._run_dir, ignore_errors=True)

    async def _bus(self) -> tuple[str, dict[str, Seeds]]:
        """Returns: the server's URL and the seeds of the node's services, none where the server is not ours."""
        if self.config.bus.url:
            return self.config.bus.url, {}
        users = make_users(self._run_dir / "seeds", {self.config.node.id: SERVICES})
        nats = await start_nats(
            self._children,
            binary=find_binary(self._options.nats_binary),
            run_dir=self._run_dir / "nats",
            store_dir=self.config.home / "nats",
            log_file=self.config.home / "logs" / "nats-server.log",
            accounts=users.accounts,
        )
        return nats.url, users.of_node(self.config.node.id)

    def _pinned(self, config: Config) -> Config:
        """A fixed port where any would do: the document names it, and a worker that restarts comes back to it."""
        webtorrent = config.webtorrent
        if webtorrent.dht and not webtorrent.dht_port:
            port = free_port("webtorrent", webtorrent.host, socket.SOCK_DGRAM)
            webtorrent = msgspec.structs.replace(webtorrent, dht_port=port)
        return msgspec.structs.replace(config, webtorrent=webtorrent)

    async def _with_rendezvous(self, config: Config) -> Config:
        """Start our own where no document was given, and write its document."""
        if config.rendezvous.document:
            return config
        rendezvous = await start_rendezvous(
            self._children,
            settings=config.rendezvous,
            log_level=config.telemetry.log_level,
            home=self._run_dir / "rendezvous",
            log_file=config.home / "logs" / "rendezvous.log",
        )
        torrent = config.webtorrent
        dht_nodes = [f"{torrent.advertise or torrent.host}:{torrent.dht_port}"] if torrent.dht else []
        document_file = self._run_dir / DOCUMENT_NAME
        write_document(document_file, rendezvous.document(dht_nodes))
        settings = msgspec.structs.replace(config.rendezvous, document=str(document_file))
        return msgspec.structs.replace(config, rendezvous=settings)


def with_options(config: Config, options: UpOptions) -> Config:
    """The settings with the command line over them. Raises: ConfigError."""
    replace = msgspec.structs.replace
    home = str((options.home or config.home).expanduser().absolute())
    node = replace(config.node, home=home, id=options.name or config.node.id)
    gateway = config.gateway if options.port is None else replace(config.gateway, port=options.port)
    bus = replace(config.bus, url=options.nats_url or config.bus.url)
    rendezvous = config.rendezvous
    if options.rendezvous is not None:
        rendezvous = replace(rendezvous, document=str(options.rendezvous))
    return checked(replace(config, node=node, gateway=gateway, bus=bus, rendezvous=rendezvous))


def whereabouts_text(where: Whereabouts, config: Config) -> str:
    """What a person needs to know, as lines."""
    joining = ["--rendezvous", shlex.quote(where.rendezvous), "--member", where.peer]
    if config.bus.url:
        joining = ["--nats-url", shlex.quote(config.bus.url), *joining]
    lines = [
        f"node {where.node} is up",
        f"  page:   {where.page}",
        f"  home:   {where.home}",
        f"  peer:   {where.peer}",
        "another node on this machine joins it with:",
        f"  swarmbridge up --home OTHER_HOME --name OTHER_NAME {' '.join(joining)}",
    ]
    if not config.trust.members:
        lines.append("this node trusts nobody yet: shared content only; trust another with --member ITS_PEER_TOKEN")
    return "\n".join([*lines, "Ctrl-C ends it"])
