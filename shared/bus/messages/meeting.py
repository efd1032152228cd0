"""What rendezvous instances of one bus say to each other, in the account `mesh`.

A *peer* here is a PeerJS client and its id; an *instance* one rendezvous process. A token itself never crosses the
bus: its SHA-256 is enough to compare it.
"""

from __future__ import annotations

import msgspec


class ClaimPeer(msgspec.Struct, array_like=True, frozen=True, tag="claim"):
    """Request to whoever has the id -> PeerClaimed. digest: SHA-256 of the token that wants it."""

    peer_id: str
    digest: bytes


class PeerClaimed(msgspec.Struct, array_like=True, frozen=True):
    """answer: a value of shared.wire.peerjs.server_commands.ClaimAnswer."""

    answer: str


class RelayText(msgspec.Struct, array_like=True, frozen=True, tag="relay"):
    """Request to whoever has the target -> Done, or the cause why it is not passed on.

    kind: OFFER, ANSWER and so on. text: as the target's client gets it.
    """

    target: str
    source: str
    kind: str
    text: str


PeerCall = ClaimPeer | RelayText


class PeersRegistered(msgspec.Struct, array_like=True, frozen=True, tag="registered"):
    """An instance has these ids now: (id, SHA-256 of its token)."""

    instance: str
    peers: list[tuple[str, bytes]]


class InstanceAlive(msgspec.Struct, array_like=True, frozen=True, tag="alive"):
    """Every second. leaving: it is stopping; its members are gone."""

    instance: str
    leaving: bool = False


InstanceNews = PeersRegistered | InstanceAlive


class SwarmWanted(msgspec.Struct, array_like=True, frozen=True, tag="wanted"):
    """An instance has its first member in a swarm: the others say whom they have."""

    instance: str
    info_hash: bytes


class SwarmMembers(msgspec.Struct, array_like=True, frozen=True, tag="members"):
    """Members of one instance: (peer id, whether it is a seed)."""

    instance: str
    info_hash: bytes
    members: list[tuple[bytes, bool]]


class SwarmLeft(msgspec.Struct, array_like=True, frozen=True, tag="left"):
    instance: str
    info_hash: bytes
    peer_id: bytes


SwarmNews = SwarmWanted | SwarmMembers | SwarmLeft


class TrackerRelay(msgspec.Struct, array_like=True, frozen=True):
    """An offer or answer for `target`, a member of the instance it is sent to. text: as its client would get it."""

    instance: str
    target: bytes
    text: str
