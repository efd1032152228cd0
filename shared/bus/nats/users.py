"""The bus users of one server: an nkey for each service of each node, its seed in a directory of its own.

A seed that is there is kept. `up` removes them all with each run, so that none is worth stealing from a backup;
`init` keeps them, since the containers that read them start and end on their own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nkeys

from shared.bus.messages.conversations import ADMIN, KEEPER
from shared.bus.nats.permissions import (
    MESH_SERVICES,
    Permissions,
    keeper_permissions,
    mesh_permissions,
    permissions,
    shared_by_store,
)
from shared.bus.nats.server_config import AccountEntry, UserEntry
from shared.errors import ConfigError

MESH_ACCOUNT = "mesh"
BUS_SEED = "bus.seed"
MESH_SEED = "mesh.seed"
SEED_FILE_MODE = 0o600
SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class Seeds:
    """Where one service's seeds are; mesh is None for a service that has no business there."""

    node: Path
    mesh: Path | None = None


@dataclass(frozen=True, slots=True)
class BusUsers:
    """accounts: for the server's configuration. seeds: by (node, service)."""

    accounts: Sequence[AccountEntry]
    seeds: dict[tuple[str, str], Seeds]

    def of_node(self, node: str) -> dict[str, Seeds]:
        """One node's seeds, by service."""
        return {service: found for (of, service), found in self.seeds.items() if of == node}


def make_users(directory: Path, nodes: dict[str, Sequence[str]]) -> BusUsers:
    """Make a user for each service of each node (node id -> services) and for those of them with a part in the mesh.

    Every node has two users beside them: `keeper`, who makes streams and buckets, and `admin`, the operator's own.
    A seed is in `<directory>/<node>/<service>/`: what a service's container has to see, and nothing else.

    Raises: ConfigError: a seed file holds no seed. OSError: it cannot be read or written.
    """
    private_directory(directory)
    seeds: dict[tuple[str, str], Seeds] = {}
    accounts: list[AccountEntry] = []
    mesh_users: list[UserEntry] = []
    for node, services in nodes.items():
        private_directory(directory / node)
        users: list[UserEntry] = []
        for service in (*services, ADMIN, KEEPER):
            own = directory / node / service
            private_directory(own)
            node_seed = own / BUS_SEED
            if service != KEEPER:
                users.append(_user(node_seed, permissions(service, node)))
            mesh_seed: Path | None = None
            if service in MESH_SERVICES:
                mesh_seed = own / MESH_SEED
                mesh_users.append(_user(mesh_seed, mesh_permissions(service)))
            seeds[node, service] = Seeds(node_seed, mesh_seed)
        keeper = _user(seeds[node, KEEPER].node, keeper_permissions(node))
        accounts += node_accounts(node, users, keeper)
    accounts.append(AccountEntry(MESH_ACCOUNT, jetstream=False, users=mesh_users))
    return BusUsers(accounts, seeds)


def node_accounts(node: str, users: Sequence[UserEntry], keeper: UserEntry) -> list[AccountEntry]:
    """The two accounts of a node: where its streams are, and where its services are."""
    store, shared = store_account_of(node), shared_by_store(node)
    services = services_account_of(node)
    return [
        AccountEntry(store, jetstream=True, users=[keeper], exports=shared, exports_to=services),
        AccountEntry(services, jetstream=False, users=users, imports=shared, imports_from=store),
    ]


def store_account_of(node: str) -> str:
    """The account of a node's streams; prefixed, so that no node can be called `mesh` or `$SYS`."""
    return f"node-{node}"


def services_account_of(node: str) -> str:
    """The account of a node's services."""
    return f"bus-{node}"


def _user(seed_file: Path, allowed: Permissions) -> UserEntry:
    return UserEntry(_nkey(seed_file), allowed.publish, allowed.subscribe)


def _nkey(seed_file: Path) -> str:
    """The user of a seed file, which is made where it is missing. Returns: its public key."""
    try:
        seed = seed_file.read_bytes().strip()
    except FileNotFoundError:
        seed = nkeys.encode_seed(os.urandom(SEED_BYTES), nkeys.PREFIX_BYTE_USER)
        write_private(seed_file, seed)
    return _public_key(seed, str(seed_file))


def read_seed(setting: str, path: str) -> str | None:
    """The seed in the file that a setting names; None where it names none.

    Raises: ConfigError naming the setting: the file cannot be read, or holds no seed.
    """
    if not path:
        return None
    try:
        seed = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError([f"{setting}: cannot read {path}: {error.strerror}"]) from None
    _public_key(seed, f"{setting}: {path}")
    return seed.decode()


def _public_key(seed: bytes, where: str) -> str:
    """Raises: ConfigError: it is no seed."""
    try:
        public: bytes = nkeys.from_seed(bytearray(seed)).public_key
    except (nkeys.NkeysError, ValueError):
        # Replacing it would lock out whoever still runs with what it held.
        raise ConfigError([f"{where}: holds no nkey seed"]) from None
    return public.decode()


def private_directory(path: Path) -> None:
    """Make a directory that only its owner can enter, whatever the umask."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, at no time otherwise."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SEED_FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
