"""Noise_XX_25519_AESGCM_SHA256: the handshake and the two transport ciphers, sans-IO.

Source: the Noise Protocol Framework, revision 34; section numbers are quoted at the code. Held to the public
vectors in tests/vectors/noise_xx.json. Left out, because sealed links use one pattern only: every other
pattern, pre-shared keys, other functions, and handshake re-use.

    ->  e
    <-  e, ee, s, es
    ->  s, se

Randomness is an argument: the caller makes one fresh ephemeral key a handshake and never uses it again.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError

PROTOCOL_NAME = b"Noise_XX_25519_AESGCM_SHA256"
KEY_BYTES = 32
HASH_BYTES = 32
TAG_BYTES = 16
MAX_MESSAGE_BYTES = 65_535
"""Section 3: no Noise message is longer."""
REKEY_NONCE = 2**64 - 1
"""Section 4.2: reserved for REKEY; a message never uses it."""

_PATTERN: tuple[tuple[str, ...], ...] = (("e",), ("e", "ee", "s", "es"), ("s", "se"))


def refused(text: str) -> RemoteProtocolError:
    """The error of everything that the remote peer can do wrong on a sealed link (docs/seal.md)."""
    return RemoteProtocolError(text, Cause.UNAUTHENTICATED)


class CipherState:
    """One key and its message counter (section 5.1). Without a key it passes bytes through."""

    def __init__(self, key: bytes | None = None) -> None:
        self._aead = None if key is None else AESGCM(key)
        self.nonce = 0

    @property
    def has_key(self) -> bool:
        return self._aead is not None

    def encrypt(self, associated: bytes, plaintext: bytes | memoryview) -> bytes:
        """The ciphertext with its 16-byte tag; counts one message."""
        if self._aead is None:
            return bytes(plaintext)
        # Counted behind it: a message that could not be made has not used its nonce.
        sealed = self._aead.encrypt(self._take_nonce(), plaintext, associated)
        self.nonce += 1
        return sealed

    def decrypt(self, associated: bytes, ciphertext: bytes | memoryview) -> bytes:
        """The plaintext; the counter moves only when the tag was good.

        Raises: RemoteProtocolError(UNAUTHENTICATED): a bad tag, whatever the reason for it.
        """
        if self._aead is None:
            return bytes(ciphertext)
        if len(ciphertext) < TAG_BYTES:
            raise refused("a sealed message is shorter than its tag")
        try:
            opened = self._aead.decrypt(self._take_nonce(), ciphertext, associated)
        except InvalidTag:
            raise refused("a sealed message does not open") from None
        # Section 5.1: only a good tag moves it, so that a forged message does not put both ends out of step.
        self.nonce += 1
        return opened

    def rekey(self) -> None:
        """Replace the key by ENCRYPT(k, 2^64-1, "", 32 zero bytes) cut to 32 bytes; the counter goes on."""
        if self._aead is None:
            raise LocalProtocolError("rekey without a key")
        self._aead = AESGCM(self._aead.encrypt(_nonce(REKEY_NONCE), bytes(KEY_BYTES), b"")[:KEY_BYTES])

    def _take_nonce(self) -> bytes:
        if self.nonce >= REKEY_NONCE:
            raise LocalProtocolError("the nonces of this cipher are used up")
        return _nonce(self.nonce)


def _nonce(counter: int) -> bytes:
    """AESGCM: 32 bits of zeros, then the counter big-endian (section 12.4)."""
    return bytes(4) + counter.to_bytes(8, "big")


class _SymmetricState:
    """The chaining key, the transcript hash and the handshake's cipher (section 5.2)."""

    def __init__(self, prologue: bytes) -> None:
        # A name of at most HASH_BYTES is padded with zeros instead of hashed; ours has 28.
        self.hash = PROTOCOL_NAME.ljust(HASH_BYTES, b"\0")
        self._chaining_key = self.hash
        self._cipher = CipherState()
        # Section 5.3: always, an empty one too; ours ties the handshake to its link (binding).
        self.mix_hash(prologue)

    def mix_key(self, input_key: bytes) -> None:
        self._chaining_key, key = _hkdf(self._chaining_key, input_key)
        self._cipher = CipherState(key)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        # Without a key yet it is the plaintext: it goes into the transcript all the same.
        ciphertext = self._cipher.encrypt(self.hash, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = self._cipher.decrypt(self.hash, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    @property
    def tag_bytes(self) -> int:
        return TAG_BYTES if self._cipher.has_key else 0

    def split(self) -> tuple[CipherState, CipherState]:
        first, second = _hkdf(self._chaining_key, b"")
        return CipherState(first), CipherState(second)


class Handshake:
    """One XX handshake of one side (section 5.3).

    Driven by: write_message and read_message in turn, the initiator first; three messages in all.
    Invariants: a failed read leaves nothing usable: throw the object away. remote_static is set once its
    message has opened; whose key that is, the payload must say and the caller must check.
    """

    def __init__(self, *, initiator: bool, static_private: bytes, ephemeral_private: bytes, prologue: bytes) -> None:
        self._initiator = initiator
        self._static = X25519PrivateKey.from_private_bytes(static_private)
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_private)
        self._symmetric = _SymmetricState(prologue)
        self._remote_ephemeral = b""
        self._message_count = 0
        self.remote_static = b""

    @property
    def finished(self) -> bool:
        return self._message_count == len(_PATTERN)

    @property
    def our_turn(self) -> bool:
        return not self.finished and (self._message_count % 2 == 0) == self._initiator

    @property
    def handshake_hash(self) -> bytes:
        """Both ends' transcript, 32 bytes: equal if and only if nobody changed a message (section 11.2)."""
        return self._symmetric.hash

    def write_message(self, payload: bytes) -> bytes:
        """The next handshake message, at most 65,535 bytes.

        Raises: LocalProtocolError out of turn.
        """
        if not self.our_turn:
            raise LocalProtocolError("not our turn in the handshake")
        message = b""
        for token in _PATTERN[self._message_count]:
            if token == "e":  # noqa: S105 - a Noise token
                public = self._ephemeral.public_key().public_bytes_raw()
                self._symmetric.mix_hash(public)
                message += public
            elif token == "s":  # noqa: S105
                message += self._symmetric.encrypt_and_hash(self._static.public_key().public_bytes_raw())
            else:
                self._mix_agreement(token)
        message += self._symmetric.encrypt_and_hash(payload)
        if len(message) > MAX_MESSAGE_BYTES:
            raise LocalProtocolError("a handshake message is over 65,535 bytes")
        self._message_count += 1
        return message

    def read_message(self, message: bytes) -> bytes:
        """The payload of the remote peer's next message.

        Raises: RemoteProtocolError(UNAUTHENTICATED); LocalProtocolError out of turn.
        """
        if self.our_turn or self.finished:
            raise LocalProtocolError("not their turn in the handshake")
        if len(message) > MAX_MESSAGE_BYTES:
            raise refused("a handshake message is over 65,535 bytes")
        rest = message
        for token in _PATTERN[self._message_count]:
            if token == "e":  # noqa: S105
                self._remote_ephemeral, rest = _take(rest, KEY_BYTES)
                self._symmetric.mix_hash(self._remote_ephemeral)
            elif token == "s":  # noqa: S105
                # A static key travels sealed as soon as there is a key: in XX always.
                sealed, rest = _take(rest, KEY_BYTES + self._symmetric.tag_bytes)
                self.remote_static = self._symmetric.decrypt_and_hash(sealed)
            else:
                self._mix_agreement(token)
        payload = self._symmetric.decrypt_and_hash(rest)
        self._message_count += 1
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """(send, receive) for the transport messages after the handshake."""
        if not self.finished:
            raise LocalProtocolError("the handshake is not finished")
        of_initiator, of_responder = self._symmetric.split()
        # Section 5.2: the first is the initiator's to send with, whichever end we are.
        return (of_initiator, of_responder) if self._initiator else (of_responder, of_initiator)

    def _mix_agreement(self, token: str) -> None:
        """Mix in a Diffie-Hellman: the token's first letter is the initiator's key, the second the responder's."""
        ours, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        private = self._ephemeral if ours == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        try:
            agreed = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # a point of small order: the shared secret would be all zeros
            raise refused("a key of small order") from None
        self._symmetric.mix_key(agreed)


def _take(data: bytes, count: int) -> tuple[bytes, bytes]:
    if len(data) < count:
        raise refused("a handshake message is cut short")
    return data[:count], data[count:]


def _hkdf(chaining_key: bytes, input_key: bytes) -> tuple[bytes, bytes]:
    """Section 4.3: HKDF with two outputs."""
    temporary = hmac.digest(chaining_key, input_key, "sha256")
    first = hmac.digest(temporary, b"\x01", "sha256")
    return first, hmac.digest(temporary, first + b"\x02", "sha256")
