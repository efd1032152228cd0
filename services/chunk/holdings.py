"""What the store holds, as one instance knows it: a counter and an index in memory, so that nobody lists the store
to learn its size or asks it ref by ref. Pure.

Driven by:   `add` and `remove` at each write of ours, `expect` for what other instances have stored, and now and then a
             whole listing, which corrects what we could not know.
Invariants:  `used_bytes` is the sum of all sizes; a write made while a listing runs survives it.
"""

from __future__ import annotations

from collections.abc import Iterable


class Holdings:
    """Objects by name (a ref, or a manifest's digest), with their sizes in bytes."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._changed: dict[str, int | None] | None = None
        self.used_bytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def among(self, names: Iterable[str]) -> set[str]:
        return self._sizes.keys() & set(names)

    def size(self, name: str) -> int:
        """0 where it is not here."""
        return self._sizes.get(name, 0)

    def add(self, name: str, size_bytes: int) -> None:
        self.used_bytes += size_bytes - self._sizes.get(name, 0)
        self._sizes[name] = size_bytes
        if self._changed is not None:
            self._changed[name] = size_bytes

    def expect(self, name: str, size_bytes: int) -> None:
        """Another instance says that it has stored this; the next listing knows its exact size."""
        if name not in self._sizes:
            self.add(name, size_bytes)

    def remove(self, name: str) -> int:
        """Returns: the bytes that it took."""
        size_bytes = self._sizes.pop(name, 0)
        self.used_bytes -= size_bytes
        if self._changed is not None:
            # None: removed. The listing may have seen it before.
            self._changed[name] = None
        return size_bytes

    def listing_begins(self) -> None:
        self._changed = {}

    def listing_failed(self) -> None:
        self._changed = None

    def listed(self, sizes: dict[str, int]) -> None:
        """A whole listing, begun at `listing_begins`. Whether it saw what changed meanwhile is chance: ours counts."""
        changed, self._changed = self._changed or {}, None
        for name, size_bytes in changed.items():
            if size_bytes is None:
                sizes.pop(name, None)
            else:
                sizes[name] = size_bytes
        self._sizes = sizes
        self.used_bytes = sum(sizes.values())
