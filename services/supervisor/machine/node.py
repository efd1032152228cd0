"""One node on this machine: its configuration file, its seeds, its processes, and when it is ready.

A node's home holds data that outlives a run (`root.key`, `store/`, `nats/`, `gateway.token`, `logs/`) and
`run/`, which does not: configuration and seeds of the running processes.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from services.supervisor.machine.errors import CannotStart, failed_to_start
from services.supervisor.machine.home_secrets import ensure_token
from services.supervisor.machine.processes import Child, Children, Program
from services.supervisor.machine.toml_text import config_toml
from shared.bus.messages.conversations import KEEPER
from shared.bus.nats.connection import ConnectionOptions, NatsConnection
from shared.bus.nats.keeper import Keeper
from shared.bus.nats.layout import ensure_layout, remove_layout
from shared.bus.nats.users import Seeds, read_seed, write_private
from shared.bus.serving import BusCounts
from shared.errors import BusError
from shared.gateway_api.address import ADDRESS_FILE
from shared.gateway_api.async_client import AsyncGatewayClient
from shared.gateway_api.errors import GatewayError
from shared.ids import new_instance_id
from shared.settings.config import ENV_CONFIG_FILE, ENV_PREFIX, Config, WebtorrentSettings, child_environment
from shared.tasks.owned import Tasks
from shared.transports import ORDER

log = logging.getLogger(__name__)

SERVICES = ("chunk", "manager", "webrtc", "webtorrent", "broadcast", "gateway")
STOP_ORDER = (("gateway", "webrtc", "webtorrent", "broadcast"), ("chunk",), ("manager",))
"""Those that others ask end after those that ask."""
ENV_SEED_FILE = "SWARMBRIDGE_BUS_SEED_FILE"
ENV_MESH_SEED_FILE = "SWARMBRIDGE_BUS_MESH_SEED_FILE"
READY_TIMEOUT_S = 60.0
"""A cold machine compiles every module on the first start; a warm one takes 5 to 8 s."""
MAX_PORT = 65_535
POLL_INTERVAL_S = 0.1
KEEPER_RESTART_S = 1.0


@dataclass(frozen=True)
class NodePlan:
    """What a node is made of. config.node.home is set. seeds: by service, empty for a server without accounts.

    counts: processes a service, one where none is said.
    """

    config: Config
    nats_url: str
    seeds: Mapping[str, Seeds] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return run_dir(self.config.home)

    @property
    def scope(self) -> str:
        """What its names on the bus carry: on a server without accounts other nodes may be beside it."""
        return "" if self.seeds else self.config.node.id


def run_dir(home: Path) -> Path:
    """Where a home keeps what belongs to one run only."""
    return home / "run"


class Node:
    """A node's processes. `start` them, `ready` waits until it serves, `stop` ends them and removes `run/`."""

    def __init__(self, plan: NodePlan, children: Children) -> None:
        self.plan = plan
        self.name = plan.config.node.id
        self._children = children
        self._processes: dict[str, list[Child]] = {}
        self._token_file: Path | None = None
        self._api: AsyncGatewayClient | None = None
        self._tasks = Tasks()

    def processes(self, service: str) -> list[Child]:
        return list(self._processes.get(service, ()))

    async def start(self) -> None:
        """Lay out the bus and start every process. Raises: CannotStart."""
        home = self.plan.config.home
        self._token_file = ensure_token(self.plan.config, home)
        config = msgspec.structs.replace(
            self.plan.config,
            bus=msgspec.structs.replace(self.plan.config.bus, url=self.plan.nats_url, scoped=self.plan.scope != ""),
            gateway=msgspec.structs.replace(self.plan.config.gateway, token_file=str(self._token_file)),
        )
        self.plan.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        config_file = self.plan.run_dir / "node.toml"
        write_private(config_file, config_toml(config).encode())
        (home / ADDRESS_FILE).unlink(missing_ok=True)  # of a run that was killed: nobody must trust it
        own_seed = read_seed("bus.seed_file", config.bus.seed_file)
        ca_file = config.bus.ca_file
        await lay_out(self.name, self.plan.nats_url, self.plan.seeds, own_seed, scope=self.plan.scope, ca_file=ca_file)
        self._tasks.start(self._keep_laid_out(), name=f"keeper of {self.name}")
        for service in SERVICES:
            for number in range(self.plan.counts.get(service, 1)):
                program = self._program(service, number + 1, config_file)
                self._processes.setdefault(service, []).append(self._children.start(program))

    @property
    def api(self) -> AsyncGatewayClient:
        """The node's HTTP API, once it is ready."""
        assert self._api is not None
        return self._api

    def token(self) -> str:
        """The operator's token."""
        assert self._token_file is not None
        return self._token_file.read_text().strip()

    async def ready(self) -> None:
        """Wait until the gateway answers and every worker has reported, degraded or not.

        Raises: CannotStart, when a process ended (with its last lines) or READY_TIMEOUT_S is over.
        """
        everything = [child for children in self._processes.values() for child in children]
        waiting = asyncio.create_task(self._answers())
        ended = asyncio.create_task(self._children.first_exit(everything))
        try:
            await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise failed_to_start(ended.result())
            waiting.result()
        finally:
            waiting.cancel()
            ended.cancel()

    async def kill(self, service: str) -> None:
        """SIGKILL every process of a service; they stay down until `revive`."""
        await asyncio.gather(*(child.kill() for child in self.processes(service)))

    def revive(self, service: str) -> None:
        """Start the processes of a service that were killed."""
        for child in self.processes(service):
            child.start()

    async def stop(self) -> None:
        """End every process and remove what belongs to this run only."""
        await self._tasks.close()
        if self._api is not None:
            await self._api.close()
        await self._children.stop([[c for name in names for c in self.processes(name)] for names in STOP_ORDER])
        (self.plan.config.home / ADDRESS_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.plan.run_dir, ignore_errors=True)

    async def _keep_laid_out(self) -> None:
        """Without it a loss of NATS's data would last until somebody starts the node again: it is never let die."""
        plan = self.plan
        while True:
            connection = keeper_connection(
                plan.nats_url,
                plan.seeds,
                read_seed("bus.seed_file", plan.config.bus.seed_file),
                plan.config.bus.ca_file,
            )
            try:
                await keep_laid_out(connection, self.name, plan.scope)
            except Exception as error:
                log.error("the keeper of node %s ended with %s and is started again", self.name, type(error).__name__)
            await asyncio.sleep(KEEPER_RESTART_S)

    def _program(self, service: str, number: int, config_file: Path) -> Program:
        """A service gets the node's settings, its own seeds and nobody else's."""
        name = service if number == 1 else f"{service}-{number}"
        settings = {
            ENV_CONFIG_FILE: str(config_file),
            **seed_settings(self.plan.seeds.get(service)),
            **(wire_ports(self.plan.config.webtorrent, number) if service == "webtorrent" else {}),
        }
        return Program(
            name=f"{self.name}/{name}",
            arguments=service_command(service),
            environment=child_environment(settings),
            module=service_module(service),
            log=self.plan.config.home / "logs" / f"{name}.log",
        )

    async def _answers(self) -> None:
        give_up_s = time.monotonic() + READY_TIMEOUT_S
        waiting_for = "its gateway"
        while time.monotonic() < give_up_s:
            if self._api is None:
                self._api = AsyncGatewayClient.of_home(self.plan.config.home, self._token_file)
            if self._api is not None:
                try:
                    await self._api.node()
                    missing = self._unreported(await self._api.worker_counts())
                    if not missing:
                        return
                    waiting_for = f"workers of {', '.join(missing)}"
                except GatewayError as error:
                    waiting_for = f"its gateway, which answers {error.code}"
            await asyncio.sleep(POLL_INTERVAL_S)
        raise CannotStart(f"node {self.name} was not ready within {READY_TIMEOUT_S:.0f} s: waited for {waiting_for}")

    def _unreported(self, workers: Mapping[str, int]) -> list[str]:
        return [name for name in ORDER if workers.get(name, 0) < self.plan.counts.get(name, 1)]


