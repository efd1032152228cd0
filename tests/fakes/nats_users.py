"""nats-server configurations with a user a service, as `shared.bus.nats.permissions` gives them."""

from __future__ import annotations

import os

import nkeys

from shared.bus.messages.conversations import ADMIN, KEEPER, SERVICES
from shared.bus.nats.permissions import (
    MESH_SERVICES,
    Permissions,
    keeper_permissions,
    mesh_permissions,
    permissions,
)
from shared.bus.nats.server_config import AccountEntry, UserEntry, accounts_text
from shared.bus.nats.users import MESH_ACCOUNT, node_accounts

HEAD = """
jetstream {{ store_dir: "{store}" }}
max_payload: 2MB
"""


def new_seed() -> str:
    """A fresh nkey seed of a user."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def user(seed: str, allowed: Permissions) -> UserEntry:
    """A user's entry in an account."""
    public = nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
    return UserEntry(public, allowed.publish, allowed.subscribe)


def accounts_config(nodes: list[str]) -> tuple[str, dict[tuple[str, str], str]]:
    """The accounts of some nodes and the account `mesh`, as production makes them.

    Returns: the configuration text for `nats_server`, and seeds by (node or "mesh", service); users of the mesh
    are (node + "-mesh", service).
    """
    seeds: dict[tuple[str, str], str] = {}
    accounts: list[AccountEntry] = []
    mesh_users: list[UserEntry] = []
    for node in nodes:
        for service in (*SERVICES, ADMIN, KEEPER):
            seeds[node, service] = new_seed()
        users = [user(seeds[node, service], permissions(service, node)) for service in (*SERVICES, ADMIN)]
        accounts += node_accounts(node, users, user(seeds[node, KEEPER], keeper_permissions(node)))
        for service in MESH_SERVICES:
            seeds[f"{node}-mesh", service] = new_seed()
            mesh_users.append(user(seeds[f"{node}-mesh", service], mesh_permissions(service)))
    accounts.append(AccountEntry(MESH_ACCOUNT, jetstream=False, users=mesh_users))
    text = accounts_text(accounts).replace("{", "{{").replace("}", "}}")
    return f"{HEAD}\n{text}\n", seeds
