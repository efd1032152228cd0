"""What broadcast workers of different nodes say to each other, as bodies of bus envelopes (account `mesh`).

Links are named by the receiver's own 16-byte id. Nothing here is trusted: whoever shares the account can see
and say all of it, and the seal on top decides who is there.
"""

from __future__ import annotations

import msgspec

from services.broadcast.limits import LINK_ID_BYTES
from shared.errors import Cause


class OpenLink(msgspec.Struct, array_like=True, frozen=True):
    """from_link: the dialer's id for the link. from_worker: its instance."""

    from_link: bytes
    from_worker: str


class LinkOpened(msgspec.Struct, array_like=True, frozen=True):
    to_link: bytes
    to_worker: str


class Post(msgspec.Struct, array_like=True, frozen=True, tag="post"):
    """One record. number: 0, 1, 2… on this link and direction. Acknowledged by Done."""

    link: bytes
    number: int
    record: memoryview


class Probe(msgspec.Struct, array_like=True, frozen=True, tag="probe"):
    """Is this link still there? Done, or refused with CLOSED."""

    link: bytes


class CloseLink(msgspec.Struct, array_like=True, frozen=True, tag="close"):
    link: bytes
    cause: Cause


LinkMessage = Post | Probe | CloseLink


def is_link_id(value: bytes) -> bool:
    return len(value) == LINK_ID_BYTES
