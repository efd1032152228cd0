"""Who may say and hear what on the bus: pure data, one NATS user a service (TRUST: one service may be taken over).

The node's account denies everything else. Replies need no permission of their own (`allow_responses`: one reply
to a request that came in, within two minutes).

What this cannot keep apart, and why one account holds one node: instances of all services share `body.*` (NATS
wildcards are whole tokens); and who may create a consumer on a KV bucket can have its values delivered onto any
subject of the account (FACTS 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.bus.messages.subjects import (
    BUCKET_BLOCKLIST,
    BUCKET_FLAGS,
    BUCKET_LEASES,
    BUCKET_MANIFESTS,
    STREAM_ATTEMPTS,
    Subjects,
)
from shared.transports import TransportName

SERVICES = ("manager", "chunk", "webrtc", "webtorrent", "broadcast", "gateway")
ADMIN = "admin"
"""Makes the layout, and is the operator's own user for the `nats` tool."""

SETTINGS_BUCKETS = (BUCKET_FLAGS, BUCKET_BLOCKLIST)
"""What every service reads: flags, and who is blocked."""

SETTINGS_WRITERS = ("gateway",)
"""Who may change them: people do, through the gateway. A worker that was taken over cannot switch others off, nor
unblock whom it serves."""

MESH_SERVICES = ("broadcast", "rendezvous")
_MESH_SUBJECTS = {"broadcast": "sb.bc.>", "rendezvous": "sb.rv.>"}
MICRO_VERBS = ("PING", "INFO", "STATS")


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish and subscribe to; nothing else."""

    publish: list[str]
    subscribe: list[str]
    allow_responses: bool = True

    def as_config(self) -> dict[str, Any]:
        """The `permissions` block of nats-server's configuration (which reads JSON)."""
        return {
            "publish": {"allow": self.publish},
            "subscribe": {"allow": self.subscribe},
            "allow_responses": self.allow_responses,
        }


def inbox_prefix(service: str) -> str:
    """What the subjects of a service's replies start with, so that no other service can hear them."""
    return f"_INBOX_{service}"


def micro_name(service: str) -> str:
    """A service's name in NATS micro."""
    return f"swarmbridge-{service}"


def permissions(service: str, node: str) -> Permissions:
    """Of a service's user in the node's account. Raises: KeyError for a service that has none."""
    subjects = Subjects(node)
    if service == ADMIN:
        return Permissions([f"sb.{node}.>", "$JS.API.>", "$JS.FC.>", "$KV.>", "$SRV.>"], _hears(ADMIN, [">"]))
    publish, subscribe = _WORK[service](subjects)
    opens = _bucket if service in SETTINGS_WRITERS else _reads_bucket
    publish = [*publish, subjects.event("*"), *(subject for bucket in SETTINGS_BUCKETS for subject in opens(bucket))]
    return Permissions(publish, _hears(service, [*subscribe, *_micro(service)]))


def mesh_permissions(service: str) -> Permissions:
    """Of a service's user in the account `mesh`, which nodes on one bus share. Raises: KeyError."""
    if service not in MESH_SERVICES:
        raise KeyError(service)
    subjects = [_MESH_SUBJECTS[service]]
    return Permissions(subjects, _hears(service, subjects))


def _manager(subjects: Subjects) -> tuple[list[str], list[str]]:
    publish = [
        subjects.link("*", "*"),
        subjects.dial("*"),
        subjects.worker("*"),
        subjects.reply("*"),
        subjects.manager("*"),
        subjects.chunk_message,
        subjects.attempt("*"),
        *_stream(STREAM_ATTEMPTS),
    ]
    return publish, [subjects.deliver, subjects.manager("*"), subjects.inbound("*")]


def _chunk(subjects: Subjects) -> tuple[list[str], list[str]]:
    publish = [
        subjects.deliver,
        subjects.announce,
        subjects.manager("*"),
        subjects.reply("*"),
        subjects.body("*"),
        *_bucket(BUCKET_MANIFESTS),
    ]
    subscribe = [
        subjects.chunk_message,
        subjects.announced("*"),
        subjects.chunk("*"),
        subjects.chunk_instance("*"),
        subjects.certify,
        subjects.peerjs_token,
        subjects.reply("*"),
        subjects.body("*"),
    ]
    return publish, subscribe


def _worker(subjects: Subjects, transport: str) -> tuple[list[str], list[str]]:
    publish = [
        subjects.inbound(transport),
        subjects.announced(transport),
        subjects.manager("*"),
        subjects.body("*"),
        subjects.certify,
    ]
    subscribe = [
        subjects.link(transport, "*"),
        subjects.dial(transport),
        subjects.announce,
        subjects.worker("*"),
        subjects.body("*"),
    ]
    return publish, subscribe


def _webrtc(subjects: Subjects) -> tuple[list[str], list[str]]:
    publish, subscribe = _worker(subjects, TransportName.WEBRTC)
    signalling = [subjects.signal_offer, subjects.signal_send]
    publish += [subjects.peerjs_token, subjects.worker("*"), *signalling, *_bucket(BUCKET_LEASES)]
    return publish, [*subscribe, *signalling]


def _gateway(subjects: Subjects) -> tuple[list[str], list[str]]:
    publish = [
        *(subjects.chunk(call) for call in ("put", "get", "fetch", "status", "remove", "usage")),
        subjects.chunk_instance("*"),
        subjects.body("*"),
        *_stream(STREAM_ATTEMPTS),
    ]
    return publish, [subjects.reply("*"), subjects.body("*"), subjects.event("*")]


_WORK = {
    "manager": _manager,
    "chunk": _chunk,
    "webrtc": _webrtc,
    "webtorrent": lambda subjects: _worker(subjects, TransportName.WEBTORRENT),
    "broadcast": lambda subjects: _worker(subjects, TransportName.BROADCAST),
    "gateway": _gateway,
}


def _hears(service: str, subscribe: list[str]) -> list[str]:
    return [*subscribe, f"{inbox_prefix(service)}.>"]


def _bucket(bucket: str) -> list[str]:
    """Open, read, watch and write one KV bucket."""
    return [f"$KV.{bucket}.>", *_reads_bucket(bucket)]


def _reads_bucket(bucket: str) -> list[str]:
    """Open, read and watch one KV bucket."""
    stream = f"KV_{bucket}"
    return [f"$JS.API.DIRECT.GET.{stream}.>", *_stream(stream)]


def _stream(stream: str) -> list[str]:
    """Open and read one stream."""
    return [f"$JS.API.STREAM.INFO.{stream}", f"$JS.API.CONSUMER.CREATE.{stream}", f"$JS.FC.{stream}.>"]


def _micro(service: str) -> list[str]:
    name = micro_name(service)
    return [
        subject for verb in MICRO_VERBS for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.*")
    ]
