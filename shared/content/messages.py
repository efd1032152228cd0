"""The neutral chunk messages: what peers ask each other, whatever dialect or transport carries it.

A worker translates its peer's dialect to and from these, so that a body survives a fallback. Cipher bytes
and manifest JSON are a message's *body* and travel beside it, never inside.
"""

from __future__ import annotations

import msgspec

MAX_BODY_BYTES = 4 * 2**20
"""The longest body of one answer; a chunk is 1 MiB and 16 bytes, a manifest at most 2 MiB."""

MAX_ANNOUNCED = 256
"""Manifest ids in one announcement."""

MAX_MANIFEST_ID_CHARS = 128
"""A digest has 64 characters; ids of other applications are no longer than this."""


class RequestChunk(msgspec.Struct, array_like=True, frozen=True, tag="request_chunk"):
    """Ask for a chunk. ref: `chunk-<64 hex>` (docs/swarm-space.md)."""

    ref: str


class RequestManifest(msgspec.Struct, array_like=True, frozen=True, tag="request_manifest"):
    """Ask for a manifest. id: its digest as 64 hex digits, or a swarm-space fileId."""

    id: str


PeerRequest = RequestChunk | RequestManifest


class ChunkData(msgspec.Struct, array_like=True, frozen=True, tag="chunk_data"):
    """A chunk; its body is the raw cipher bytes, tag included.

    size: plaintext bytes. iv: 12 bytes. total: chunks of the file.
    """

    ref: str
    seq: int
    total: int
    size: int
    iv: bytes
    mime: str
    original_name: str


class ManifestData(msgspec.Struct, array_like=True, frozen=True, tag="manifest_data"):
    """A manifest; its body is its JSON, UTF-8. id: as it was asked for."""

    id: str


class NotFound(msgspec.Struct, array_like=True, frozen=True, tag="not_found"):
    """The peer does not hold it, or will not give it to the caller: the two are not distinguished."""

    id: str


PeerAnswer = ChunkData | ManifestData | NotFound
