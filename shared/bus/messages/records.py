"""What is recorded of the past: hops in their stream, and events for views. Never for decisions, hops apart.

Nothing here names content or a place: peers by name, causes by code (docs/trust.md#what-stays-in-the-process).
"""

from __future__ import annotations

import msgspec

from shared.errors import Cause


class HopRecord(msgspec.Struct, array_like=True, frozen=True):
    """One hop, as it ended: the one source of every counter, breaker and verdict (Nats-Msg-Id delivery.hop).

    peer: peer *name*, never a token. outcome, cause: as in HopReceipt. fallback_from: the transport whose
    failure or silence started this hop, "" for none; fallback_cause: why.
    """

    delivery: str
    number: int
    transport: str
    peer: str
    outcome: str
    cause: Cause | None
    fallback_from: str
    fallback_cause: Cause | None
    hedged: bool
    started_ms: int
    elapsed_ms: float
    bytes: int
    trace_id: str
    transfer: str
    manager: str


class LinkChanged(msgspec.Struct, array_like=True, frozen=True):
    """Event `link`. change: opened or closed. peer: peer name."""

    transport: str
    worker: str
    peer: str
    role: str
    change: str
    cause: Cause | None
    at_ms: int


class MeetingPlace(msgspec.Struct, array_like=True, frozen=True):
    """One member of the rendezvous document as a worker sees it. list, index: where it stands in the file.

    state: `open` it serves us, `connecting`, `waiting` for its next try, `spare` not used while others serve,
    `known` used without an answer of its own (an ICE server, a DHT node), `unusable` our configuration is wrong.
    since_ms: in this state; retry_ms: the next try, 0 = none. Both of the wall clock.
    """

    list: str
    index: int
    state: str
    cause: Cause | None = None
    since_ms: int = 0
    retry_ms: int = 0


class WorkerStatus(msgspec.Struct, array_like=True, frozen=True):
    """Event `status`: a worker's heartbeat, every second and at each change.

    peers: names of the peers with a live link. refused: refusals by limit or cause since the last enabling.
    chaos: since then, requests by the fault that was done to them on purpose, and chaos flags `ignored`.
    places: the members of the rendezvous document that this transport uses, each with its own state.
    last_error_ms, last_activity_ms: wall clock, 0 = none; activity is a message of a peer.
    """

    worker: str
    transport: str
    state: str
    last_error: Cause | None
    peers: list[str]
    enabled: bool
    draining: bool
    at_ms: int
    refused: dict[str, int] = {}
    bytes_in: int = 0
    bytes_out: int = 0
    last_activity_ms: int = 0
    chaos: dict[str, int] = {}
    places: list[MeetingPlace] = []
    last_error_ms: int = 0


class ManagerStatus(msgspec.Struct, array_like=True, frozen=True):
    """Event `manager`: a manager's heartbeat, every second.

    deliveries: in flight. refused: deliveries not taken since its start, by cause. duplicate_share: of answer bytes,
    those that came twice because of a hedge. taken: deliveries since its start.
    """

    manager: str
    deliveries: int
    refused: dict[str, int]
    duplicate_share: float
    at_ms: int
    taken: int = 0


class Diagnostic(msgspec.Struct, array_like=True, frozen=True):
    """swarm-space's diagnostics event. level: info, warn or error. context: names, causes and numbers only."""

    id: str
    level: str
    source: str
    code: str
    message: str
    timestamp_ms: int
    context: dict[str, str]


class SpanRecord(msgspec.Struct, array_like=True, frozen=True):
    """One finished span, for the gateway's own trace view. Times in ns of the wall clock; ids as hex."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    node: str
    start_ns: int
    end_ns: int
    status: str
    attributes: dict[str, str | int | float | bool]
    links: list[str] = []


class Spans(msgspec.Struct, array_like=True, frozen=True):
    """Event `spans`."""

    spans: list[SpanRecord]
