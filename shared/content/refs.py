"""How chunks and manifests are named: a ref, a digest (docs/swarm-space.md, docs/trust.md#content).

A ref covers a chunk's cipher and position, not its iv, size or meta: those are checked against the manifest.
"""

from __future__ import annotations

import binascii
import hashlib
import re

import pybase64

from shared.errors import RemoteProtocolError

REF_PREFIX = "chunk-"
_REF = re.compile(r"chunk-[0-9a-f]{64}", re.ASCII)
_REF_BYTES = re.compile(rb"chunk-[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def chunk_ref(cipher: bytes | memoryview, seq: int) -> str:
    """`chunk-` and the hex SHA-256 of the cipher's standard base64 followed by the decimal seq.

    Args:    cipher: AES-GCM ciphertext with its tag. seq: position in the file, from 0.
    Source:  docs/swarm-space.md.
    """
    digest = hashlib.sha256(pybase64.b64encode(cipher))
    digest.update(b"%d" % seq)
    return REF_PREFIX + digest.hexdigest()


def is_ref(text: str) -> bool:
    return _REF.fullmatch(text) is not None


def refs_in(raw: bytes) -> set[str]:
    """Every ref that stands anywhere in these bytes, whatever they are."""
    return {found.decode() for found in _REF_BYTES.findall(raw)}


def is_digest(text: str) -> bool:
    """Whether it is a manifest digest (64 lower-case hex digits) and so no fileId."""
    return _DIGEST.fullmatch(text) is not None


def decode_base64(text: str, max_bytes: int, exact_bytes: int | None = None) -> bytes:
    """Strict standard base64: padded, canonical, no white space; every byte string has one text only.

    Raises: RemoteProtocolError(INVALID): anything else, over max_bytes, or not exact_bytes long.
    """
    if len(text) > (max_bytes + 2) // 3 * 4:
        raise RemoteProtocolError("base64 that is too long")
    try:
        raw = pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError("not base64") from None
    # Python accepts stray bits in the last character and would so give one cipher two refs.
    if pybase64.b64encode(raw).decode() != text or len(raw) > max_bytes:
        raise RemoteProtocolError("not canonical base64")
    if exact_bytes is not None and len(raw) != exact_bytes:
        raise RemoteProtocolError(f"{len(raw)} bytes of base64 instead of {exact_bytes}")
    return raw


def encode_base64(raw: bytes | memoryview) -> str:
    return pybase64.b64encode(raw).decode()
