"""What travels on the bus, as msgspec structs: msgpack, array-like, fields only ever appended.

Every message is an `Envelope` around one body struct; the `Bus` makes and opens it. Numbers: `_ms` wall
clock or span of milliseconds, `_bytes` sizes. Peers are peer tokens (shared.ids), ids are 16 random bytes.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from shared.content.messages import PeerAnswer, PeerRequest
from shared.errors import Cause

ENVELOPE_VERSION = 1
T = TypeVar("T")

Id = bytes
"""16 random bytes. Also needed by name where a struct has a field `bytes`: that field hides the type in its class."""


class Envelope(msgspec.Struct, Generic[T], array_like=True, frozen=True):
    """deadline_ms: wall clock; 0 = none; a reader drops and counts an expired one. traceparent: W3C, or ""."""

    version: int
    deadline_ms: int
    traceparent: str
    body: T


class Reply(msgspec.Struct, Generic[T], array_like=True, frozen=True):
    """The answer to a request. A set `cause` means it was not done; `body` is None then."""

    version: int
    cause: Cause | None
    retry_after_ms: int
    body: T | None


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────────────


class BodyRef(msgspec.Struct, array_like=True, frozen=True):
    """Where bytes can be pulled from: `sb.N.body.<instance>`, 256 KiB ranges, window 4."""

    instance: str
    token: bytes
    length: int


class PullRange(msgspec.Struct, array_like=True, frozen=True, tag="pull"):
    token: bytes
    offset: int
    length: int


class ReleaseBody(msgspec.Struct, array_like=True, frozen=True, tag="release"):
    """The puller has what it needs; the holder may forget the body before its time is up."""

    token: bytes


BodyCall = PullRange | ReleaseBody


class Range(msgspec.Struct, array_like=True, frozen=True):
    data: memoryview


class Done(msgspec.Struct, array_like=True, frozen=True):
    """An answer that says only that it was done."""


class Ping(msgspec.Struct, array_like=True, frozen=True, tag="ping"):
    """Is the process there, and does it still have these calls? Answered by Pong."""

    calls: list[bytes] = []


class Health(msgspec.Struct, array_like=True, frozen=True):
    """How a process is, to whoever pinged `Subjects.health`. state: a TransportState. reason: a cause, "" = none."""

    state: str
    reason: str = ""


class Pong(msgspec.Struct, array_like=True, frozen=True):
    """unknown: those of the pinged calls that this process does not (any longer) work on."""

    unknown: list[bytes] = []


# ── delivering ──────────────────────────────────────────────────────────────────────────────────────────


class Deliver(msgspec.Struct, array_like=True, frozen=True):
    """Get `request` to `peer` and its answer back, over whichever transport works, by the envelope's deadline.

    delivery_id is also the request id on every link. reply_to: the caller's instance (`sb.N.reply.<it>`).
    transfer: the transfer it is part of, for people; "" for none.
    """

    delivery_id: bytes
    reply_to: str
    peer: str
    request: PeerRequest
    transfer: str = ""


class Taken(msgspec.Struct, array_like=True, frozen=True):
    """`instance` works on the call now; ping it."""

    instance: str


class HopReceipt(msgspec.Struct, array_like=True, frozen=True):
    """One hop of a delivery, as it ended.

    outcome: confirmed, accepted, failed, cancelled or skipped. cause: why it failed or was skipped.
    started_ms: wall clock. accepted_after_ms: -1 = never accepted. bytes: answer body bytes that arrived.
    fallback_from, fallback_cause: as in HopRecord; "" and None for a hop that is no fallback.
    """

    number: int
    transport: str
    outcome: str
    cause: Cause | None
    started_ms: int
    elapsed_ms: float
    accepted_after_ms: float
    bytes: int
    hedged: bool
    fallback_from: str = ""
    fallback_cause: Cause | None = None


class Answered(msgspec.Struct, array_like=True, frozen=True, tag="answered"):
    """A peer answered; the caller pulls and verifies the body, then sends its Verdict to the manager."""

    delivery_id: bytes
    manager: str
    hop: int
    transport: str
    answer: PeerAnswer
    body: BodyRef | None


class Slowed(msgspec.Struct, array_like=True, frozen=True, tag="slowed"):
    """A link to the peer, or the peer itself, has no room: ask this peer for less at a time. The delivery goes on.

    retry_after_ms: when there may be room; 0 = not said.
    """

    delivery_id: bytes
    retry_after_ms: int


class Receipt(msgspec.Struct, array_like=True, frozen=True, tag="receipt"):
    """How a delivery ended: exactly one a caller sees. outcome: confirmed, accepted, failed, or cancelled by it."""

    delivery_id: bytes
    outcome: str
    cause: Cause | None
    hops: list[HopReceipt]
    elapsed_ms: float


class Verdict(msgspec.Struct, array_like=True, frozen=True, tag="verdict"):
    """The caller's word on an answer: cause None = verified and kept, which confirms the hop."""

    delivery_id: Id
    hop: int
    cause: Cause | None
    bytes: int


