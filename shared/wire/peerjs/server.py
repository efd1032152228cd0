"""A PeerServer without sockets: who is registered, what is relayed, what waits, what expires.

Driven by:  open_socket when a client's socket is up, receive_text for each of its messages, close_socket when it
            is gone, handle_timer at next_deadline; commands after each. A socket is any number of the glue's.
States:     of an id: unknown -> registered -> unknown. Registered means: one socket holds it. The same id AND
            token on another socket takes its place, without an OPEN; another token gets ID-TAKEN. LEAVE, the
            end of that socket, or ALIVE_TIMEOUT_S of silence end it.
Invariants: `src` is what we set, never what a client wrote; payloads pass byte for byte; a socket that is
            asked to close gets nothing more.
Absent:     messages to an unknown id wait EXPIRE_AFTER_S from the first of that sender, then the sender gets
            one EXPIRE for them all; LEAVE and EXPIRE never wait.
Full:       over a limit a message is dropped and counted in `refused` by cause. An OFFER that cannot be passed
            on, and what cannot wait any more, expires at once: a page sees `peer-unavailable`, never silence.
EXPIRE:     one that a client sends is passed on to its addressee, as peer does: it is how a peer turns a page's
            dial away at once.

Linked:     several instances may serve the same ids (`linked=True`). Then an id is claimed before it is
            registered (Claim, answered by `claimed`), what is for an id that is not here is offered to the others
            (Forward, answered by `not_forwarded` where nobody has it), and Registered and Unregistered tell the
            glue whose messages this instance wants. Two instances that registered one id in the same moment
            settle it by `registered_elsewhere`.

Left out: the message rate of a socket, sockets an address and in all: the glue's, which sees addresses.
Source: the PeerServer protocol (peer 1.0), by observation; INVALID-KEY, which peerjs knows and peer says as ERROR.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

import msgspec

from shared.errors import Cause, RemoteProtocolError
from shared.token_bucket import TokenBucket
from shared.wire.peerjs.messages import (
    MAX_ID_BYTES,
    MAX_TOKEN_BYTES,
    Error,
    ErrorText,
    Expire,
    IdTaken,
    InvalidKey,
    Message,
    Open,
    Relayed,
    decode_relayed,
    encode_message,
)
from shared.wire.peerjs.server_commands import (
    Claim,
    ClaimAnswer,
    CloseSocket,
    Command,
    Forward,
    Registered,
    SendText,
    SocketId,
    Unregistered,
)

DEFAULT_KEY = "peerjs"
"""The API key that every PeerJS client has by default; it is no secret."""
ALIVE_TIMEOUT_S = 90.0
"""docs/peerjs.md: 60-90 s without a HEARTBEAT (every 5 s)."""
EXPIRE_AFTER_S = 5.0
"""peer's own: how long a message waits for an absent id."""
OFFERS_PER_SOURCE_S = 10.0
OFFER_BURST_PER_SOURCE = 100.0
"""Ours: a page that joins a room of 50 dials it all at once, twice where it is reloaded."""
OFFERS_PER_TARGET_S = 20.0
OFFER_BURST_PER_TARGET = 200.0
"""Ours: 200 peers may dial one that joins, in the same moment."""
MAX_WAITING_MESSAGES = 64
"""Ours: of one sender to one absent id: an offer and twice the 32 candidates of one connection."""
MAX_EARLY_TEXTS = 16
"""Ours: what a client sends while its id is being claimed; clients wait for OPEN, so hardly anything."""
MAX_WAITING_BYTES = 16 * 2**20
"""Ours: of all that waits."""

_RELAYED: Final = frozenset({"OFFER", "ANSWER", "CANDIDATE", "LEAVE", "EXPIRE"})
_NEVER_WAIT: Final = frozenset({"LEAVE", "EXPIRE"})
"""They tell that somebody is gone: news that nobody needs later."""
_NO_PARAMETERS: Final = "No id, token, or key supplied to websocket server"


