"""A client of a PeerServer: one socket, one id, the offers, answers and candidates of many connections.

Driven by:  receive_text for each WebSocket text message; handle_timer at next_deadline; data_to_send after
            either, and after send. The glue opens the socket at `socket_url` and gives every machine one socket.
States:     CONNECTING -> OPEN -> CLOSED, and CONNECTING -> CLOSED. A refusal closes for good; a lost socket is
            the glue's to replace, with a new machine and the SAME id and token.
Invariants: one Opened at most; nothing is sent or reported after CLOSED; a HEARTBEAT every 5 s.

No OPEN: a server that still has our old socket registered re-attaches the id to the new one and sends no OPEN. So
does one that accepts sockets and serves nobody. An echo distinguishes them: after OPEN_GRACE_S we send a message
to our own id, which every PeerServer relays. Its return, or any peer's message, means that we are re-attached;
silence for ECHO_GRACE_S more means that the server is of no use.

Early candidates: browsers trickle, and a CANDIDATE may overtake its OFFER. Those of a connection that is not
known yet wait, bounded and aged, keyed by sender and connection, so that nobody can feed candidates into
another's connection.

Source: the PeerJS client (peerjs 1.5).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError, SwarmbridgeError
from shared.wire.peerjs.messages import (
    Answer,
    AnswerPayload,
    Candidate,
    CandidatePayload,
    Error,
    Expire,
    Heartbeat,
    IceCandidate,
    IdTaken,
    InvalidKey,
    Leave,
    Message,
    Offer,
    OfferPayload,
    Open,
    PeerMessage,
    decode_message,
    decode_relayed,
    encode_message,
)
from shared.wire.peerjs.urls import socket_url

HEARTBEAT_INTERVAL_S = 5.0
"""PeerJS client; servers drop a silent client after 60-90 s."""
OPEN_GRACE_S = 1.5
"""Ours: an OPEN is the server's first message, one round trip after the socket; later means re-attached."""
ECHO_GRACE_S = 1.5
"""Ours: one round trip, as for OPEN."""
ECHO_CONNECTION = "echo"
"""The connection id of the message to ourselves."""
MAX_EARLY_CANDIDATES = 32
"""docs/limits.md#data-channel: candidates of one connection."""
MAX_EARLY_CONNECTIONS = 64
"""docs/limits.md#data-channel: half-open links; the oldest waiting connection is dropped for a new one."""
MAX_EARLY_AGE_S = 10.0
"""Ours: an OFFER that comes later than this after its candidate was not meant for it."""
MAX_KNOWN_CONNECTIONS = 4_096
"""Ours: four times the links of a worker; the least recently used is forgotten."""
MAX_QUEUED_MESSAGES = 1_024
"""Ours: not yet handed to the socket; `send` refuses with BUSY beyond."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Peers can reach us by our id. reattached: the server sent no OPEN, it kept us from the last socket."""

    reattached: bool


@dataclass(frozen=True, slots=True)
class ServerRefused:
    """Closed for good: ID_TAKEN (another token has the id), FORBIDDEN (API key), SILENT (it relays nothing, not
    even to ourselves) or REFUSED (any other error: saturated, say)."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """Candidates that came before it follow as CandidateReceived."""

    src: str
    payload: OfferPayload


@dataclass(frozen=True, slots=True)
class OfferUnusable:
    """An OFFER that is not that of a data connection: of a call, or out of form. Its dialer waits for a word."""

    src: str


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    src: str
    payload: AnswerPayload


@dataclass(frozen=True, slots=True)
class CandidateReceived:
    src: str
    payload: CandidatePayload


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The server says that the peer is gone. Data channels may still live."""

    peer: str


