"""The node's identity on the bus: certifies workers' link keys, makes PeerServer tokens (docs/trust.md#keys)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import (
    Certificate,
    Certify,
    PeerjsToken,
    PeerjsTokenRequest,
    SignDhtRecord,
    Signed,
)
from shared.clock import unix_ms
from shared.content.keys import identity_seed, peerjs_token, public_key
from shared.errors import Cause, LocalProtocolError, SwarmbridgeError
from shared.ids import PeerToken, member_token
from shared.wire.dhtrecord.record import MAX_BODY_BYTES, signed_message
from shared.wire.sealed.certificate import MAX_LIFETIME_S, sign_certificate


class Identity:
    """Holds the root; the private keys never leave this process."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._seed = identity_seed(root)
        self.token: PeerToken = member_token(public_key(self._seed))

    async def certify(self, request: Certify, incoming: Incoming) -> Certificate:
        """Vouch for a worker's link key for a day."""
        not_after_s = unix_ms() // 1000 + MAX_LIFETIME_S
        try:
            signed = sign_certificate(self._seed, request.static_key, not_after_s)
        except LocalProtocolError:
            raise SwarmbridgeError(Cause.INVALID, "no link key") from None
        return Certificate(signed.identity_key, signed.not_after_s, signed.signature)

    async def sign_record(self, request: SignDhtRecord, incoming: Incoming) -> Signed:
        """Sign the node's record in the DHT, under a context in which nothing else is signed."""
        if not 0 < len(request.body) <= MAX_BODY_BYTES:
            raise SwarmbridgeError(Cause.INVALID, "no record")
        signer = Ed25519PrivateKey.from_private_bytes(self._seed)
        identity = signer.public_key().public_bytes_raw()
        return Signed(signer.sign(signed_message(identity, request.body)))

    async def peerjs_token(self, request: PeerjsTokenRequest, incoming: Incoming) -> PeerjsToken:
        return PeerjsToken(peerjs_token(self._root, request.server))
