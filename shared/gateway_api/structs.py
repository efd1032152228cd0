"""What the gateway's HTTP API takes and answers, as JSON with camelCase names. Server and clients use these alone.

Fields are only ever appended, with a default: an older client does not see a newer gateway's fields, and a newer
client gets the default from an older gateway. Words of closed sets (states, causes, outcomes) are strings here,
so that a client is not broken by a word that it does not know. Times are wall clock, in ms, 0 or None for never.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class ApiStruct(msgspec.Struct, frozen=True, rename="camel"):
    """What the API's JSON objects are made from."""


class Problem(ApiStruct, frozen=True):
    """Why a request failed. code: a cause, or a word of HTTP. hint: what to do, "" for nothing."""

    code: str
    message: str = ""
    hint: str = ""


class ProblemBody(ApiStruct, frozen=True):
    """The body of every answer that is no success."""

    error: Problem


class LoginRequest(ApiStruct, frozen=True):
    token: str


class NodeView(ApiStruct, frozen=True):
    """peer: this node's own token, for another's `trust.members` and for links. name: how telemetry calls it."""

    node: str
    peer: str
    name: str
    version: str = ""


class FlagRequest(ApiStruct, frozen=True):
    enabled: bool


# ── files and transfers ──


class FileView(ApiStruct, frozen=True):
    """One file that the node holds, whole or in part. link: what another node fetches it by; "" for private content,
    whose key is kept nowhere but in the link that `put` printed.
    """

    manifest: str
    file_id: str
    name: str
    mime: str
    size: int
    chunks_total: int
    chunks_stored: int
    content_class: str
    stored_at: int
    link: str = ""


class RemovedView(ApiStruct, frozen=True):
    """A file that the node holds no more. freed_bytes: of the chunks that went with it."""

    manifest: str
    name: str
    chunks_removed: int
    freed_bytes: int


class UsageView(ApiStruct, frozen=True):
    """How full the store is. promised_bytes: what running transfers still need. quota_bytes: its limit."""

    used_bytes: int
    promised_bytes: int
    quota_bytes: int
    files: int


class FetchRequest(ApiStruct, frozen=True):
    link: str


class Started(ApiStruct, frozen=True):
    """transfer: the id of what was started."""

    transfer: str


class Transfer(ApiStruct, frozen=True):
    """One put or get. state: running, done or failed. by_transport: confirmed bytes by transport.

    instance: of the chunk service that works on it, "" until it is taken.
    """

    id: str
    kind: str
    state: str
    name: str = ""
    chunks_done: int = 0
    chunks_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    by_transport: dict[str, int] = msgspec.field(default_factory=dict)
    cause: str | None = None
    link: str = ""
    manifest: str = ""
    started_at: int = 0
    instance: str = ""


# ── peers and transports ──


class PeerView(ApiStruct, frozen=True):
    """A peer with a live link. transports: the names of those it is linked over, in trying order."""

    peer: str
    transports: list[str]
    role: str | None = None


class BlockRequest(ApiStruct, frozen=True):
    """note: why, for people."""

    direction: Literal["all", "inbound", "outbound"] = "all"
    note: str = ""


class BlockView(ApiStruct, frozen=True):
    """One blocked peer. peer: its name. since: 0 where the stored entry cannot be read."""

    peer: str
    direction: str
    note: str
    since: int


class PlaceView(ApiStruct, frozen=True):
    """One member of the rendezvous document, as one worker sees it.

    list, index: where it stands in the document. state: open, connecting, waiting, spare, known or unusable.
    since: in this state. retry_at: its next try.
    """

    worker: str
    list: str
    index: int
    state: str
    cause: str | None
    since: int | None
    retry_at: int | None


class WorkerView(ApiStruct, frozen=True):
    """One live worker. received_bytes, sent_bytes: since it was last switched on."""

    id: str
    state: str
    peers: int
    draining: bool
    received_bytes: int
    sent_bytes: int
    last_error: str | None
    last_error_at: int | None


class TransportStats(ApiStruct, frozen=True):
    """One transport. hops: by outcome. workers: live ones.

    last_error is gone once it has recovered. confirmed_bytes: verified answers that this node got. received_bytes,
    sent_bytes: all that its workers moved, either way, whoever asked. counted_since: from when on all of these count,
    which switching the transport off begins again; None where that is as long as hops are kept.
    """

    id: str
    label: str
    enabled: bool
    state: str
    fallback_count: int
    last_fallback_at: int | None
    last_error: str | None
    connected_peers: int
    fallback_causes: dict[str, int]
    hops: dict[str, int]
    workers: int
    draining: int = 0
    confirmed_bytes: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    last_activity_at: int | None = None
    last_error_at: int | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    counted_since: int | None = None
    places: list[PlaceView] = msgspec.field(default_factory=list)
    instances: list[WorkerView] = msgspec.field(default_factory=list)


class ManagersView(ApiStruct, frozen=True):
    """All managers together.

    count: live ones. deliveries: in flight in them. refused: deliveries not taken, by cause.

    duplicate_share: of answer bytes, those that came twice because of a hedge; the highest of the managers'.
    instances: deliveries in flight in each live one, by its id. taken: deliveries since its start, likewise.
    """

    count: int = 0
    deliveries: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    duplicate_share: float = 0.0
    instances: dict[str, int] = msgspec.field(default_factory=dict)
    taken: dict[str, int] = msgspec.field(default_factory=dict)


class Stats(ApiStruct, frozen=True):
    """The transports, and what decides among them."""

    transport_fallbacks: int
    last_transport_fallback_at: int | None
    transports: list[TransportStats]
    managers: ManagersView = ManagersView()
    chunk_transfers: dict[str, int] = msgspec.field(default_factory=dict)


class HopView(ApiStruct, frozen=True):
    """One hop, as its record in the hops stream is."""

    delivery: str
    number: int
    transport: str
    outcome: str
    cause: str | None
    started_ms: int
    elapsed_ms: float
    bytes: int
    peer: str = ""
    fallback_from: str | None = None
    fallback_cause: str | None = None
    hedged: bool = False
    trace_id: str = ""
    transfer: str = ""


class DiagnosticView(ApiStruct, frozen=True):
    """swarm-space's diagnostics event."""

    id: str
    level: str
    source: str
    code: str
    message: str
    timestamp: int
    context: dict[str, str]