@dataclass(frozen=True, slots=True)
class PeerMissing:
    """An EXPIRE: nobody is registered as `peer`. Every pending dial of it fails with `peer_unknown`."""

    peer: str


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A message was dropped for what it held; count it. The socket stays: the server only relays."""

    cause: Cause


PeerEvent = OfferReceived | OfferUnusable | AnswerReceived | CandidateReceived | PeerLeft | PeerMissing | MessageRefused
"""What a server relays; the others are between it and us."""
SignallingEvent = Opened | ServerRefused | PeerEvent


class SignallingState(Enum):
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


_REFUSALS: dict[type[Message], Cause] = {
    IdTaken: Cause.ID_TAKEN,
    InvalidKey: Cause.FORBIDDEN,
    Error: Cause.REFUSED,
}


@dataclass(slots=True)
class _Early:
    """Candidates of a connection that no OFFER has named yet."""

    since_s: float
    payloads: list[CandidatePayload] = field(default_factory=list)


class SignallingClient:
    """See the module."""

    def __init__(self, peer_id: str, token: str, key: str, version: str, now: float) -> None:
        """Args: now: when the socket came up; seconds of a monotonic clock, as everywhere here."""
        self._id, self._token, self._key, self._version = peer_id, token, key, version
        self._state = SignallingState.CONNECTING
        self._open_deadline_s = now + OPEN_GRACE_S
        self._echo_sent = False
        self._heartbeat_s = now + HEARTBEAT_INTERVAL_S
        self._outbox: list[str] = []
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._early: OrderedDict[tuple[str, str], _Early] = OrderedDict()

    @property
    def state(self) -> SignallingState:
        return self._state

    def socket_url(self, server_url: str) -> str:
        """The WebSocket URL for a server's http(s) URL with its path. Holds the token: never log it."""
        return socket_url(server_url, self._id, self._token, self._key, self._version)

    def receive_text(self, text: str | bytes, now: float) -> list[SignallingEvent]:
        """Take one message from the server. Never raises: what is broken is reported as MessageRefused."""
        if self._state is SignallingState.CLOSED:
            return []
        try:
            message = decode_message(text)
        except RemoteProtocolError as error:
            # An OFFER that we cannot use still has a dialer, who waits for a word; nobody waits for the rest.
            src = _source_of_offer(text)
            return [OfferUnusable(src) if src else MessageRefused(error.cause)]
        if isinstance(message, Offer | Answer | Candidate | Leave | Expire):
            # Whatever is relayed to us shows that we are registered, OPEN or not.
            opened = self._opened(reattached=True)
            # The echo itself is news of nobody.
            return opened if message.src == self._id else opened + self._receive_from_peer(message, now)
        if isinstance(message, Open):
            return self._opened(reattached=False)
        if isinstance(message, Heartbeat):
            return []
        self._state = SignallingState.CLOSED
        self._outbox.clear()
        return [ServerRefused(_REFUSALS[type(message)])]

    def send(self, message: Offer | Answer | Candidate | Leave | Expire) -> None:
        """Queue a message to a peer; it may be sent before Opened, the server knows us by the socket.

        An EXPIRE is passed on by PeerServers, and tells a dialer that there is nobody for it here.

        Raises: SwarmbridgeError(BUSY) while the queue is full; LocalProtocolError after CLOSED.
        """
        if self._state is SignallingState.CLOSED:
            raise LocalProtocolError("the signalling socket is closed")
        # Not for heartbeats and the echo, which are few and keep the registration.
        if len(self._outbox) >= MAX_QUEUED_MESSAGES:
            raise SwarmbridgeError(Cause.BUSY, "too many signalling messages wait")
        self._outbox.append(encode_message(message))
        if not isinstance(message, Leave | Expire):
            # Candidates of the answerer may come ahead of its ANSWER, and need not wait.
            self._know(message.dst, message.payload.connection_id)

    def data_to_send(self) -> list[str]:
        """Texts for the socket, in order; the caller has them now."""
        texts, self._outbox = self._outbox, []
        return texts

    def next_deadline(self) -> float | None:
        """When to call handle_timer; None after CLOSED."""
        if self._state is SignallingState.CLOSED:
            return None
        deadlines = [self._heartbeat_s]
        if self._state is SignallingState.CONNECTING:
            deadlines.append(self._open_deadline_s)
        if self._early:
            deadlines.append(next(iter(self._early.values())).since_s + MAX_EARLY_AGE_S)
        return min(deadlines)

    def handle_timer(self, now: float) -> list[SignallingEvent]:
        """Do what is due: a heartbeat, re-attachment, forgetting candidates whose OFFER never came."""
        if self._state is SignallingState.CLOSED:
            return []
        if now >= self._heartbeat_s:
            # From now, not from when it was due: a late timer must not be followed by a burst.
            self._heartbeat_s = now + HEARTBEAT_INTERVAL_S
            self._outbox.append(encode_message(Heartbeat()))
        while self._early and next(iter(self._early.values())).since_s + MAX_EARLY_AGE_S <= now:
            self._early.popitem(last=False)
        if self._state is SignallingState.CONNECTING and now >= self._open_deadline_s:
            return self._miss_open(now)
        return []

    def _miss_open(self, now: float) -> list[SignallingEvent]:
        # Neither OPEN nor our own word came back: it accepts sockets and relays nothing.
        if self._echo_sent:
            self._state = SignallingState.CLOSED
            self._outbox.clear()
            return [ServerRefused(Cause.SILENT)]
        self._echo_sent = True
        self._open_deadline_s = now + ECHO_GRACE_S
        payload = CandidatePayload(IceCandidate(""), ECHO_CONNECTION)
        self._outbox.append(encode_message(Candidate(payload, dst=self._id)))
        return []

    def _opened(self, *, reattached: bool) -> list[SignallingEvent]:
        if self._state is not SignallingState.CONNECTING:
            return []
        self._state = SignallingState.OPEN
        return [Opened(reattached)]

    def _receive_from_peer(self, message: PeerMessage, now: float) -> list[SignallingEvent]:
        if not message.src:
            return [MessageRefused(Cause.INVALID)]
        match message:
            case Offer(payload=offer, src=src):
                self._know(src, offer.connection_id)
                return [OfferReceived(src, offer), *self._release(src, offer.connection_id)]
            case Answer(payload=answer, src=src):
                return [AnswerReceived(src, answer)]
            case Candidate(payload=candidate, src=src):
                return self._receive_candidate(src, candidate, now)
            case Leave(src=src):
                return [PeerLeft(src)]
            case Expire(src=src):
                return [PeerMissing(src)]
            case _:
                assert_never(message)

    def _receive_candidate(self, src: str, payload: CandidatePayload, now: float) -> list[SignallingEvent]:
        connection = (src, payload.connection_id)
        if connection in self._known:
            self._known.move_to_end(connection)
            return [CandidateReceived(src, payload)]
        early = self._early.get(connection)
        if early is None:
            # The oldest goes: its OFFER is the least likely to come still.
            if len(self._early) >= MAX_EARLY_CONNECTIONS:
                self._early.popitem(last=False)
            early = self._early[connection] = _Early(now)
        if len(early.payloads) >= MAX_EARLY_CANDIDATES:
            return [MessageRefused(Cause.RATE_LIMITED)]
        early.payloads.append(payload)
        return []

    def _know(self, peer: str, connection_id: str) -> None:
        connection = (peer, connection_id)
        self._known[connection] = None
        self._known.move_to_end(connection)
        if len(self._known) > MAX_KNOWN_CONNECTIONS:
            self._known.popitem(last=False)

    def _release(self, peer: str, connection_id: str) -> list[SignallingEvent]:
        early = self._early.pop((peer, connection_id), None)
        return [CandidateReceived(peer, payload) for payload in early.payloads] if early else []


def _source_of_offer(text: str | bytes) -> str:
    """Who sent an OFFER that cannot be read whole; "" where it is none."""
    try:
        relayed = decode_relayed(text)
    except RemoteProtocolError:
        return ""
    return relayed.src if relayed.type == "OFFER" and isinstance(relayed.src, str) else ""
