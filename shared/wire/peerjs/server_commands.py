"""What a PeerServer machine wants done: to its sockets, and towards the other instances that it may be linked with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

SocketId: TypeAlias = int


@dataclass(frozen=True, slots=True)
class SendText:
    socket: SocketId
    text: str


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close it once what was sent before is out."""

    socket: SocketId


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask the other instances for the id, then call `claimed`. digest: SHA-256 of the token."""

    socket: SocketId
    peer_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """Offer a message to the other instances; call `not_forwarded` where none has the target."""

    target: str
    source: str
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Registered:
    """This instance has the id now; the others need to hear it, for what waits there."""

    peer_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Unregistered:
    peer_id: str


Command = SendText | CloseSocket | Claim | Forward | Registered | Unregistered


class ClaimAnswer(Enum):
    """What an instance says to another's claim of an id. YIELDED: it was here under the same token."""

    ABSENT = "absent"
    YIELDED = "yielded"
    TAKEN = "taken"
