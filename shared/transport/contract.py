"""What a transport is: something that makes links and carries records over them.

A *record* is one opaque message of a link, kept whole. What is said in records, and who says it, is a speech's
business (shared.speech); requests, the bus and status are the worker's. `serve_transport` puts them on top, the same
for all three. A transport therefore knows sockets, signalling and its own binding, and nothing of chunks; it only says
which speech a link was opened for, and what it has proved about the peer.

    transport ── LinkUp, RecordReceived, LinkDown, StateChanged ──▶ emit
    transport ◀── dial, send, close ── serve_transport
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from shared.bus.messages.records import MeetingPlace
from shared.errors import Cause
from shared.ids import LinkId
from shared.speech.contract import SEALED_NATIVE
from shared.transports import TransportName, TransportState


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What every link of a transport promises; the worker holds it to that.

    max_record_bytes: the longest record `send` takes, and the longest that a peer's may be: a longer one closes its
        link. Sealed links need 65,535 (one Noise message).
    ordered, reliable: False refuses sealed links, whose nonces count records.
    dials_guests: `dial` takes hints of peers without a key; where False, such a peer is unknown.
    """

    max_record_bytes: int
    ordered: bool
    reliable: bool
    dials_guests: bool = False


@dataclass(frozen=True, slots=True)
class PeerHint:
    """Whom to dial: a key, and what we know about where it may be found.

    key: 32-byte Ed25519 identity; empty for a guest, who has none. peerjs_id: derived from the key, or the guest's own
    id. endpoints: `host:port` of its peer wire. fresh: links that are open do not count, the peer is leaving them.
    """

    key: bytes
    peerjs_id: str
    endpoints: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link can carry records both ways. It says nothing yet about who is there, a guest apart.

    dialer: we opened it, so we start the handshake. binding: what ties a seal to this very link.
    expected_key: set where we dialled one peer alone; anyone else is refused as `unauthenticated`.
    speech: what the link was opened for. guest: the id that the transport has proved (that of a PeerJS connection, as
    its server vouches for it), 1 to 64 bytes of UTF-8; "" where only a seal can say it. ordered: whether this very link
    keeps its records in order.
    """

    link: LinkId
    dialer: bool
    binding: bytes
    expected_key: bytes | None
    speech: str = SEALED_NATIVE
    guest: str = ""
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class RecordReceived:
    link: LinkId
    record: bytes


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is gone, whoever closed it. Emitted once for every LinkUp, and for nothing else."""

    link: LinkId
    cause: Cause


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The transport's own state; `last_error` None leaves what was there, DEGRADED keeps its reason."""

    state: TransportState
    last_error: Cause | None = None


TransportEvent = LinkUp | RecordReceived | LinkDown | StateChanged
Emit = Callable[[TransportEvent], None]
"""Synchronous and quick: called from the transport's own tasks on the event loop."""


@runtime_checkable
class Signalled(Protocol):
    """A transport whose peers' signalling may reach the node through another worker (one PeerJS id, N workers)."""

    async def signal(self, message: bytes) -> None:
        """One PeerJS message (JSON) of a connection that this worker owns. Bad ones are counted and dropped."""


@runtime_checkable
class Meets(Protocol):
    """A transport whose peers are met through members of the rendezvous document."""

    def meeting_places(self) -> list[MeetingPlace]:
        """Each member that it uses, or cannot use, with its state."""


class Transport(Protocol):
    """One transport in one worker process.

    Cancellation: cancelling `run` closes every link (a LinkDown each) and every socket before it returns;
    the same object may be run again afterwards (flags turn transports off and on).
    """

    name: TransportName
    capabilities: Capabilities

    def set_identity(self, identity_key: bytes) -> None:
        """The node's own 32-byte Ed25519 key, given once before the first `run`."""

    async def run(self, emit: Emit) -> None:
        """Serve until cancelled. A missing optional part is StateChanged(DEGRADED, cause), never a raise."""

    async def dial(self, hint: PeerHint, timeout_s: float) -> None:
        """Try to open a link that may lead to the peer; return when one is up or discovery is in flight.

        A swarm cannot promise whom it finds, so a dial returns no link: the seal says who came, and
        `serve_transport` waits for the peer's key. Idempotent; dials of one peer may run together.

        Raises: TransportError with the cause, where it is already known that no link will come.
        """

    async def send(self, link: LinkId, record: bytes) -> None:
        """Hand over one record.

        Back-pressure: waits while the link's bounded buffer is full. One task sends on a link at a time.
        Raises: TransportError(CLOSED) for a link that is down, (TOO_LARGE) over max_record_bytes.
        """

    async def close(self, link: LinkId, cause: Cause) -> None:
        """Close the link; a LinkDown with `cause` follows. Unknown links are ignored."""
