"""What is said on a link, whoever says it: the one contract between a worker and the peers that it talks to.

    transport ── records ──▶ Speech ── events ──▶ the worker (asks managers, notifies them)
    transport ◀── records ── Speech ◀── ask, answer, take_body, fail, cancel, announce, goodbye

A speech is sans-IO: records and `now` in, records and events out. It knows who the peer is (a member by its seal, a
guest by what the transport proved), how requests and answers look on the wire, and when a quiet peer is a dead one.
It knows no bus, no transport and no policy; the worker above it knows no frames.

Time: `now` is monotonic, in seconds. A speech that needs the wall clock is given it once, where it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.content.messages import PeerAnswer, PeerRequest
from shared.errors import Cause
from shared.ids import PeerToken

MAX_ASKED_OF_A_PAGE = 8
"""A page answers one after another; more would only wait there."""

SEALED_NATIVE = "sealed_native"
"""Native frames under the seal: how nodes talk to each other."""


@dataclass(frozen=True, slots=True)
class PeerProved:
    """It is known who is there; comes once, before every other event. A guest's token starts with `g`."""

    peer: PeerToken


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The peer asks. request_id: 16 bytes, unique on this link. remaining_ms: how long it still waits."""

    request_id: bytes
    request: PeerRequest
    remaining_ms: int
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The peer has too many requests open, or asks what its wire must not show; it has been answered. Count it."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The peer wants no answer any more; send nothing further for it."""

    request_id: bytes


@dataclass(frozen=True, slots=True)
class AnswerProgressed:
    """bytes: of the body so far; 0 = the peer has the request, or begins its answer."""

    request_id: bytes
    bytes: int


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """The whole answer to a request of ours."""

    request_id: bytes
    answer: PeerAnswer
    body: bytes


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request of ours ends without an answer. Once for each `ask` that got none and was not cancelled."""

    request_id: bytes
    cause: Cause
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Announced:
    """The peer says that it holds these manifests, at most MAX_ANNOUNCED. Its word alone, and proof of nothing."""

    manifests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NamedElsewhere:
    """The peer says that another transport knows it as this guest. Its word alone, until that guest says so too."""

    guest: str


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The peer drains: answers may still come, new requests belong on another link. cause: close the link for it."""

    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Nothing more can be said on this link: close it for the cause (silence, a handshake that took too long)."""

    cause: Cause


Event = (
    PeerProved
    | RequestReceived
    | RequestRefused
    | RequestCancelled
    | AnswerProgressed
    | AnswerReceived
    | RequestFailed
    | Announced
    | NamedElsewhere
    | PeerLeft
    | SpeechEnded
)


class Speech(Protocol):
    """One way to talk on one link, from its opening to its end.

    Driven by:   `receive_record` for each record of the transport, `handle_timer` at `next_deadline`, and the worker's
                 own calls. After any of them: take `events`, then send what `next_record` returns until it is None.
    States:      opening -> open (PeerProved) -> ended. Before PeerProved nothing may be asked or answered.
    Invariants:  every `ask` ends in exactly one AnswerReceived or RequestFailed, unless it is cancelled or the link
                 closes. An answer counts for an id that was asked and not cancelled; anything else is counted, and
                 too much of it ends the link. What a peer can make us keep is bounded.
    """

    acks: bool
    """Whether the peer says at once that it has a request; where it cannot, silence means nothing yet."""
    confirms: bool
    """Whether the peer answers requests at all."""
    max_asked: int
    """Requests of ours that may be without an answer at a time."""

    @property
    def rtt_s(self) -> float:
        """The smoothed round trip, 0 = not known yet."""

    @property
    def asked_count(self) -> int:
        """Requests of ours without an answer."""

    @property
    def claimed_key(self) -> bytes:
        """The identity key whose owner it is, or who it said it was where it was turned away; empty = not known."""

    # ── the wire ──

    def receive_record(self, record: bytes, now: float) -> None:
        """Take one record. Raises: RemoteProtocolError; send what is left to send, then close with its cause."""

    def events(self) -> list[Event]:
        """What has happened since the last call, in order."""

    def next_record(self) -> bytes | None:
        """The next record for the transport; None = nothing to send. Small messages go ahead of bodies.

        One at a time, because a record may be numbered by its place (a seal is), and because what is queued while
        the transport is full may still go ahead of a body.
        """

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called; None = not at all."""

    def handle_timer(self, now: float) -> None:
        """Do what is due: keepalives, giving up on silence."""

    def close(self) -> None:
        """The link is gone: forget keys, give back what reassembly had reserved."""

    # ── requests of ours ──

    def ask(self, request_id: bytes, request: PeerRequest, remaining_ms: int, traceparent: str, now: float) -> None:
        """Send a request. Raises: LocalProtocolError where the id is in use."""

    def cancel(self, request_id: bytes) -> None:
        """Want no answer any more; the peer is notified where the speech can say so. An unknown id is ignored."""

    # ── requests of the peer ──

    def open_requests(self) -> list[bytes]:
        """The peer's requests that have no whole answer yet."""

    def answer(self, request_id: bytes, answer: PeerAnswer, body_bytes: int) -> None:
        """Begin an answer; where body_bytes > 0 its body follows by `take_body`. A cancelled request is ignored.

        Raises: SwarmbridgeError: TOO_LARGE, or BUSY where a gathered body has no room now; `fail` it with that.
        """

    def take_body(self, request_id: bytes, data: memoryview) -> int:
        """Take the next bytes of a body, in order.

        Returns: how many were taken; 0 = no room, offer them again when a record has been sent. Everything is
                 "taken" for a request that is not open any more.
        """

    def fail(self, request_id: bytes, cause: Cause, retry_after_ms: int = 0) -> None:
        """Refuse a peer's request, in whatever words the speech has for it. A cancelled request is ignored."""

    # ── both ways ──

    def announce(self, manifests: Sequence[str]) -> None:
        """Say which manifests we hold; ignored where the speech has no word for it."""

    def goodbye(self, cause: Cause | None = None) -> None:
        """Say to the peer that we drain, or for which cause it is to close the link, where the speech can say so."""

    def has_more_to_send(self) -> bool:
        """Whether something is queued, sendable now or not."""