@dataclass(slots=True)
class _Claiming:
    """A socket whose id is being claimed from the other instances."""

    peer_id: str
    token: str
    texts: list[str | bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Client:
    token: str
    socket: SocketId
    offers_out: TokenBucket
    offers_in: TokenBucket


@dataclass(slots=True)
class _Waiting:
    """What one sender sent to one absent id."""

    expires_s: float
    texts: list[str] = field(default_factory=list)
    size_bytes: int = 0


class PeerServer:
    """See the module."""

    def __init__(self, key: str = DEFAULT_KEY, *, linked: bool = False) -> None:
        """Args: linked: there may be other instances; the glue answers Claim and Forward."""
        self._key, self._linked = key, linked
        self._claiming: dict[SocketId, _Claiming] = {}
        self._clients: dict[str, _Client] = {}
        self._ids: dict[SocketId, str] = {}
        self._heard: OrderedDict[str, float] = OrderedDict()
        self._waiting: OrderedDict[tuple[str, str], _Waiting] = OrderedDict()
        self._senders: dict[str, dict[str, None]] = {}
        self._waiting_bytes = 0
        self._commands: list[Command] = []
        self.refused: Counter[Cause] = Counter()

    def peer_ids(self) -> list[str]:
        """Every registered id."""
        return list(self._clients)

    def has(self, peer_id: str) -> bool:
        """Whether the id is registered here."""
        return peer_id in self._clients

    @property
    def peer_count(self) -> int:
        return len(self._clients)

    def open_socket(self, socket: SocketId, key: str, peer_id: str, token: str, now: float) -> None:
        """A client's socket is up, with what its URL says. It may be asked to close at once."""
        # The order is peer's own, and so are the words: clients show them to people.
        if not (key and peer_id and token):
            return self._refuse_socket(socket, Error(ErrorText(_NO_PARAMETERS)), Cause.INVALID)
        if key != self._key:
            return self._refuse_socket(socket, InvalidKey(ErrorText("Invalid key provided")), Cause.FORBIDDEN)
        if not _fits(peer_id, MAX_ID_BYTES) or not _fits(token, MAX_TOKEN_BYTES):
            return self._refuse_socket(socket, Error(ErrorText("Invalid id or token")), Cause.TOO_LARGE)
        # One that is here needs no asking: its token decides, as for a server that is alone.
        if self._linked and peer_id not in self._clients:
            self._claiming[socket] = _Claiming(peer_id, token)
            self._commands.append(Claim(socket, peer_id, digest_of(token)))
            return None
        return self._admit(socket, peer_id, token, now)

    def _admit(self, socket: SocketId, peer_id: str, token: str, now: float) -> None:
        if (client := self._clients.get(peer_id)) is None:
            self._register(socket, peer_id, token, now)
        elif _same(client.token, token):
            self._reattach(socket, peer_id, client, now)
        else:
            self._refuse_socket(socket, IdTaken(ErrorText("ID is taken")), Cause.ID_TAKEN)

    def receive_text(self, socket: SocketId, text: str | bytes, now: float) -> None:
        """Take one message from a socket. Never raises: a bad one is dropped and counted."""
        source = self._ids.get(socket)
        if source is None:
            claiming = self._claiming.get(socket)
            if claiming is not None and len(claiming.texts) < MAX_EARLY_TEXTS:
                claiming.texts.append(text)
            return
        # Any message is a sign of life, a broken one too.
        self._hear(source, now)
        try:
            message = decode_relayed(text)
        except RemoteProtocolError as error:
            self.refused[error.cause] += 1
            return
        if message.type in _RELAYED:
            self._relay(source, message, now)
        elif message.type != "HEARTBEAT":
            self.refused[Cause.INVALID] += 1

    def close_socket(self, socket: SocketId) -> None:
        """The socket is gone. Its id is free, unless another socket has taken its place. Nobody is notified."""
        self._claiming.pop(socket, None)
        peer_id = self._ids.pop(socket, None)
        if peer_id is not None:
            del self._clients[peer_id]
            del self._heard[peer_id]
            if self._linked:
                self._commands.append(Unregistered(peer_id))

    # ── the other instances ──────────────────────────────────────────────────────────────────────────────

    def claimed(self, socket: SocketId, taken: bool, now: float) -> None:
        """What the other instances said to a Claim. Does nothing where the socket is gone."""
        claiming = self._claiming.pop(socket, None)
        if claiming is None:
            return
        if taken:
            self._refuse_socket(socket, IdTaken(ErrorText("ID is taken")), Cause.ID_TAKEN)
            return
        # Another socket of ours may have come first while the claim was out: it is looked at again.
        self._admit(socket, claiming.peer_id, claiming.token, now)
        # What came while its id was asked for, in order, as if it had come now.
        for text in claiming.texts:
            self.receive_text(socket, text, now)

    def claimed_elsewhere(self, peer_id: str, digest: bytes) -> ClaimAnswer:
        """Another instance has a client that wants this id. Under the same token it may have it: ours is closed."""
        client = self._clients.get(peer_id)
        if client is None:
            return ClaimAnswer.ABSENT
        if not hmac.compare_digest(digest_of(client.token), digest):
            return ClaimAnswer.TAKEN
        # Ours goes first, before the other is answered: for no moment do two instances have the id.
        self._unregister(peer_id)
        return ClaimAnswer.YIELDED

    def registered_elsewhere(self, peer_id: str, digest: bytes, *, they_keep: bool) -> None:
        """Another instance has registered this id: it gets what waits here, and a double registration ends.

        Args: they_keep: which of the two keeps it, where both have it; the other instance decides the opposite.
        """
        for source in list(self._senders.get(peer_id, ())):
            texts = self._take_waiting(peer_id, source)
            self._commands += (Forward(peer_id, source, "", text) for text in texts)
        client = self._clients.get(peer_id)
        if client is None or not they_keep:
            return
        if not hmac.compare_digest(digest_of(client.token), digest):
            self.refused[Cause.ID_TAKEN] += 1
            self._send(client.socket, IdTaken(ErrorText("ID is taken")))
        self._unregister(peer_id)

    def registrations(self) -> list[Registered]:
        """Every id that is here, for instances that may have missed it."""
        return [Registered(peer_id, digest_of(client.token)) for peer_id, client in self._clients.items()]

    def receive_forwarded(self, target: str, source: str, type_: str, text: str, now: float) -> Cause | None:
        """A message from a client of another instance.

        Returns: None where it is passed on; PEER_UNKNOWN where the target is not here; RATE_LIMITED.
        """
        receiver = self._clients.get(target)
        if receiver is None:
            return Cause.PEER_UNKNOWN
        if type_ == "OFFER" and not receiver.offers_in.take(now):
            self.refused[Cause.RATE_LIMITED] += 1
            return Cause.RATE_LIMITED
        self._commands.append(SendText(receiver.socket, text))
        return None

    def not_forwarded(self, forward: Forward, cause: Cause, now: float) -> None:
        """No instance took a Forward: it waits here, or expires at once where the target is there and full."""
        if forward.type in _NEVER_WAIT:
            return
        if forward.target in self._clients:  # it came while the message was out
            self._commands.append(SendText(self._clients[forward.target].socket, forward.text))
        elif cause is Cause.PEER_UNKNOWN:
            self._wait(forward.target, forward.source, forward.text, now)
        elif forward.type == "OFFER":
            self._expire(forward.target, forward.source)

    def commands(self) -> list[Command]:
        """What is to be done, in order; the caller has it now."""
        commands, self._commands = self._commands, []
        return commands

    def next_deadline(self) -> float | None:
        """When to call handle_timer."""
        deadlines = [next(iter(self._heard.values())) + ALIVE_TIMEOUT_S] if self._heard else []
        if self._waiting:
            deadlines.append(next(iter(self._waiting.values())).expires_s)
        return min(deadlines, default=None)

    def handle_timer(self, now: float) -> None:
        """Expire what waited too long; drop who was silent too long."""
        # In the order of their expiry, which is that of their beginning: only what is due is looked at.
        while self._waiting and next(iter(self._waiting.values())).expires_s <= now:
            target, source = next(iter(self._waiting))
            self._take_waiting(target, source)
            self._expire(target, source)
        while self._heard and next(iter(self._heard.values())) + ALIVE_TIMEOUT_S <= now:
            self._unregister(next(iter(self._heard)))

    def _register(self, socket: SocketId, peer_id: str, token: str, now: float) -> None:
        self._clients[peer_id] = _Client(
            token,
            socket,
            TokenBucket(OFFERS_PER_SOURCE_S, OFFER_BURST_PER_SOURCE, now),
            TokenBucket(OFFERS_PER_TARGET_S, OFFER_BURST_PER_TARGET, now),
        )
        self._ids[socket] = peer_id
        self._hear(peer_id, now)
        if self._linked:
            self._commands.append(Registered(peer_id, digest_of(token)))
        # Before what waited: a client acts on nothing ahead of its OPEN.
        self._send(socket, Open())
        for source in list(self._senders.get(peer_id, ())):
            self._commands += (SendText(socket, text) for text in self._take_waiting(peer_id, source))

    def _reattach(self, socket: SocketId, peer_id: str, client: _Client, now: float) -> None:
        old, client.socket = client.socket, socket
        # Before the old socket closes: its end must not unregister the id that has moved on.
        del self._ids[old]
        self._ids[socket] = peer_id
        self._hear(peer_id, now)
        self._commands.append(CloseSocket(old))

    def _unregister(self, peer_id: str) -> None:
        socket = self._clients[peer_id].socket
        self.close_socket(socket)
        self._commands.append(CloseSocket(socket))

    def _relay(self, source: str, message: Relayed, now: float) -> None:
        target = message.dst
        if not isinstance(target, str) or not target:
            if message.type == "LEAVE":
                self._unregister(source)
            else:
                self.refused[Cause.INVALID] += 1
            return
        receiver = self._clients.get(target)
        if message.type == "OFFER" and not self._may_offer(self._clients[source], receiver, now):
            self.refused[Cause.RATE_LIMITED] += 1
            # At once: a page would wait its own time out for an offer that has been dropped.
            self._expire(target, source)
            return
        text = encode_message(msgspec.structs.replace(message, src=source))
        if receiver is not None:
            self._commands.append(SendText(receiver.socket, text))
        # While something waits for it here, what follows waits behind it, or it would arrive first.
        elif self._linked and (target, source) not in self._waiting:
            self._commands.append(Forward(target, source, message.type, text))
        elif message.type not in _NEVER_WAIT:
            self._wait(target, source, text, now)

    def _may_offer(self, sender: _Client, receiver: _Client | None, now: float) -> bool:
        # An absent receiver needs no bucket: what waits for it is bounded.
        return sender.offers_out.take(now) and (receiver is None or receiver.offers_in.take(now))

    def _wait(self, target: str, source: str, text: str, now: float) -> None:
        size_bytes = len(text.encode())
        waiting = self._waiting.get((target, source))
        full = waiting is not None and len(waiting.texts) >= MAX_WAITING_MESSAGES
        if full or self._waiting_bytes + size_bytes > MAX_WAITING_BYTES:
            self.refused[Cause.BUSY] += 1
            if waiting is None:
                self._expire(target, source)
            return
        if waiting is None:
            waiting = self._waiting[(target, source)] = _Waiting(now + EXPIRE_AFTER_S)
            self._senders.setdefault(target, {})[source] = None
        waiting.texts.append(text)
        waiting.size_bytes += size_bytes
        self._waiting_bytes += size_bytes

    def _take_waiting(self, target: str, source: str) -> list[str]:
        waiting = self._waiting.pop((target, source))
        self._waiting_bytes -= waiting.size_bytes
        senders = self._senders[target]
        del senders[source]
        if not senders:
            del self._senders[target]
        return waiting.texts

    def _expire(self, target: str, source: str) -> None:
        sender = self._clients.get(source)
        if sender is not None:
            self._send(sender.socket, Expire(src=target, dst=source))

    def _hear(self, peer_id: str, now: float) -> None:
        self._heard[peer_id] = now
        self._heard.move_to_end(peer_id)

    def _refuse_socket(self, socket: SocketId, message: Message, cause: Cause) -> None:
        self.refused[cause] += 1
        self._send(socket, message)
        self._commands.append(CloseSocket(socket))

    def _send(self, socket: SocketId, message: Message) -> None:
        self._commands.append(SendText(socket, encode_message(message)))


def digest_of(token: str) -> bytes:
    """What another instance may know of a token."""
    return hashlib.sha256(token.encode()).digest()


def _same(ours: str, theirs: str) -> bool:
    # In constant time: how long a refusal takes must not tell how much of a token was right.
    return hmac.compare_digest(ours.encode(), theirs.encode())


def _fits(text: str, max_bytes: int) -> bool:
    try:
        # A character is at least a byte: what is long by characters need not be encoded to know it.
        return len(text) <= max_bytes and len(text.encode()) <= max_bytes
    except UnicodeEncodeError:
        return False  # a lone surrogate from a URL: no JSON could name it
