"""The seal of one link between nodes: Noise XX, identities, then sealed frames (docs/seal.md).

The end that refuses a certificate for its dates says so in one record in the clear, ALERT, before it closes: the other
could not know otherwise that a clock is wrong. It is taken in the place of the dialer's message 3, or of the first
frame, and nowhere else. Whoever forges it changes the name of a failure that it could have caused anyhow.

The transport below keeps records whole and in order. So a record that is lost, repeated, moved or changed
fails its tag, and that is the end of the link: there is nothing to resynchronise with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.sealed.certificate import (
    Certificate,
    decode_certificate,
    encode_certificate,
    verify_dates,
    verify_signature,
)
from shared.wire.sealed.noise import MAX_MESSAGE_BYTES, TAG_BYTES, CipherState, Handshake, refused

MAX_RECORD_BYTES = MAX_MESSAGE_BYTES
MAX_FRAME_BYTES = MAX_MESSAGE_BYTES - TAG_BYTES
"""65,519: the plaintext of one record (docs/seal.md)."""
REKEY_EVERY = 65_536
"""Messages of one direction under one key (docs/seal.md)."""

ALERT = b"swarmbridge-alert\0" + Cause.CLOCK_SKEW.value.encode()
"""Shorter than every handshake message that it may stand for."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The remote peer proved this Ed25519 identity key; frames may flow."""

    identity_key: bytes


@dataclass(frozen=True, slots=True)
class FrameOpened:
    frame: bytes


SealedEvent = Sealed | FrameOpened


class _State(Enum):
    AWAITING_HELLO = auto()  # listener: message 1
    AWAITING_LISTENER = auto()  # dialer: message 2
    AWAITING_DIALER = auto()  # listener: message 3
    OPEN = auto()
    CLOSED = auto()


