"""nats-server configurations with a user a service, as `shared.bus.nats.permissions` gives them."""

from __future__ import annotations

import json
import os
from typing import Any

import nkeys

from shared.bus.nats.permissions import ADMIN, MESH_SERVICES, SERVICES, Permissions, mesh_permissions, permissions

HEAD = """
jetstream {{ store_dir: "{store}" }}
max_payload: 2MB
"""


def new_seed() -> str:
    """A fresh nkey seed of a user."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def user(seed: str, allowed: Permissions) -> dict[str, Any]:
    """A user's entry in an account's `users`."""
    public = nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
    return {"nkey": public, "permissions": allowed.as_config()}


def accounts_config(nodes: list[str]) -> tuple[str, dict[tuple[str, str], str]]:
    """One account a node and the account `mesh`.

    Returns: the configuration text for `nats_server`, and seeds by (node or "mesh", service); users of the mesh
    are (node + "-mesh", service).
    """
    seeds: dict[tuple[str, str], str] = {}
    accounts: dict[str, Any] = {}
    mesh_users: list[dict[str, Any]] = []
    for node in nodes:
        for service in (*SERVICES, ADMIN):
            seeds[node, service] = new_seed()
        users = [user(seeds[node, service], permissions(service, node)) for service in (*SERVICES, ADMIN)]
        accounts[f"node-{node}"] = {"jetstream": "enabled", "users": users}
        for service in MESH_SERVICES:
            seeds[f"{node}-mesh", service] = new_seed()
            mesh_users.append(user(seeds[f"{node}-mesh", service], mesh_permissions(service)))
    accounts["mesh"] = {"users": mesh_users}
    text = json.dumps(accounts, indent=1).replace("{", "{{").replace("}", "}}")
    return f"{HEAD}\naccounts: {text}\n", seeds
