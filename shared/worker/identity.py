"""A worker's link key and its certificate: the key is made here and never leaves; `chunk` vouches for it."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared import backoff
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Certificate, Certify
from shared.bus.messages.subjects import Subjects
from shared.clock import unix_ms
from shared.errors import BusError
from shared.transport.contract import LinkUp
from shared.wire.sealed.binding import link_prologue
from shared.wire.sealed.sealed_link import SealedLink

X25519_KEY_BYTES = 32
CERTIFY_TIMEOUT_S = 2.0
RETRY_FIRST_S, RETRY_CAP_S = 0.1, 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkIdentity:
    """static_private: X25519, 32 bytes. certificate: the node's identity key over its public half."""

    static_private: bytes
    certificate: Certificate

    def seal_for(self, transport: str, up: LinkUp) -> SealedLink:
        """The seal for a new link, with a fresh ephemeral key."""
        return SealedLink(
            dialer=up.dialer,
            static_private=self.static_private,
            ephemeral_private=os.urandom(X25519_KEY_BYTES),
            certificate=self.certificate,
            prologue=link_prologue(transport, up.binding),
            expected_key=up.expected_key,
        )

    @property
    def renew_in_s(self) -> float:
        """Half of what is left of the certificate's life."""
        # Never at once: a clock that is far off would ask for certificates in a tight loop.
        return max(1.0, (self.certificate.not_after_s - unix_ms() / 1000) / 2)


async def certified_identity(bus: Bus, subjects: Subjects) -> LinkIdentity:
    """Make a link key and have it certified; waits, indefinitely if need be, until a chunk service does it."""
    static_private = os.urandom(X25519_KEY_BYTES)
    static_key = X25519PrivateKey.from_private_bytes(static_private).public_key().public_bytes_raw()
    for delay_s in backoff.delays_s(RETRY_FIRST_S, RETRY_CAP_S):
        try:
            certificate = await bus.request(
                subjects.certify, Certify(static_key), Certificate, timeout_s=CERTIFY_TIMEOUT_S
            )
            return LinkIdentity(static_private, certificate)
        except BusError as error:
            log.info("waiting for a certificate: %s", error.cause.value)
            await asyncio.sleep(delay_s)
    raise AssertionError("back-off never ends")