class SealedLink:
    """One end of one sealed link.

    Driven by:   `receive_record` with each record of the transport, in order; after each call, and once
                 after construction, send every record of `data_to_send`, then handle the events.
    States:      dialer    AWAITING_LISTENER -> OPEN
                 listener  AWAITING_HELLO -> AWAITING_DIALER -> OPEN;  any -> CLOSED on a failure, for good.
    Invariants:  Sealed comes once and before any FrameOpened. The dialer's message 3 exists only after the
                 listener's identity was checked, so that our identity is shown to the wanted peer alone.
    """

    def __init__(
        self,
        *,
        dialer: bool,
        static_private: bytes,
        ephemeral_private: bytes,
        certificate: Certificate,
        prologue: bytes,
        expected_key: bytes | None = None,
    ) -> None:
        """static_private, ephemeral_private: X25519, 32 bytes; the ephemeral is fresh for every link.

        certificate: ours, over static_private's public key. expected_key: refuse every other identity.
        """
        self._handshake = Handshake(
            initiator=dialer,
            static_private=static_private,
            ephemeral_private=ephemeral_private,
            prologue=prologue,
        )
        self._dialer = dialer
        self._heard = False
        self._last_words: list[bytes] = []
        self._payload = encode_certificate(certificate)
        self._expected_key = expected_key
        self._send = CipherState()
        self._receive = CipherState()
        self._outgoing: list[bytes] = []
        self._peer_key = b""
        self._state = _State.AWAITING_HELLO
        if dialer:
            self._outgoing.append(self._handshake.write_message(b""))
            self._state = _State.AWAITING_LISTENER

    @property
    def is_open(self) -> bool:
        return self._state is _State.OPEN

    @property
    def peer_key(self) -> bytes:
        """The remote peer's identity key once it has proved it, even where it was then refused for its dates."""
        return self._peer_key

    def data_to_send(self) -> list[bytes]:
        """Handshake records to send now, in order; each is returned once."""
        records, self._outgoing = self._outgoing, []
        return records

    def receive_record(self, record: bytes | memoryview, now_unix_s: float) -> list[SealedEvent]:
        """Take one record of the transport. now_unix_s: wall clock, for the certificate.

        Raises: RemoteProtocolError on any failure, and on every call after it: send what `data_to_send` has left,
                then close the link. UNAUTHENTICATED; CLOCK_SKEW for a certificate that is out of date, here or there.
        """
        if self._state is _State.CLOSED:
            raise refused("the sealed link is closed")
        try:
            # Before it is opened: it is in the clear, and the counters must not move for it.
            if record == ALERT and self._may_be_alerted:
                raise RemoteProtocolError("our certificate is out of date by the peer's clock", Cause.CLOCK_SKEW)
            if len(record) > MAX_RECORD_BYTES:
                raise refused("a record is over 65,535 bytes")
            if self._state is _State.OPEN:
                return [FrameOpened(self._open(record))]
            return self._receive_handshake(bytes(record), now_unix_s)
        except RemoteProtocolError:
            last_words, self._last_words = self._last_words, []
            self.close()
            # Behind `close`, which forgets what was queued: of that nothing may leave any more, the alert apart.
            self._outgoing = last_words
            raise

    def seal(self, frame: bytes | memoryview) -> bytes:
        """The record that carries one frame of at most MAX_FRAME_BYTES.

        Raises: LocalProtocolError: not sealed yet, closed, or the frame is too long.
        """
        if self._state is not _State.OPEN:
            raise LocalProtocolError("the link is not sealed")
        if len(frame) > MAX_FRAME_BYTES:
            raise LocalProtocolError("a frame is over 65,519 bytes")
        record = self._send.encrypt(b"", frame)
        # By the count of messages, which both ends have: nothing is said about it on the wire.
        _rekey_when_due(self._send)
        return record

    def close(self) -> None:
        """Forget the keys; nothing can be sealed or opened any more."""
        self._state = _State.CLOSED
        self._send = self._receive = CipherState()
        self._outgoing = []

    def _open(self, record: bytes | memoryview) -> bytes:
        frame = self._receive.decrypt(b"", record)
        self._heard = True
        _rekey_when_due(self._receive)
        return frame

    def _receive_handshake(self, record: bytes, now_unix_s: float) -> list[SealedEvent]:
        payload = self._handshake.read_message(record)
        if self._state is _State.AWAITING_HELLO:
            if payload:  # message 1 is in the clear: nothing may ride in it
                raise refused("message 1 has a payload")
            self._outgoing.append(self._handshake.write_message(self._payload))
            self._state = _State.AWAITING_DIALER
            return []
        self._check_identity(payload, now_unix_s)
        # Only now: message 3 shows who we are, and whom we wanted has just been proved.
        if self._state is _State.AWAITING_LISTENER:
            self._outgoing.append(self._handshake.write_message(self._payload))
        self._send, self._receive = self._handshake.split()
        self._state = _State.OPEN
        return [Sealed(self._peer_key)]

    def _check_identity(self, payload: bytes, now_unix_s: float) -> None:
        certificate = decode_certificate(payload)
        # The signature first: dates that nobody signed say nothing of anybody's clock.
        verify_signature(certificate, self._handshake.remote_static)
        if self._expected_key is not None and certificate.identity_key != self._expected_key:
            raise refused("another identity than the expected one")
        # Once the signature holds, and before the dates: a dialer learns whose clock is wrong.
        self._peer_key = certificate.identity_key
        try:
            verify_dates(certificate, now_unix_s)
        except RemoteProtocolError:
            self._last_words = [ALERT]
            raise

    @property
    def _may_be_alerted(self) -> bool:
        """Whether our certificate is with the peer, and nothing has come since."""
        sealed_dialer = self._state is _State.OPEN and self._dialer and not self._heard
        return sealed_dialer or self._state is _State.AWAITING_DIALER


def _rekey_when_due(cipher: CipherState) -> None:
    if cipher.nonce % REKEY_EVERY == 0:
        cipher.rekey()
