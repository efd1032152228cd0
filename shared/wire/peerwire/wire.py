"""PeerWire: one BitTorrent wire that carries `swarm-space` frames, whatever stream is below it.

Driven by: the stream's bytes (`receive_data`), the clock (`next_deadline`, `handle_timer`) and `send_frame`;
           what it wants written is in `data_to_send`, to be asked for after each of them.

States, and what moves them:
    AWAIT_HANDSHAKE   68 good bytes -> AWAIT_EXTENDED; a listener that sees anything else -> AWAIT_PLAINTEXT
    AWAIT_PLAINTEXT   the handshake, after an encrypted start -> AWAIT_EXTENDED
    AWAIT_EXTENDED    extended handshake with swarm-space -> OPEN
    OPEN              frames both ways
    CLOSED            from any state: a broken rule, a limit, silence; `Closed` is the last event

Invariants: no frame goes out before the peer's `m` named `swarm-space` (libtorrent would disconnect;
docs/webtorrent.md);
            a bad peer never raises here, it ends in `Closed(cause)`; the bytes kept are at most one message.

Encrypted starts (MSE): a webtorrent that dials us begins with a Diffie-Hellman key. A plaintext handshake in
answer makes it go on in plaintext on the same stream; libtorrent redials in plaintext once we close, so the
wait is short. One listener has one infohash, so the answer needs no guess (docs/webtorrent.md).

Who is not wanted is closed before it gets a handshake of ours: a webtorrent takes any handshake for a success, and
dials again a second later; after three dials without one it stops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.token_bucket import TokenBucket
from shared.wire.peerwire import bencode, extended, handshake, messages
from shared.wire.peerwire.extended import ExtendedHandshake
from shared.wire.peerwire.handshake import Handshake
from shared.wire.peerwire.messages import MessageId

OUR_SWARM_SPACE_ID = 1
"""The id under which we receive frames."""

CLIENT = "swarmbridge"

MSE_KEY_AND_PAD_BYTES = 96 + 512
"""The most that an encrypted start sends before it waits for an answer: DH key and padding."""

USELESS_PER_S = 50.0
USELESS_BURST = 1_000.0
"""Messages that bring us nothing: about pieces, of which we have none, keep-alives, extended handshakes after the
first. A polite client sends a handful when a wire opens, one that has the control infohash as a torrent a few more.
Beyond that the wire closes, `rate_limited`: each costs us more to read than its peer to write."""

# An extended message's id byte and its extended id byte.
_EXTENDED_HEAD_BYTES = 2


@dataclass(frozen=True, slots=True)
class PeerWireLimits:
    """Limits of one wire (docs/limits.md#peer-wire), times in seconds.

    max_frame_bytes: longest frame either way; every other message is held to it too.
    max_extended_handshake_bytes, max_extended_handshake_depth: of the bencoded dictionary.
    handshake_timeout_s: for both handshakes together. encrypted_wait_s: how long an encrypted start may take to
    turn to plaintext. idle_timeout_s: without a byte. keep_alive_s: between our keep-alives.
    """

    max_frame_bytes: int = 66 * 1024
    max_extended_handshake_bytes: int = bencode.MAX_BYTES
    max_extended_handshake_depth: int = bencode.MAX_DEPTH
    handshake_timeout_s: float = 10.0
    encrypted_wait_s: float = 1.0
    idle_timeout_s: float = 120.0
    keep_alive_s: float = 55.0


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """The peer's BEP 3 handshake for our infohash. peer_id: 20 bytes. reserved: 8 bytes."""

    peer_id: bytes
    reserved: bytes


@dataclass(frozen=True, slots=True)
class ExtendedHandshakeDone:
    """The peer's BEP 10 handshake. client: "" or what it calls itself. port: where it listens, None unknown.

    seals: it is a node; the other one that has swarm-space is a plain client with the extension.
    """

    has_swarm_space: bool
    client: str
    port: int | None
    seals: bool = False


@dataclass(frozen=True, slots=True)
class FrameReceived:
    frame: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The wire is over: write what is left in `data_to_send`, then close the stream."""

    cause: Cause


Event = HandshakeDone | ExtendedHandshakeDone | FrameReceived | Closed


class _State(Enum):
    AWAIT_HANDSHAKE = auto()
    AWAIT_PLAINTEXT = auto()
    AWAIT_EXTENDED = auto()
    OPEN = auto()
    CLOSED = auto()


_BEFORE_HANDSHAKE = frozenset({_State.AWAIT_HANDSHAKE, _State.AWAIT_PLAINTEXT})


class PeerWire:
    """See the module. initiator: our handshake goes first. infohash, peer_id: ours, 20 bytes.

    listen_port: sent to the peer as `p`, 0 = none. unwanted: whether a peer with this id is turned away.
    answers_encrypted: whether an encrypted start is answered; False where its sender is most likely not wanted.
    """

    def __init__(
        self,
        initiator: bool,
        infohash: bytes,
        peer_id: bytes,
        now: float,
        limits: PeerWireLimits | None = None,
        *,
        listen_port: int = 0,
        unwanted: Callable[[bytes], bool] = lambda peer_id: False,
        answers_encrypted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._initiator = initiator
        self._infohash = infohash
        self._peer_id = peer_id
        self._limits = limits or PeerWireLimits()
        self._listen_port = listen_port
        self._unwanted = unwanted
        self._answers_encrypted = answers_encrypted
        self._state = _State.AWAIT_HANDSHAKE
        self._useless = TokenBucket(USELESS_PER_S, USELESS_BURST, now)
        self._now = now
        self._buffer = bytearray()
        self._outgoing: list[bytes] = []
        self._handshake_sent = False
        self._their_swarm_space_id: int | None = None
        self._handshake_by = now + self._limits.handshake_timeout_s
        self._last_received = now
        self._keep_alive_at = now + self._limits.keep_alive_s
        if initiator:
            self._send_handshake()

    # ── driving ─────────────────────────────────────────────────────────────────────────────────────────

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """Take bytes of the stream, split anywhere; they are copied where they must be kept.

        Returns: what they completed, in order; `Closed` is last, and nothing comes after it.
        """
        events: list[Event] = []
        if self._state is _State.CLOSED or not data:
            return events
        self._last_received = self._now = now
        try:
            if self._state in _BEFORE_HANDSHAKE:
                self._receive_handshake(data, now, events)
            else:
                self._receive_messages(memoryview(data), events)
        except RemoteProtocolError as error:
            self._close(error.cause, events)
        return events

    def send_frame(self, frame: bytes | bytearray | memoryview) -> None:
        """Queue one frame, 0 to max_frame_bytes.

        Raises: LocalProtocolError: the peer has not named `swarm-space`, the wire is closed, or it is too long.
        """
        if self._state is not _State.OPEN or self._their_swarm_space_id is None:
            raise LocalProtocolError("no frame may be sent to a peer that did not ask for swarm-space")
        if len(frame) > self._limits.max_frame_bytes:
            raise LocalProtocolError("a frame over the wire's limit")
        self._outgoing.append(messages.extended_head(self._their_swarm_space_id, len(frame)))
        self._outgoing.append(bytes(frame))

    def data_to_send(self) -> bytes:
        """Everything to write now, b"" for nothing; it is ours no longer."""
        outgoing, self._outgoing = self._outgoing, []
        return b"".join(outgoing)

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called; None once closed."""
        if self._state is _State.CLOSED:
            return None
        if self._state is _State.OPEN:
            return min(self._keep_alive_at, self._last_received + self._limits.idle_timeout_s)
        return self._handshake_by

    def handle_timer(self, now: float) -> list[Event]:
        """Let time pass: keep-alives, and the end of wires that keep us waiting. Too early is harmless."""
        events: list[Event] = []
        if self._state is _State.OPEN:
            if now >= self._last_received + self._limits.idle_timeout_s:
                self._close(Cause.SILENT, events)
            elif now >= self._keep_alive_at:
                self._outgoing.append(messages.KEEP_ALIVE)
                self._keep_alive_at = now + self._limits.keep_alive_s
        elif self._state is not _State.CLOSED and now >= self._handshake_by:
            encrypted = self._state is _State.AWAIT_PLAINTEXT
            self._close(Cause.REFUSED if encrypted else Cause.TIMEOUT, events)
        return events

    def forget(self) -> None:
        """The stream is over: keep nothing of it. Whoever still holds the machine may hold it for long."""
        self._state = _State.CLOSED
        self._buffer = bytearray()
        self._outgoing = []

    # ── handshake ───────────────────────────────────────────────────────────────────────────────────────

    def _receive_handshake(self, data: bytes | bytearray | memoryview, now: float, events: list[Event]) -> None:
        # Only until the handshake, which is short: messages are read where they lie.
        self._buffer += data
        if self._state is _State.AWAIT_HANDSHAKE and not self._starts_plainly():
            if self._initiator:
                raise RemoteProtocolError("not a BitTorrent handshake")
            if not self._answers_encrypted():
                raise RemoteProtocolError("an encrypted start of a peer that is not wanted", Cause.REFUSED)
            self._state = _State.AWAIT_PLAINTEXT
            # Sooner, never later: who cannot go on in plaintext redials when we close.
            self._handshake_by = min(self._handshake_by, now + self._limits.encrypted_wait_s)
            self._send_handshake()
        if self._state is _State.AWAIT_PLAINTEXT and not self._skip_encrypted_start():
            return
        if len(self._buffer) < handshake.HANDSHAKE_BYTES:
            return
        # What follows may be messages of the same read: they go on below.
        theirs = handshake.decode_handshake(bytes(self._buffer[: handshake.HANDSHAKE_BYTES]))
        rest, self._buffer = self._buffer[handshake.HANDSHAKE_BYTES :], bytearray()
        self._accept_handshake(theirs, events)
        self._receive_messages(memoryview(rest), events)

    def _starts_plainly(self) -> bool:
        compared = min(len(self._buffer), len(handshake.PROTOCOL))
        return self._buffer[:compared] == handshake.PROTOCOL[:compared]

    def _skip_encrypted_start(self) -> bool:
        """Drop what comes before the plaintext handshake. Returns: whether that has been found."""
        search_bytes = MSE_KEY_AND_PAD_BYTES + len(handshake.PROTOCOL)
        start = self._buffer.find(handshake.PROTOCOL, 0, search_bytes)
        if start > 0:
            del self._buffer[:start]
        if start < 0 and len(self._buffer) >= search_bytes:
            raise RemoteProtocolError("an encrypted wire", Cause.REFUSED)
        return start >= 0

    def _accept_handshake(self, theirs: Handshake, events: list[Event]) -> None:
        if theirs.infohash != self._infohash:
            raise RemoteProtocolError("another swarm's infohash", Cause.REFUSED)
        if self._unwanted(theirs.peer_id):
            raise RemoteProtocolError("a peer that is not wanted", Cause.NO_EXTENSION)
        # Behind the refusals: who is not wanted gets none, which is what makes it stop dialling.
        self._send_handshake()
        events.append(HandshakeDone(theirs.peer_id, theirs.reserved))
        # After HandshakeDone: its owner learns by it which endpoint is our own.
        if theirs.peer_id == self._peer_id:
            raise RemoteProtocolError("a wire to ourselves", Cause.REFUSED)
        if not theirs.speaks_extensions:
            raise RemoteProtocolError("no extension protocol", Cause.NO_EXTENSION)
        self._state = _State.AWAIT_EXTENDED
        self._send_extended_handshake()

    def _send_handshake(self) -> None:
        if not self._handshake_sent:
            self._handshake_sent = True
            self._outgoing.append(handshake.encode_handshake(Handshake(self._infohash, self._peer_id)))

    def _send_extended_handshake(self) -> None:
        ours = ExtendedHandshake(
            {extended.EXTENSION_NAME: OUR_SWARM_SPACE_ID}, port=self._listen_port or None, client=CLIENT, seals=True
        )
        body = extended.encode_extended_handshake(ours)
        self._outgoing.append(messages.extended_head(extended.HANDSHAKE_ID, len(body)) + body)

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────

    def _receive_messages(self, data: memoryview, events: list[Event]) -> None:
        # Whole messages are read where they lie; only the cut-off last one is kept.
        offset = self._complete_kept(data, events) if self._buffer else 0
        while len(data) - offset >= messages.LENGTH_BYTES:
            stop = offset + messages.LENGTH_BYTES + self._message_bytes(data[offset : offset + messages.LENGTH_BYTES])
            if stop > len(data):
                break
            self._receive_message(data[offset + messages.LENGTH_BYTES : stop], events)
            offset = stop
        self._buffer += data[offset:]

    def _complete_kept(self, data: memoryview, events: list[Event]) -> int:
        """Add to the message that was cut off. Returns: how many bytes of `data` belong to it."""
        # The length itself may have been cut off in the middle.
        used = max(0, min(messages.LENGTH_BYTES - len(self._buffer), len(data)))
        self._buffer += data[:used]
        if len(self._buffer) < messages.LENGTH_BYTES:
            return used
        whole_bytes = messages.LENGTH_BYTES + self._message_bytes(self._buffer[: messages.LENGTH_BYTES])
        taken = min(whole_bytes - len(self._buffer), len(data) - used)
        self._buffer += data[used : used + taken]
        if len(self._buffer) == whole_bytes:
            # A fresh buffer: views of the old one may be alive, and a viewed bytearray cannot shrink.
            whole, self._buffer = self._buffer, bytearray()
            self._receive_message(memoryview(whole)[messages.LENGTH_BYTES :], events)
        return used + taken

    def _message_bytes(self, prefix: memoryview | bytearray) -> int:
        length = int.from_bytes(prefix, "big")
        if length > self._limits.max_frame_bytes + _EXTENDED_HEAD_BYTES:
            raise RemoteProtocolError("a message over the wire's limit", Cause.TOO_LARGE)
        return length

    def _receive_message(self, payload: memoryview, events: list[Event]) -> None:
        if not payload:
            self._ignore()
            return
        message = messages.decode_message(payload)
        if message.id != MessageId.EXTENDED:
            self._ignore()
            return
        extended_id, body = message.body[0], message.body[1:]
        if extended_id == extended.HANDSHAKE_ID:
            self._receive_extended_handshake(body, events)
        elif extended_id == OUR_SWARM_SPACE_ID:
            if self._state is not _State.OPEN:
                raise RemoteProtocolError("a frame before the extended handshake")
            events.append(FrameReceived(bytes(body)))
        else:
            self._ignore()

    def _ignore(self) -> None:
        if not self._useless.take(self._now):
            raise RemoteProtocolError("too many messages that mean nothing to us", Cause.RATE_LIMITED)

    def _receive_extended_handshake(self, body: memoryview, events: list[Event]) -> None:
        limits = self._limits
        first = self._state is _State.AWAIT_EXTENDED
        if not first:
            self._ignore()
        if len(body) > limits.max_extended_handshake_bytes:
            raise RemoteProtocolError("an extended handshake over its limit", Cause.TOO_LARGE)
        theirs = extended.decode_extended_handshake(
            bytes(body),
            max_bytes=limits.max_extended_handshake_bytes,
            max_depth=limits.max_extended_handshake_depth,
        )
        if first:
            known = theirs.swarm_space_id
            events.append(ExtendedHandshakeDone(known is not None, theirs.client, theirs.port, theirs.seals))
            self._their_swarm_space_id = known
        elif extended.EXTENSION_NAME in theirs.extensions:
            # BEP 10: a later handshake adds to the first, and an id of 0 switches an extension off.
            self._their_swarm_space_id = theirs.swarm_space_id
        # After the event: its owner is to know the client that has no such extension.
        if self._their_swarm_space_id is None:
            raise RemoteProtocolError("no swarm-space extension", Cause.NO_EXTENSION)
        self._state = _State.OPEN

    def _close(self, cause: Cause, events: list[Event]) -> None:
        self._state = _State.CLOSED
        self._buffer = bytearray()
        events.append(Closed(cause))
