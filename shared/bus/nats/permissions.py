"""Who may say and hear what on the bus: pure data, one NATS user a service, made of the table of conversations.

A service that was taken over has its seed, and with it exactly this. Three things make "exactly" true on NATS:

*No `allow_responses`.* It lets a service publish to whatever reply subject a request carried, and every service can
send itself a request. Instead each may publish to the inboxes of those who ask it, by name
(`shared.bus.messages.conversations`).

*Streams and buckets are in an account of their own*, of which the services' account imports what they use. JetStream
answers a request with the server's own rights, wherever its reply subject points: in one account, whoever may read
any bucket can have the answer written into another. An answer that comes back through an import is never let into an
import again, so that it reaches no bucket. It can still reach a service: such a message has headers or is JSON, and
neither is an envelope of ours.

*No consumers.* Who may create one can have stored bytes delivered anywhere. Readers use direct gets, and the server's
own notice of each write (`republish`) as a hint to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.bus.messages.conversations import (
    ADMIN,
    CHUNK,
    GATEWAY,
    INBOX,
    KEEPER,
    MANAGER,
    MESH_ROWS,
    SERVICES,
    Row,
    inbox,
    node_rows,
)
from shared.bus.messages.subjects import (
    BUCKET_BLOCKLIST,
    BUCKET_FLAGS,
    BUCKET_LAYOUT,
    BUCKET_LEASES,
    BUCKET_MANIFESTS,
    STREAM_HOPS,
    Subjects,
    stored,
)
from shared.transports import TransportName

SETTINGS_BUCKETS = (BUCKET_FLAGS, BUCKET_BLOCKLIST)
"""What every service reads: flags, and who is blocked."""

SETTINGS_WRITERS = (GATEWAY,)
"""Who may change them: people do, through the gateway. A worker that was taken over cannot switch others off, nor
unblock whom it serves."""

BUCKETS = (*SETTINGS_BUCKETS, BUCKET_LEASES, BUCKET_MANIFESTS, BUCKET_LAYOUT)

READERS: dict[str, tuple[str, ...]] = {
    BUCKET_FLAGS: SERVICES,
    BUCKET_BLOCKLIST: SERVICES,
    BUCKET_LAYOUT: SERVICES,
    BUCKET_LEASES: (TransportName.WEBRTC,),
    BUCKET_MANIFESTS: (CHUNK,),
    STREAM_HOPS: (MANAGER, GATEWAY),
}
WRITERS: dict[str, tuple[str, ...]] = {
    BUCKET_FLAGS: SETTINGS_WRITERS,
    BUCKET_BLOCKLIST: SETTINGS_WRITERS,
    BUCKET_LAYOUT: (),
    BUCKET_LEASES: (TransportName.WEBRTC,),
    BUCKET_MANIFESTS: (CHUNK,),
    STREAM_HOPS: (MANAGER,),
}
"""Who may write into which bucket or stream; BUCKET_LAYOUT is the keeper's, who is in its account."""

MESH_SERVICES = tuple(row.server for row in MESH_ROWS)
MICRO_VERBS = ("PING", "INFO", "STATS")


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish and subscribe to; nothing else."""

    publish: list[str]
    subscribe: list[str]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the account of streams gives to the services' account. kind: `service` (requests) or `stream`.

    many: one request may have several answers.
    """

    subject: str
    kind: str = "service"
    many: bool = False


def micro_name(service: str) -> str:
    """A service's name in NATS micro."""
    return f"swarmbridge-{service}"


def permissions(service: str, node: str) -> Permissions:
    """Of a service's user in the node's account. Raises: KeyError for a service that has none."""
    if service == ADMIN:
        stored_too = [subject for name in READERS for subject in (*_reads(name), _stored_under(name, node))]
        return Permissions([f"sb.{node}.>", "$SRV.>", *stored_too, f"{INBOX}.>"], [">"])
    if service not in SERVICES:
        raise KeyError(service)
    publish, subscribe = _conversations(service, node_rows(node))
    for name, readers in READERS.items():
        if service in readers:
            publish += _reads(name)
            subscribe.append(stored(name))
        if service in WRITERS[name]:
            publish.append(_stored_under(name, node))
    return Permissions([*publish, inbox(ADMIN, service) + ".>"], [*subscribe, *_micro(service)])


def keeper_permissions(node: str) -> Permissions:
    """Of the user in the account of streams, which no service is in."""
    api = [f"$JS.API.STREAM.{verb}.*" for verb in ("CREATE", "UPDATE", "INFO", "DELETE")]
    layout = [_stored_under(BUCKET_LAYOUT, node), *_reads(BUCKET_LAYOUT)]
    return Permissions([*api, *layout], [inbox(KEEPER, "*") + ".>"])


def mesh_permissions(service: str) -> Permissions:
    """Of a service's user in the account `mesh`, which nodes on one bus share. Raises: KeyError."""
    if service not in MESH_SERVICES:
        raise KeyError(service)
    return Permissions(*_conversations(service, MESH_ROWS))


def shared_by_store(node: str) -> list[Shared]:
    """What the services' account imports from that of the streams; which service may use it, permissions say."""
    shared = [Shared(f"$JS.API.DIRECT.GET.{_stream(name)}", many=True) for name in READERS]
    shared += [Shared(f"$JS.API.DIRECT.GET.{_stream(name)}.>") for name in BUCKETS]
    shared += [Shared(_stored_under(name, node)) for name, writers in WRITERS.items() if writers]
    return [*shared, Shared(stored("*"), kind="stream")]


def _conversations(service: str, rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """What a service publishes and hears by the table: requests, answers, and the answers to its own requests."""
    publish = [row.subject for row in rows if service in row.callers]
    subscribe = dict.fromkeys(row.heard or row.subject for row in rows if row.server == service)
    callers = {caller: None for row in rows if row.server == service and row.answered for caller in row.callers}
    answers = [inbox(caller, service) + ".>" for caller in callers]
    return [*dict.fromkeys(publish), *answers], [*subscribe, inbox(service, "*") + ".>"]


def _stream(name: str) -> str:
    return name if name == STREAM_HOPS else f"KV_{name}"


def _stored_under(name: str, node: str) -> str:
    return Subjects(node).hop("*") if name == STREAM_HOPS else f"$KV.{name}.>"


def _reads(name: str) -> list[str]:
    """Read one bucket or stream: a key of it, or many records after one."""
    stream = _stream(name)
    by_key = [] if name == STREAM_HOPS else [f"$JS.API.DIRECT.GET.{stream}.>"]
    return [f"$JS.API.DIRECT.GET.{stream}", *by_key]


def _micro(service: str) -> list[str]:
    name = micro_name(service)
    return [
        subject for verb in MICRO_VERBS for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.*")
    ]
