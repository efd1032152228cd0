"""Who may have a ref: the classes of the manifests that name it. Pure.

A stranger may name our refs in a manifest of another class, to open them to everyone or to close them. So one manifest
decides for a ref: one that this node signed before any other, else the one that was stored first. What a manifest that
is gone has said is forgotten with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.content.manifest import ContentClass, Manifest


@dataclass(frozen=True, slots=True)
class _Named:
    refs: tuple[str, ...]
    content_class: ContentClass
    rank: tuple[bool, int, str]
    """The lowest decides: not ours, when it was stored (ms), its digest."""


class RefClasses:
    """own_signer: the key that signs this node's manifests."""

    def __init__(self, own_signer: bytes) -> None:
        self._own_signer = own_signer
        self._manifests: dict[str, _Named] = {}
        self._namers: dict[str, tuple[str, ...]] = {}

    def __contains__(self, digest: str) -> bool:
        """Whether this manifest has been learnt."""
        return digest in self._manifests

    def learn(self, manifest: Manifest, stored_ms: int) -> None:
        digest = manifest.digest
        if digest in self._manifests:
            return
        rank = (manifest.signer != self._own_signer, stored_ms, digest)
        self._manifests[digest] = _Named(manifest.chunks, manifest.content_class, rank)
        for ref in manifest.chunks:
            self._namers[ref] = (*self._namers.get(ref, ()), digest)

    def forget(self, digest: str) -> list[str]:
        """Returns: the refs that nobody names any longer."""
        named = self._manifests.pop(digest, None)
        if named is None:
            return []
        orphans = []
        for ref in named.refs:
            left = tuple(other for other in self._namers[ref] if other != digest)
            if left:
                self._namers[ref] = left
            else:
                del self._namers[ref]
                orphans.append(ref)
        return orphans

    def is_named(self, ref: str) -> bool:
        return ref in self._namers

    def of(self, ref: str) -> ContentClass | None:
        """None where no manifest names it."""
        namers = self._namers.get(ref)
        if not namers:
            return None
        return min((self._manifests[digest] for digest in namers), key=lambda named: named.rank).content_class