class CancelDelivery(msgspec.Struct, array_like=True, frozen=True, tag="cancel"):
    delivery_id: bytes


class SendRequest(msgspec.Struct, array_like=True, frozen=True):
    """To a link: send this request to its peer. Idempotent by request_id; a new manager takes it over."""

    request_id: bytes
    manager: str
    hop: int
    request: PeerRequest


class Accepted(msgspec.Struct, array_like=True, frozen=True):
    """The request is in the link's buffer. rtt_ms: the link's smoothed round trip, 0 = not known yet.

    acks: the peer says at once that it has a request; where it cannot, silence before its answer means nothing.
    confirms: the peer answers requests at all; where it cannot, accepted is the most that can be known.
    """

    worker: str
    link: str
    rtt_ms: float
    acks: bool = True
    confirms: bool = True


class LinkProgress(msgspec.Struct, array_like=True, frozen=True, tag="progress"):
    """The peer acknowledged the request (bytes 0) or this many bytes of its answer have arrived."""

    request_id: Id
    hop: int
    bytes: int


class LinkAnswer(msgspec.Struct, array_like=True, frozen=True, tag="answer"):
    """The whole answer is in the worker, body included: pull it from there."""

    request_id: bytes
    hop: int
    answer: PeerAnswer
    body: BodyRef | None


class LinkFailed(msgspec.Struct, array_like=True, frozen=True, tag="failed"):
    request_id: bytes
    hop: int
    cause: Cause
    retry_after_ms: int = 0


ManagerMessage = Ping | LinkProgress | LinkAnswer | LinkFailed | Verdict | CancelDelivery


class Dial(msgspec.Struct, array_like=True, frozen=True):
    """Open a link to the peer by the envelope's deadline. endpoints: `host:port` of its peer wire, if known."""

    peer: str
    endpoints: list[str] = []


class Dialled(msgspec.Struct, array_like=True, frozen=True):
    worker: str
    link: str


class CancelRequest(msgspec.Struct, array_like=True, frozen=True, tag="cancel"):
    """Forget a request and tell a native peer so."""

    request_id: bytes


class DrainWorker(msgspec.Struct, array_like=True, frozen=True, tag="drain"):
    """Stop taking links and requests, as on SIGTERM."""


class SignalMessage(msgspec.Struct, array_like=True, frozen=True, tag="signal"):
    """A PeerJS message of one connection, from the lease holder to the worker that owns it (JSON bytes)."""

    message: bytes


WorkerCommand = Ping | CancelRequest | DrainWorker | SignalMessage


class SignalOffer(msgspec.Struct, array_like=True, frozen=True):
    """An OFFER (JSON bytes) for any webrtc worker; its ANSWER goes back through `signal.send`.

    beacon: it was sent to the beacon of our room, and not to us.
    """

    message: bytes
    server: str
    beacon: bool = False


