"""What broadcast workers tell each other about pages, as bodies of bus envelopes (account `mesh`).

Nothing here is trusted more than the account: whoever shares it can see and say all of it.
"""

from __future__ import annotations

import msgspec


class CarriedPost(msgspec.Struct, array_like=True, frozen=True):
    """A page's post. scope: 16 bytes for its origin and channel. browser: for tabs that hear it natively."""

    scope: bytes
    sender: bytes
    browser: bytes
    number: int
    value: bytes


class CarryPosts(msgspec.Struct, array_like=True, frozen=True):
    """Posts in their order, no more than fit one message of the bus. Done when all of them are kept and heard."""

    posts: list[CarriedPost]


class ScopePages(msgspec.Struct, array_like=True, frozen=True):
    """pages: 16-byte ids of those that are on it."""

    scope: bytes
    pages: list[bytes]


class PagesPresent(msgspec.Struct, array_like=True, frozen=True):
    """Which pages a worker has, for each channel that it serves. count: goes up with each report.

    leaving: it takes no more posts.
    """

    worker: str
    count: int
    scopes: list[ScopePages]
    leaving: bool = False
