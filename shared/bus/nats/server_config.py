"""The configuration text of nats-server: one account a node, one account `mesh`, one user a service (docs/trust.md,
docs/nats.md).

Pure: permissions and public keys in, text out. Passwords and seeds are never in it: an nkey user is its public
key. What it leaves out: clustering, which belongs to your own server (`--nats-url`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.bus.nats.permissions import Shared
from shared.errors import ConfigError

MAX_PAYLOAD_BYTES = 2_000_000
"""docs/limits.md#nats: payload 2 MB."""
MAX_PENDING_BYTES = 64 * 2**20
"""docs/limits.md#nats: pending 64 MiB a client, then the server drops it."""
PING_INTERVAL = "2s"
PING_MAX = 2
"""A frozen client is dropped after interval x (max + 1), about 6 s; the defaults would take 6 min (docs/nats.md)."""
TLS_TIMEOUT_S = 5
"""For a handshake; the server's 2 s are short for a machine on which a dozen processes start at once."""
MAX_CONNECTIONS_A_NODE = 64
"""docs/limits.md#nats: 64 clients a node."""
_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "\t": "\\t",
    "\n": "\\n",
    "\r": "\\r",
    **{chr(code): f"\\x{code:02x}" for code in (*range(1, 9), 11, 12, *range(14, 32), 127)},
}

RANDOM_PORT = -1
"""nats-server binds any free port and tells it in its ports file."""


@dataclass(frozen=True, slots=True)
class UserEntry:
    """One service's user. publish, subscribe: the only subjects it may use."""

    public_key: str
    publish: Sequence[str]
    subscribe: Sequence[str]


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """What its users see of the server. jetstream: whether it may keep streams and buckets.

    exports, exports_to: what it gives to one other account; imports, imports_from: what it takes from one.
    """

    name: str
    jetstream: bool
    users: Sequence[UserEntry]
    exports: Sequence[Shared] = ()
    exports_to: str = ""
    imports: Sequence[Shared] = ()
    imports_from: str = ""


@dataclass(frozen=True, slots=True)
class ServerLayout:
    """port: RANDOM_PORT or a port. store_dir: JetStream's files. ports_dir: for the ports file, "" = none.

    certificate, key: PEM files as the server sees them; with them nobody is served in clear.
    """

    name: str
    store_dir: str
    ports_dir: str
    host: str = "127.0.0.1"
    port: int = RANDOM_PORT
    certificate: str = ""
    key: str = ""
    accounts: Sequence[AccountEntry] = field(default_factory=tuple)


def server_config(layout: ServerLayout) -> str:
    """The whole file. Raises: ConfigError: a name or path that the format cannot hold."""
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
        *_tls(layout),
        f"jetstream {{ store_dir: {_quoted(layout.store_dir)} }}",
        accounts_text(layout.accounts),
    ]
    return "\n".join([*lines, ""])


def _tls(layout: ServerLayout) -> list[str]:
    if not layout.certificate:
        return []
    return [
        f"tls {{ cert_file: {_quoted(layout.certificate)}, key_file: {_quoted(layout.key)}, timeout: {TLS_TIMEOUT_S} }}"
    ]


def accounts_text(accounts: Sequence[AccountEntry]) -> str:
    """The block `accounts`. Raises: as `server_config`."""
    lines = [line for account in accounts for line in _account(account)]
    return "\n".join(["accounts {", *lines, "}"])


def _account(account: AccountEntry) -> list[str]:
    lines = [f"  {_quoted(account.name)}: {{"]
    if account.jetstream:
        lines.append("    jetstream: enabled")
    lines.append("    users: [")
    for user in account.users:
        lines += _user(user)
    lines.append("    ]")
    if account.exports:
        lines += ["    exports: [", *(_export(shared, account.exports_to) for shared in account.exports), "    ]"]
    if account.imports:
        lines += ["    imports: [", *(_import(shared, account.imports_from) for shared in account.imports), "    ]"]
    return [*lines, "  }"]


def _user(user: UserEntry) -> list[str]:
    return [
        f"      {{ nkey: {user.public_key}",
        "        permissions: {",
        f"          publish: {{ {_subjects(user.publish)} }}",
        f"          subscribe: {{ {_subjects(user.subscribe)} }}",
        "        } }",
    ]


def _export(shared: Shared, to: str) -> str:
    many = ", response_type: stream" if shared.many else ""
    return f"      {{ {shared.kind}: {_quoted(shared.subject)}{many}, accounts: [{_quoted(to)}] }}"


def _import(shared: Shared, from_account: str) -> str:
    source = f"account: {_quoted(from_account)}, subject: {_quoted(shared.subject)}"
    return f"      {{ {shared.kind}: {{ {source} }} }}"


def _subjects(subjects: Sequence[str]) -> str:
    """An empty allow list would mean "everything" to nats-server, so nothing is said as a denial of all."""
    if not subjects:
        return 'deny: ">"'
    return f"allow: [{', '.join(_quoted(subject) for subject in subjects)}]"


def _quoted(text: str) -> str:
    """Text as a string of nats-server's format (conf/lex.go), which is not JSON's.

    It knows the escapes \\t, \\n, \\r, \\", \\\\ and \\xHH (one byte); any other, JSON's \\u00e9 among them, ends the
    server's start. Everything else stands as it is, in UTF-8.
    Raises: ConfigError: NUL, which no path and no name may hold, and bytes of a path that are no UTF-8.
    """
    if "\0" in text or (not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)):
        raise ConfigError(["a path or a name holds what NATS cannot read: a NUL, or bytes that are no UTF-8"])
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'