class SignalSend(msgspec.Struct, array_like=True, frozen=True):
    """Send this PeerJS message (JSON bytes). worker: where messages of connection_id go from now on."""

    message: bytes
    connection_id: str
    worker: str


class PagesHeld(msgspec.Struct, array_like=True, frozen=True):
    """The PeerJS ids of all pages that a webrtc worker has a link to. leaving: it drains, others are to dial them."""

    worker: str
    pages: list[str]
    leaving: bool = False


class SignalTaken(msgspec.Struct, array_like=True, frozen=True):
    worker: str


# ── peers' requests to us ───────────────────────────────────────────────────────────────────────────────


ROLE_MEMBER, ROLE_GUEST = "member", "guest"
"""What a peer may be to this node (docs/trust.md#roles)."""


class Stamp(msgspec.Struct, array_like=True, frozen=True):
    """Who a message is from, as the worker's seal proved it; services authorise on this alone (docs/trust.md).

    role: ROLE_MEMBER or ROLE_GUEST. peer: peer token.
    """

    transport: str
    role: str
    peer: str
    link: str


class Inbound(msgspec.Struct, array_like=True, frozen=True):
    """A peer's request. request_id: the peer's own, unique on its link only."""

    stamp: Stamp
    request_id: bytes
    request: PeerRequest


class PeerAnnounced(msgspec.Struct, array_like=True, frozen=True):
    """A peer says that it holds these manifests: its word alone."""

    stamp: Stamp
    manifests: list[str]


class NamedGuests(msgspec.Struct, array_like=True, frozen=True):
    """What guests of one transport say they are called on others: (who says it, whom it names), peer tokens."""

    pairs: list[tuple[str, str]]


class AnnounceManifests(msgspec.Struct, array_like=True, frozen=True):
    """The manifests that peers may hear of, all of them: workers say it on open links, and when a link opens.

    Of class `shared` only. A worker that starts later knows nothing of it until it is said again.
    """

    manifests: list[str]


class InboundAnswer(msgspec.Struct, array_like=True, frozen=True):
    """Header and where to pull the body from; the worker pulls it when its link has room."""

    answer: PeerAnswer
    body: BodyRef | None


# ── identity ────────────────────────────────────────────────────────────────────────────────────────────


class Certify(msgspec.Struct, array_like=True, frozen=True):
    """static_key: the worker's X25519 public key, 32 bytes."""

    static_key: bytes


class SignDhtRecord(msgspec.Struct, array_like=True, frozen=True):
    """body: of the node's record in the DHT, as `shared.wire.dhtrecord` has it."""

    body: bytes


class Signed(msgspec.Struct, array_like=True, frozen=True):
    """The identity's Ed25519 signature, 64 bytes."""

    signature: bytes


class Certificate(msgspec.Struct, array_like=True, frozen=True):
    """identity_key's signature over the link key (docs/trust.md#keys). not_after_s: wall clock, seconds."""

    identity_key: bytes
    not_after_s: int
    signature: bytes


class PeerjsTokenRequest(msgspec.Struct, array_like=True, frozen=True):
    """server: the PeerServer's origin; another server gets another token (docs/trust.md#keys)."""

    server: str


class PeerjsToken(msgspec.Struct, array_like=True, frozen=True):
    token: str


class TransferUpdate(msgspec.Struct, array_like=True, frozen=True, tag="update"):
    """Progress of a put or fetch. state: running, done or failed. Also published as event `transfer`.

    by_transport: confirmed bytes by transport name. link: set when a put is done; how to fetch the file. instance: of
    the chunk service that works on it. waiting: why nothing comes just now, None while it moves.
    """

    call_id: bytes
    kind: str
    state: str
    name: str
    chunks_done: int
    chunks_total: int
    bytes_done: int
    bytes_total: int
    by_transport: dict[str, int]
    cause: Cause | None = None
    link: str = ""
    manifest: str = ""
    started_ms: int = 0
    instance: str = ""
    waiting: Cause | None = None


ReplyMessage = Answered | Slowed | Receipt | TransferUpdate
