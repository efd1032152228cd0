"""How many bytes may be in reassembly: of one link, and of all links of a worker.

A peer that begins many long answers and finishes none costs memory; it is bounded here before the first byte is kept.
"""

from __future__ import annotations

MAX_LINK_BYTES = 32 * 2**20
"""Eight bodies of the greatest length."""

MAX_WORKER_BYTES = 256 * 2**20
"""What a worker may also hold for pulling: the two together stay below its memory limit."""


class ByteBudget:
    """A number of bytes that may be reserved; with a parent, within the parent's number too."""

    def __init__(self, limit_bytes: int, parent: ByteBudget | None = None) -> None:
        self._limit = limit_bytes
        self._parent = parent
        self.used_bytes = 0

    def take(self, count: int) -> bool:
        """Reserve bytes. Returns: False, with nothing reserved, where there is no room."""
        if self.used_bytes + count > self._limit:
            return False
        if self._parent is not None and not self._parent.take(count):
            return False
        self.used_bytes += count
        return True

    def give(self, count: int) -> None:
        """Give reserved bytes back."""
        self.used_bytes -= count
        if self._parent is not None:
            self._parent.give(count)

    def give_all(self) -> None:
        """Give back whatever is reserved: its link is gone."""
        self.give(self.used_bytes)
