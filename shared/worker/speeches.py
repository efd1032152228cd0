"""The speeches that a worker can talk, by name: what its transports may ask for in LinkUp.

A transport says which speech a link is for, because it alone saw how the link was asked for (an OFFER's metadata, a
BEP 10 handshake). A name that is not here is refused before a link is made, where the transport can, or closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shared.errors import Cause, SwarmbridgeError
from shared.ids import peerjs_id
from shared.speech import page_beacon, peerjs
from shared.speech.broadcast_envelope import BROADCAST_ENVELOPE, BroadcastEnvelope
from shared.speech.budget import ByteBudget
from shared.speech.contract import SEALED_NATIVE, Speech
from shared.speech.sealed_native import SealedNative
from shared.speech.swarm_space import SWARM_SPACE, SWARM_SPACE_CLEAR, SwarmSpace
from shared.transport.contract import Capabilities, LinkUp
from shared.wire.sealed.sealed_link import MAX_RECORD_BYTES
from shared.worker.identity import LinkIdentity


@dataclass(frozen=True, slots=True)
class Opening:
    """What a speech is made from.

    budget: for what is put together on this link. now, unix_s: the same moment on the monotonic and the wall clock.
    """

    up: LinkUp
    transport: str
    capabilities: Capabilities
    identity: LinkIdentity
    budget: ByteBudget
    now: float
    unix_s: float


MakeSpeech = Callable[[Opening], Speech]
"""Raises: SwarmbridgeError: the link cannot carry this speech; close it with the cause."""


def sealed_native(opening: Opening) -> Speech:
    """Native frames under a fresh seal.

    Raises: SwarmbridgeError(INVALID): records that may be lost or overtaken, or be too short, cannot be sealed.
    """
    can = opening.capabilities
    if not (can.ordered and can.reliable and opening.up.ordered and can.max_record_bytes >= MAX_RECORD_BYTES):
        raise SwarmbridgeError(Cause.INVALID, "a seal numbers its records: they must come whole and in order")
    seal = opening.identity.seal_for(opening.transport, opening.up)
    return SealedNative(seal, opening.budget, opening.now, opening.unix_s)


def page(opening: Opening) -> Speech:
    """A page of swarm-space. Raises: SwarmbridgeError(INVALID): a page that nobody vouches for is nobody."""
    up = opening.up
    if not up.guest:
        raise SwarmbridgeError(Cause.INVALID, "a page is who its PeerServer says")
    own_id = peerjs_id(opening.identity.certificate.identity_key)
    # `peerjs` names no dialect: the page's first message shows it.
    hint = None if up.speech == peerjs.PEERJS else up.speech
    # PeerJS's own default, where the page did not say.
    return peerjs.PeerjsSpeech(
        up.guest, own_id, opening.budget, opening.now, opening.unix_s, hint, up.serialization or "binary"
    )


def beacon(opening: Opening) -> Speech:
    """A page at the beacon of our room."""
    own_id = peerjs_id(opening.identity.certificate.identity_key)
    return page_beacon.PageBeacon(own_id, opening.now, opening.up.serialization)


def swarm_space(opening: Opening) -> Speech:
    """Native frames of a guest over a wire that is encrypted below us."""
    return SwarmSpace(opening.up.guest, opening.budget, opening.now, clear=False)


def swarm_space_clear(opening: Opening) -> Speech:
    """Native frames of a guest over a wire that others can read."""
    return SwarmSpace(opening.up.guest, opening.budget, opening.now, clear=True)


def broadcast_envelope(opening: Opening) -> Speech:
    """A page on its BroadcastChannel, known by what the transport says of it."""
    own_id = peerjs_id(opening.identity.certificate.identity_key)
    return BroadcastEnvelope(opening.up.guest, own_id, opening.now, opening.unix_s)


SPEECHES: Mapping[str, MakeSpeech] = {
    SEALED_NATIVE: sealed_native,
    peerjs.PEERJS: page,
    peerjs.MANAGER: page,
    peerjs.MESH: page,
    page_beacon.PEERJS_BEACON: beacon,
    BROADCAST_ENVELOPE: broadcast_envelope,
    SWARM_SPACE: swarm_space,
    SWARM_SPACE_CLEAR: swarm_space_clear,
}
