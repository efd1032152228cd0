"""Chunks and manifests as a page of swarm-space writes them: JSON objects with base64, to and from neutral messages.

Manifests keep every field, known or not. Nothing is believed here beyond its form: whether a chunk is what its ref
says is for the chunk service, which has the manifest.

Source: swarm-space's own client; vectors in tests/vectors/swarm_space.json.
"""

from __future__ import annotations

import json
from typing import Any

from shared.content.canonical import decode_json
from shared.content.chunks import MAX_CIPHER_BYTES
from shared.content.manifest import IV_BYTES, MAX_MANIFEST_BYTES, MAX_MANIFEST_VALUES
from shared.content.messages import ChunkData
from shared.content.refs import decode_base64, encode_base64
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.speech.page_dialect import is_unicode

MAX_TEXT_CHARS = 1_024
"""Of a MIME type or a file's name."""

MAX_COUNT = 2**31
"""Of a chunk's numbers; the manifest says later which are right."""


def chunk_object(header: ChunkData, cipher: bytes) -> dict[str, Any]:
    """A chunk for a page."""
    return {
        "ref": header.ref,
        "seq": header.seq,
        "total": header.total,
        "size": header.size,
        "iv": encode_base64(header.iv),
        "cipher": encode_base64(cipher),
        "meta": {"mime": header.mime, "originalName": header.original_name},
    }


def read_chunk(value: object) -> tuple[ChunkData, bytes]:
    """A page's chunk: header and cipher. Raises: RemoteProtocolError(INVALID): not of this form."""
    fields = _object(value)
    meta = _object(fields.get("meta") or {})
    header = ChunkData(
        _text(fields, "ref"),
        _count(fields, "seq"),
        _count(fields, "total"),
        _count(fields, "size"),
        decode_base64(_string(fields, "iv"), IV_BYTES, IV_BYTES),
        _text(meta, "mime"),
        _text(meta, "originalName"),
    )
    return header, decode_base64(_string(fields, "cipher"), MAX_CIPHER_BYTES)


def manifest_object(body: bytes) -> dict[str, Any]:
    """A manifest for a page, from the body of a ManifestData of ours."""
    value = decode_json(body, MAX_MANIFEST_BYTES, MAX_MANIFEST_VALUES)
    if not isinstance(value, dict):
        raise LocalProtocolError("a manifest that is no object")
    return value


def read_manifest(value: object) -> bytes:
    """The body of a page's manifest, JSON with every field. Raises: RemoteProtocolError(INVALID), (TOO_LARGE)."""
    try:
        body = json.dumps(_object(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):  # raw bytes, NaN, a lone surrogate: BinaryPack has all three
        raise RemoteProtocolError("a manifest that JSON cannot hold") from None
    if len(body) > MAX_MANIFEST_BYTES:
        raise RemoteProtocolError("a manifest that is too long", Cause.TOO_LARGE)
    return body


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RemoteProtocolError("not an object")
    return value


def _string(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise RemoteProtocolError(f"{name} is no base64")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or not is_unicode(value):
        raise RemoteProtocolError(f"{name} is no short text")
    return value


def _count(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    # A page's numbers are doubles, so a whole number may come as one.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise RemoteProtocolError(f"{name} is no count")
    return value
