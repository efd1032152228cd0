"""Link certificates: a node's identity key vouches for one worker's X25519 link key (docs/trust.md#keys).

Signed message:  "swarmbridge-link-v1" NUL | static:32 | not_after:u64 big-endian, seconds since 1970
Wire form:       identity:32 | not_after:u64 big-endian | signature:64   (payload of handshake messages 2, 3)

A certificate says who a link key belongs to and nothing about what its owner may do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.wire.sealed.noise import refused

LINK_CONTEXT = b"swarmbridge-link-v1\0"
IDENTITY_BYTES = 32
STATIC_BYTES = 32
SIGNATURE_BYTES = 64
NOT_AFTER_BYTES = 8
PAYLOAD_BYTES = IDENTITY_BYTES + NOT_AFTER_BYTES + SIGNATURE_BYTES
MAX_LIFETIME_S = 24 * 3600
"""docs/trust.md#keys: a stolen link key is worth a day at most."""
CLOCK_SKEW_S = 120
"""docs/trust.md#keys: how far two nodes' clocks may be apart."""


class Certificate(Protocol):
    """What a certificate has; `shared.bus.messages.envelopes.Certificate` and `LinkCertificate` are two."""

    @property
    def identity_key(self) -> bytes: ...
    @property
    def not_after_s(self) -> int: ...
    @property
    def signature(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class LinkCertificate:
    """identity_key: Ed25519, 32 bytes. not_after_s: wall clock. signature: 64 bytes."""

    identity_key: bytes
    not_after_s: int
    signature: bytes


def sign_certificate(identity_private: bytes, static_key: bytes, not_after_s: int) -> LinkCertificate:
    """Vouch for a link key.

    Args:    identity_private: the 32-byte Ed25519 seed. static_key: the X25519 public key, 32 bytes.
             not_after_s: wall clock, at most MAX_LIFETIME_S ahead or nobody will take it.
    Raises:  LocalProtocolError: static_key is not 32 bytes.
    Source:  docs/trust.md#keys.
    """
    if len(static_key) != STATIC_BYTES:
        raise LocalProtocolError("a link key is 32 bytes")
    signer = Ed25519PrivateKey.from_private_bytes(identity_private)
    signature = signer.sign(_message(static_key, not_after_s))
    return LinkCertificate(signer.public_key().public_bytes_raw(), not_after_s, signature)


def encode_certificate(certificate: Certificate) -> bytes:
    """The 104-byte payload of a handshake message."""
    payload = (
        certificate.identity_key + certificate.not_after_s.to_bytes(NOT_AFTER_BYTES, "big") + certificate.signature
    )
    if len(payload) != PAYLOAD_BYTES:
        raise LocalProtocolError("a certificate of the wrong length")
    return payload


def decode_certificate(payload: bytes) -> LinkCertificate:
    """Read the payload of handshake message 2 or 3; says nothing yet about its truth.

    Raises: RemoteProtocolError(UNAUTHENTICATED): not exactly 104 bytes.
    """
    if len(payload) != PAYLOAD_BYTES:
        raise refused("a handshake payload of the wrong length")
    not_after = payload[IDENTITY_BYTES : IDENTITY_BYTES + NOT_AFTER_BYTES]
    return LinkCertificate(
        payload[:IDENTITY_BYTES], int.from_bytes(not_after, "big"), payload[IDENTITY_BYTES + NOT_AFTER_BYTES :]
    )


def verify_dates(certificate: Certificate, now_unix_s: float) -> None:
    """Check that the certificate is in force now, give or take CLOCK_SKEW_S.

    Raises: RemoteProtocolError(CLOCK_SKEW): expired, or valid for too long. Nodes renew at half a certificate's life,
            so nearly always the two clocks differ.
    """
    if certificate.not_after_s + CLOCK_SKEW_S < now_unix_s:
        raise RemoteProtocolError("the certificate has expired", Cause.CLOCK_SKEW)
    # One that is valid for longer than any of ours would outlive the day that a stolen key is worth.
    if certificate.not_after_s > now_unix_s + MAX_LIFETIME_S + CLOCK_SKEW_S:
        raise RemoteProtocolError("the certificate is valid for longer than a day", Cause.CLOCK_SKEW)


def verify_signature(certificate: Certificate, static_key: bytes) -> None:
    """Check that the identity vouches for this very link key, whenever.

    Raises: RemoteProtocolError(UNAUTHENTICATED): a signature that fails.
    """
    try:
        Ed25519PublicKey.from_public_bytes(certificate.identity_key).verify(
            certificate.signature, _message(static_key, certificate.not_after_s)
        )
    except (InvalidSignature, ValueError):
        raise refused("the certificate's signature fails") from None


def _message(static_key: bytes, not_after_s: int) -> bytes:
    return LINK_CONTEXT + static_key + not_after_s.to_bytes(NOT_AFTER_BYTES, "big")
