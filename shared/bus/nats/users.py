"""The bus users of one server: a fresh nkey for each service of each node, its seed in a file of its own.

Seeds live as long as the server: they are made anew at each start and removed at its end, so that none is
worth stealing from a backup.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nkeys

from shared.bus.nats.permissions import MESH_SERVICES, mesh_permissions, permissions
from shared.bus.nats.server_config import AccountEntry, UserEntry

MESH_ACCOUNT = "mesh"
ADMIN = "admin"
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

    Every node has an `admin` beside them, who lays out streams and buckets and is then not used again.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    seeds: dict[tuple[str, str], Seeds] = {}
    accounts: list[AccountEntry] = []
    mesh_users: list[UserEntry] = []
    for node, services in nodes.items():
        users: list[UserEntry] = []
        for service in (*services, ADMIN):
            node_seed = directory / f"{node}.{service}.seed"
            users.append(_user(node_seed, service, node))
            mesh_seed: Path | None = None
            if service in MESH_SERVICES:
                mesh_seed = directory / f"{node}.{service}.mesh.seed"
                mesh_users.append(_mesh_user(mesh_seed, service))
            seeds[node, service] = Seeds(node_seed, mesh_seed)
        accounts.append(AccountEntry(account_of(node), jetstream=True, users=users))
    accounts.append(AccountEntry(MESH_ACCOUNT, jetstream=False, users=mesh_users))
    return BusUsers(accounts, seeds)


def account_of(node: str) -> str:
    """A node's account; prefixed, so that no node can be called `mesh` or `$SYS`."""
    return f"node-{node}"


def _user(seed_file: Path, service: str, node: str) -> UserEntry:
    allowed = permissions(service, node)
    return UserEntry(_new_nkey(seed_file), allowed.publish, allowed.subscribe, allowed.allow_responses)


def _mesh_user(seed_file: Path, service: str) -> UserEntry:
    allowed = mesh_permissions(service)
    return UserEntry(_new_nkey(seed_file), allowed.publish, allowed.subscribe, allowed.allow_responses)


def _new_nkey(seed_file: Path) -> str:
    """Write a new user seed, 0600 from its first byte on. Returns: its public key."""
    seed = nkeys.encode_seed(os.urandom(SEED_BYTES), nkeys.PREFIX_BYTE_USER)
    write_private(seed_file, seed)
    public: bytes = nkeys.from_seed(bytearray(seed)).public_key
    return public.decode()


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, at no time otherwise."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SEED_FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
