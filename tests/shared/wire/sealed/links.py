"""Two ends of a sealed link in memory, with fixed keys."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared.wire.sealed.binding import link_prologue
from shared.wire.sealed.certificate import LinkCertificate, sign_certificate
from shared.wire.sealed.sealed_link import Sealed, SealedLink

NOW_S = 1_800_000_000
PROLOGUE = link_prologue("webrtc", b"binding")


def secret(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def identity(name: str) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(secret(f"identity {name}")).public_key().public_bytes_raw()


def static_public(name: str) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret(f"static {name}")).public_key().public_bytes_raw()


def certificate(name: str, not_after_s: int = NOW_S + 3600) -> LinkCertificate:
    return sign_certificate(secret(f"identity {name}"), static_public(name), not_after_s)


def end(
    name: str,
    *,
    dialer: bool,
    expected_key: bytes | None = None,
    cert: LinkCertificate | None = None,
    prologue: bytes = PROLOGUE,
) -> SealedLink:
    return SealedLink(
        dialer=dialer,
        static_private=secret(f"static {name}"),
        ephemeral_private=secret(f"ephemeral {name}"),
        certificate=cert or certificate(name),
        prologue=prologue,
        expected_key=expected_key,
    )


def shake_hands(dialer: SealedLink, listener: SealedLink) -> tuple[list[object], list[object]]:
    """Carry the handshake's records; the events of the dialer, then of the listener."""
    events: tuple[list[object], list[object]] = ([], [])
    ends = (dialer, listener)
    for _ in range(3):
        for here, there in ((0, 1), (1, 0)):
            for record in ends[here].data_to_send():
                events[there].extend(ends[there].receive_record(record, NOW_S))
    return events


def sealed_pair() -> tuple[SealedLink, SealedLink]:
    dialer, listener = end("alice", dialer=True, expected_key=identity("bob")), end("bob", dialer=False)
    events = shake_hands(dialer, listener)
    assert events == ([Sealed(identity("bob"))], [Sealed(identity("alice"))])
    return dialer, listener