def service_module(service: str) -> str:
    """The module that is a service's process."""
    return f"services.{service}"


def service_command(service: str) -> Sequence[str]:
    """How a service is run. -P: never import from whatever directory we were started in."""
    return [sys.executable, "-P", "-m", service_module(service)]


def wire_ports(settings: WebtorrentSettings, number: int) -> dict[str, str]:
    """Ports of a node's webtorrent worker, 1 the first: each is a peer of its own, so the next takes the next port.

    Empty for the first, and for a port that is any (0). One beyond 65,535 stays what is set, and is refused as taken.
    """
    ports = {"PORT": settings.port, "DHT_PORT": settings.dht_port}
    later = {name: port + number - 1 for name, port in ports.items() if port and number > 1}
    return {f"{ENV_PREFIX}WEBTORRENT_{name}": str(port) for name, port in later.items() if port <= MAX_PORT}


def seed_settings(seeds: Seeds | None) -> dict[str, str]:
    """The settings that tell a process its own seeds; none on a server without accounts."""
    if seeds is None:
        return {}
    settings = {ENV_SEED_FILE: str(seeds.node)}
    if seeds.mesh is not None:
        settings[ENV_MESH_SEED_FILE] = str(seeds.mesh)
    return settings


async def lay_out(
    node: str,
    nats_url: str,
    seeds: Mapping[str, Seeds],
    own_seed: str | None = None,
    *,
    scope: str = "",
    ca_file: str = "",
    remove: bool = False,
) -> None:
    """Make, or remove, the node's streams and buckets, as its keeper; own_seed: of a user on your own server.

    Raises: CannotStart, with the reason in a sentence.
    """
    connection = keeper_connection(nats_url, seeds, own_seed, ca_file)
    try:
        await connection.open()
        try:
            await (remove_layout if remove else ensure_layout)(connection, node, scope)
        finally:
            await connection.close()
    except BusError as error:
        raise CannotStart(f"node {node}: the NATS server cannot be used: {error}") from error


def keeper_connection(
    nats_url: str, seeds: Mapping[str, Seeds], own_seed: str | None, ca_file: str = ""
) -> NatsConnection:
    """A connection, not opened yet, of whoever may make the node's streams."""
    seed = seeds[KEEPER].node.read_text().strip() if KEEPER in seeds else own_seed
    options = ConnectionOptions(nats_url, new_instance_id(KEEPER), seed, KEEPER, ca_file=ca_file)
    return NatsConnection(options, BusCounts())


async def keep_laid_out(
    connection: NatsConnection, node: str, scope: str = "", looked: Callable[[str], None] | None = None
) -> None:
    """Make again what NATS loses, until cancelled; looked: as `Keeper`'s.

    Raises: BusError where the server cannot be used at first.
    """
    await connection.open()
    try:
        await Keeper(connection, node, scope, looked).run()
    finally:
        await connection.close()
