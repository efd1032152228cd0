"""The configuration text of nats-server: one account a node, one account `mesh`, one user a service (TRUST, FACTS 5).

Pure: permissions and public keys in, text out. Passwords and seeds are never in it: an nkey user is its public
key. What it leaves out: TLS and clustering, which belong to a server of one's own (`--nats-url`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_PAYLOAD_BYTES = 2_000_000
"""TRUST, limits: NATS payload 2 MB."""
MAX_PENDING_BYTES = 64 * 2**20
"""TRUST, limits: pending 64 MiB a client, then the server drops it."""
PING_INTERVAL = "2s"
PING_MAX = 2
"""A frozen client is dropped after interval x (max + 1), about 6 s; the defaults would take 6 min (FACTS 5)."""
MAX_CONNECTIONS_A_NODE = 64
"""TRUST, limits: 64 clients a node."""
RANDOM_PORT = -1
"""nats-server binds any free port and tells it in its ports file."""


@dataclass(frozen=True, slots=True)
class UserEntry:
    """One service's user. publish, subscribe: the only subjects it may use; allow_responses: may answer requests."""

    public_key: str
    publish: Sequence[str]
    subscribe: Sequence[str]
    allow_responses: bool


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """What one node (or the mesh) sees of the server. jetstream: whether it may keep streams and buckets."""

    name: str
    jetstream: bool
    users: Sequence[UserEntry]


@dataclass(frozen=True, slots=True)
class ServerLayout:
    """port: RANDOM_PORT or a port. store_dir: JetStream's files. ports_dir: for the ports file, "" = none."""

    name: str
    store_dir: str
    ports_dir: str
    host: str = "127.0.0.1"
    port: int = RANDOM_PORT
    accounts: Sequence[AccountEntry] = field(default_factory=tuple)


def server_config(layout: ServerLayout) -> str:
    """The whole file. Strings are JSON strings, which nats-server's format reads as they are."""
    nodes = max(1, sum(account.jetstream for account in layout.accounts))
    lines = [
        f"server_name: {_quoted(layout.name)}",
        f"host: {_quoted(layout.host)}",
        f"port: {layout.port}",
        *([f"ports_file_dir: {_quoted(layout.ports_dir)}"] if layout.ports_dir else []),
        f"max_payload: {MAX_PAYLOAD_BYTES}",
        f"max_pending: {MAX_PENDING_BYTES}",
        f"max_connections: {MAX_CONNECTIONS_A_NODE * nodes}",
        f"ping_interval: {_quoted(PING_INTERVAL)}",
        f"ping_max: {PING_MAX}",
        f"jetstream {{ store_dir: {_quoted(layout.store_dir)} }}",
        "accounts {",
    ]
    for account in layout.accounts:
        lines += _account(account)
    return "\n".join([*lines, "}", ""])


def _account(account: AccountEntry) -> list[str]:
    lines = [f"  {_quoted(account.name)}: {{"]
    if account.jetstream:
        lines.append("    jetstream: enabled")
    lines.append("    users: [")
    for user in account.users:
        lines += _user(user)
    return [*lines, "    ]", "  }"]


def _user(user: UserEntry) -> list[str]:
    return [
        f"      {{ nkey: {user.public_key}",
        "        permissions: {",
        f"          publish: {{ {_subjects(user.publish)} }}",
        f"          subscribe: {{ {_subjects(user.subscribe)} }}",
        f"          allow_responses: {str(user.allow_responses).lower()}",
        "        } }",
    ]


def _subjects(subjects: Sequence[str]) -> str:
    """An empty allow list would mean "everything" to nats-server, so nothing is said as a denial of all."""
    if not subjects:
        return 'deny: ">"'
    return f"allow: [{', '.join(_quoted(subject) for subject in subjects)}]"


def _quoted(text: str) -> str:
    return json.dumps(text)
