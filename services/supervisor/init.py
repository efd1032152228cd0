"""`init`: what a node needs before its processes start, where something else than `up` starts them.

    DIR/root.key, DIR/gateway.token          the identity (for `chunk` alone), the operator's token (for `gateway`)
    DIR/bus/seeds/<node>/<service>/          bus.seed, and mesh.seed for those with a part in the mesh
    DIR/bus/nats.conf                        the server's configuration: accounts, users, permissions, limits
    DIR/bus/tls/                             with nats_tls: ca.pem for clients, server.pem and server.key

Keys, tokens and seeds that are there are kept: running it again changes nothing but `nats.conf`, which holds no
secret and follows this version's permissions. With `--nats-url` it also waits for that server and makes the
node's streams and buckets on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.supervisor.arguments import NATS_PORT
from services.supervisor.machine.bus_tls import ensure_bus_tls
from services.supervisor.machine.errors import CannotStart
from services.supervisor.machine.home_lock import locked_home
from services.supervisor.machine.home_secrets import ensure_identity, ensure_token
from services.supervisor.machine.node import SERVICES, lay_out
from shared.bus.nats.server_config import ServerLayout, server_config
from shared.bus.nats.users import BusUsers, make_users, private_directory, write_private
from shared.process.home_schema import ensure_home_schema
from shared.settings.config import Config, checked

BUS_DIRECTORY = "bus"
SEEDS_DIRECTORY = "seeds"
SERVER_CONFIG = "nats.conf"
TLS_DIRECTORY = "tls"
NATS_WAIT_S = 60.0
"""A container's first start, on a slow disk."""
NATS_POLL_S = 0.5


@dataclass(frozen=True)
class InitOptions:
    """nats_host, nats_port, nats_store: what the server's own configuration says, in the server's own world.

    nats_tls: names for its certificate, none = no TLS. nats_tls_files: where it sees server.pem and server.key.
    nats_url: where it is to be reached to make streams and buckets; "" leaves that to a second call.
    """

    home: Path | None = None
    name: str = ""
    nats_host: str = "127.0.0.1"
    nats_port: int = NATS_PORT
    nats_store: str = ""
    nats_tls: Sequence[str] = ()
    nats_tls_files: str = ""
    nats_url: str = ""
    json: bool = False


class Prepared(msgspec.Struct, frozen=True, rename="camel"):
    """Where everything is; no secret is in it."""

    node: str
    peer: str
    home: str
    token_file: str
    nats_config: str
    seeds: dict[str, str]
    """Service -> its directory of seeds."""


async def init(config: Config, options: InitOptions) -> Prepared:
    """Make what is missing. Raises: CannotStart; ConfigError."""
    home = (options.home or config.home).expanduser().absolute()
    node = options.name or config.node.id
    config = checked(msgspec.structs.replace(config, node=msgspec.structs.replace(config.node, id=node)))
    with locked_home(home):
        ensure_home_schema(home)
        prepared, users = prepare(config, home, node, options)
        if options.nats_url:
            await _lay_out(node, options.nats_url, users, config.bus.ca_file)
    return prepared


def prepare(config: Config, home: Path, node: str, options: InitOptions) -> tuple[Prepared, BusUsers]:
    """Make the files that are missing; those that are secret are kept as they are."""
    peer = ensure_identity(home)
    token_file = ensure_token(config, home)
    bus = home / BUS_DIRECTORY
    try:
        private_directory(bus)
        users = make_users(bus / SEEDS_DIRECTORY, {node: SERVICES})
        tls = ensure_bus_tls(bus / TLS_DIRECTORY, options.nats_tls) if options.nats_tls else None
        seen = Path(options.nats_tls_files) if options.nats_tls_files else bus / TLS_DIRECTORY
        layout = ServerLayout(
            name="swarmbridge",
            store_dir=options.nats_store or str(home / "nats"),
            ports_dir="",
            host=options.nats_host,
            port=options.nats_port,
            certificate=str(seen / tls.certificate.name) if tls else "",
            key=str(seen / tls.key.name) if tls else "",
            accounts=users.accounts,
        )
        # A call that only lays out need not say again how the server is run.
        if not (options.nats_url and (bus / SERVER_CONFIG).exists()):
            write_private(bus / SERVER_CONFIG, server_config(layout).encode())
    except OSError as error:
        raise CannotStart(f"cannot write {error.filename or bus}: {error.strerror}") from None
    except ValueError as error:
        raise CannotStart(f"{bus / TLS_DIRECTORY}: {error}; remove the directory to have it made again") from None
    seeds = {service: str(found.node.parent) for service, found in users.of_node(node).items()}
    where = Prepared(node, peer, str(home), str(token_file), str(bus / SERVER_CONFIG), seeds)
    return where, users


async def _lay_out(node: str, nats_url: str, users: BusUsers, ca_file: str) -> None:
    """Make streams and buckets once the server is there."""
    give_up_s = time.monotonic() + NATS_WAIT_S
    while True:
        try:
            await lay_out(node, nats_url, users.of_node(node), ca_file=ca_file)
            return
        except CannotStart:
            if time.monotonic() > give_up_s:
                raise
        await asyncio.sleep(NATS_POLL_S)


def prepared_text(where: Prepared) -> str:
    """What a person needs to know, as lines."""
    return "\n".join(
        [
            f"node {where.node} is prepared",
            f"  home:        {where.home}",
            f"  peer:        {where.peer}",
            f"  token:       {where.token_file}",
            f"  nats-server: {where.nats_config}",
            *(f"  seeds of {service}: {directory}" for service, directory in where.seeds.items()),
        ]
    )
