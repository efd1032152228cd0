"""Manifests: the signed list of a file's chunks (docs/swarm-space.md, docs/trust.md#content).

swarm-space's form, plus three fields of ours: `ivs` (base64, one a chunk), `contentClass`, and
`nativeSignature` over everything else, because swarm-space's own signature leaves out ivs and keys. A
manifest has all three or none. Fields that we do not know are kept and, in our manifests, signed.

A manifest's name is its digest, the SHA-256 of its canonical JSON; `fileId` is only an alias that two signers
may both claim.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.content.canonical import Json, decode_json, encode_canonical
from shared.content.refs import decode_base64, encode_base64, is_digest, is_ref
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from shared.text import is_safe_text

CHUNK_BYTES = 2**20
"""Plaintext of every chunk but the last (docs/swarm-space.md)."""
KEY_BYTES = 32
IV_BYTES = 12
SIGNATURE_BYTES = 64
MAX_CHUNKS = 16_384
"""16 GiB a file; its manifest is then about 1.5 MiB and still fits MAX_MANIFEST_BYTES."""
MAX_MANIFEST_BYTES = 2 * 2**20
"""Half of the longest body of a native link, so that any manifest travels as one answer."""
MAX_UNKNOWN_VALUES = 1024
"""Values in the fields of a manifest that we do not know, nested ones included: kept, hashed and signed, never read."""
MAX_UNKNOWN_CHARS = 64 * 1024
"""Characters in all fields but the lists of chunks and ivs: what a reader has to write canonically, thrice."""
MAX_MANIFEST_VALUES = 2 * MAX_CHUNKS + MAX_UNKNOWN_VALUES + 4096
"""A ref and an iv a chunk, the unknown ones, and room for the rest and for separators within names and times."""
MAX_NAME_CHARS = 1024
MAX_MIME_CHARS = 255
MAX_FILE_ID_CHARS = 128
MAX_TEXT_CHARS = 4096
"""Any other text that we read: times, owner, wrapped key."""

SIGNATURE_ALGORITHM = "ed25519"
NATIVE_CONTEXT = b"swarmbridge-manifest-v1\0"
KNOWN_LISTS = ("chunks", "ivs")
SIGNED_FIELDS = ("fileId", "chunks", "mime", "size", "originalName", "createdAt", "owner", "fileKey")
NATIVE_FIELDS = ("ivs", "contentClass", "nativeSignature")
PRIVATE_MIME = "application/octet-stream"
BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
FILE_ID_RANDOM_CHARS = 6

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class ContentClass(StrEnum):
    """Who may have it (docs/trust.md): anyone; members; members, and only with the key in the link's fragment."""

    SHARED = "shared"
    MESH = "mesh"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest whose form is good; `verify_manifest` says whether its signatures are.

    fields: all of it, JSON values, not to be changed. canonical: its canonical JSON, and digest that text's
    SHA-256 as hex. ivs: one of 12 bytes a chunk; None in a manifest that is not native. file_key: 32 bytes;
    None where it is private, or wrapped for somebody. signer: Ed25519, 32 bytes.
    """

    fields: dict[str, Any]
    canonical: bytes
    digest: str
    file_id: str
    chunks: tuple[str, ...]
    size: int
    mime: str
    original_name: str
    content_class: ContentClass
    ivs: tuple[bytes, ...] | None
    file_key: bytes | None
    signer: bytes

    def chunk_size(self, seq: int) -> int:
        """Plaintext bytes of one chunk."""
        return min(CHUNK_BYTES, self.size - seq * CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class ManifestDraft:
    """What a file's manifest will say. key: the file key; it stays out of a private manifest.

    name, mime: as given by the owner; they stay out of a private manifest too.
    """

    file_id: str
    refs: list[str]
    ivs: list[bytes]
    size: int
    mime: str
    name: str
    key: bytes
    content_class: ContentClass
    created_ms: int


def is_file_id(text: str) -> bool:
    """Whether a manifest may have this alias, and so whether it is worth looking for."""
    # One that looks like a digest could stand in for somebody's manifest.
    return 0 < len(text) <= MAX_FILE_ID_CHARS and is_safe_text(text) and not is_digest(text)


def is_manifest_id(text: str) -> bool:
    """Whether a manifest may be asked for by it: a digest, or a fileId that one may have."""
    return is_digest(text) or is_file_id(text)


def chunk_count(size_bytes: int) -> int:
    """Chunks of a file of this size; an empty file has none."""
    return -(-size_bytes // CHUNK_BYTES)


def new_file_id(now_unix_ms: int, random_bytes: bytes) -> str:
    """`file-<ms>-<6 of base 36>`, swarm-space's form. random_bytes: at least 8, fresh."""
    number = int.from_bytes(random_bytes, "big")
    letters = ""
    for _ in range(FILE_ID_RANDOM_CHARS):
        number, digit = divmod(number, len(BASE36))
        letters += BASE36[digit]
    return f"file-{now_unix_ms}-{letters}"


def sign_manifest(draft: ManifestDraft, publish_seed: bytes, signed_ms: int) -> Manifest:
    """Build and sign a native manifest; every browser of swarm-space takes it too, except a private one.

    Args:    publish_seed: Ed25519 seed that signs (docs/trust.md#keys: `publish`, never `identity`).
    Raises:  LocalProtocolError: the draft breaks a limit of this module.
    """
    fields: dict[str, Any] = {
        "fileId": draft.file_id,
        "chunks": list(draft.refs),
        "size": draft.size,
        "createdAt": _iso_time(draft.created_ms),
        "ivs": [encode_base64(iv) for iv in draft.ivs],
        "contentClass": draft.content_class.value,
    }
    if draft.content_class is ContentClass.PRIVATE:
        fields["mime"] = PRIVATE_MIME
    else:
        key = encode_base64(draft.key)
        fields |= {"mime": draft.mime, "originalName": draft.name}
        # swarm-space signs fileKey and decrypts by fileKeyRaw: both carry the key, so that it is signed.
        fields |= {"fileKey": key, "fileKeyRaw": key, "fileKeyWrapped": False}
    signer = Ed25519PrivateKey.from_private_bytes(publish_seed)
    fields["signature"] = encode_base64(signer.sign(signing_payload(fields)))
    fields["signatureAlgorithm"] = SIGNATURE_ALGORITHM
    fields["signerPublicKey"] = encode_base64(signer.public_key().public_bytes_raw())
    fields["signedAt"] = _iso_time(signed_ms)
    fields["nativeSignature"] = encode_base64(signer.sign(_native_payload(fields)))
    try:
        return read_manifest(fields)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"a manifest that nobody would take: {error}") from error


def parse_manifest(raw: bytes) -> Manifest:
    """Read a manifest as a peer or the store gave it, unknown fields kept.

    Raises: RemoteProtocolError(INVALID): no JSON object of this form, or over a limit.
    """
    return read_manifest(decode_json(raw, MAX_MANIFEST_BYTES, MAX_MANIFEST_VALUES))


def read_manifest(value: Json) -> Manifest:
    """Check a manifest's form and limits; see `parse_manifest`."""
    if not isinstance(value, dict):
        raise RemoteProtocolError("a manifest that is no object")
    _check_unknown_fields(value)
    chunks = _chunks(value)
    form: dict[str, Any] = {
        "file_id": _file_id(value),
        "chunks": chunks,
        "size": _size(value, len(chunks)),
        "mime": _text(value, "mime", MAX_MIME_CHARS),
        "original_name": _text(value, "originalName", MAX_NAME_CHARS),
        "content_class": _content_class(value),
        "ivs": _ivs(value, len(chunks)),
        "file_key": _file_key(value),
        "signer": _bytes(value, "signerPublicKey", KEY_BYTES),
    }
    # Last, because it is what costs: whatever is no manifest has been refused by now.
    canonical = encode_canonical(value)
    if len(canonical) > MAX_MANIFEST_BYTES:
        raise RemoteProtocolError("a manifest over its size limit")
    return Manifest(fields=value, canonical=canonical, digest=hashlib.sha256(canonical).hexdigest(), **form)


def verify_manifest(manifest: Manifest, digest: str = "") -> None:
    """Check the signatures, and that it is the one asked for where it was asked for by digest.

    Raises: RemoteProtocolError(INTEGRITY_MISMATCH): do not store it.
    Source: docs/swarm-space.md (swarm-space's signature), docs/trust.md#content (ours).
    """
    fields = manifest.fields
    if digest and manifest.digest != digest:
        raise RemoteProtocolError("another manifest than asked for", Cause.INTEGRITY_MISMATCH)
    if fields.get("signatureAlgorithm", SIGNATURE_ALGORITHM) != SIGNATURE_ALGORITHM:
        raise RemoteProtocolError("a signature of another kind", Cause.INTEGRITY_MISMATCH)
    signatures = [(_bytes(fields, "signature", SIGNATURE_BYTES), signing_payload(fields))]
    if "nativeSignature" in fields:
        signatures.append((_bytes(fields, "nativeSignature", SIGNATURE_BYTES), _native_payload(fields)))
    try:
        signer = Ed25519PublicKey.from_public_bytes(manifest.signer)
        for signature, payload in signatures:
            signer.verify(signature, payload)
    except (InvalidSignature, ValueError):
        raise RemoteProtocolError("a manifest's signature fails", Cause.INTEGRITY_MISMATCH) from None


def signing_payload(fields: dict[str, Any]) -> bytes:
    """What swarm-space signs: canonical JSON of exactly its eight fields, a missing one as null."""
    return encode_canonical({name: fields.get(name) for name in SIGNED_FIELDS})


def _native_payload(fields: dict[str, Any]) -> bytes:
    rest = {name: value for name, value in fields.items() if name != "nativeSignature"}
    return NATIVE_CONTEXT + encode_canonical(rest)


def _check_unknown_fields(fields: dict[str, Any]) -> None:
    """`chunks` and `ivs` have limits of their own; all other fields share one, whatever they hold."""
    count = 0
    chars = sum(map(len, fields))
    waiting = [value for name, value in fields.items() if name not in KNOWN_LISTS]
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            chars += sum(map(len, value))
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str):
            chars += len(value)
        if count + len(waiting) > MAX_UNKNOWN_VALUES or chars > MAX_UNKNOWN_CHARS:
            raise RemoteProtocolError("a manifest with too much in its other fields")


def _content_class(fields: dict[str, Any]) -> ContentClass:
    present = [name for name in NATIVE_FIELDS if name in fields]
    keyless = all(fields.get(name) is None for name in fields if name.startswith("fileKey"))
    if not present:
        # A foreign manifest without any key cannot be meant for everyone.
        openable = any(fields.get(name) is not None for name in ("fileKey", "fileKeyRaw"))
        return ContentClass.SHARED if openable else ContentClass.PRIVATE
    if len(present) != len(NATIVE_FIELDS):
        raise RemoteProtocolError("a native manifest with a field missing")
    try:
        content_class = ContentClass(fields["contentClass"])
    except ValueError:
        raise RemoteProtocolError("an unknown content class") from None
    tells = not keyless or fields.get("originalName") is not None or fields.get("mime") != PRIVATE_MIME
    if content_class is ContentClass.PRIVATE and tells:
        raise RemoteProtocolError("a private manifest that tells what it should not")
    return content_class


def _chunks(fields: dict[str, Any]) -> tuple[str, ...]:
    refs = fields.get("chunks")
    if not isinstance(refs, list) or len(refs) > MAX_CHUNKS:
        raise RemoteProtocolError("a manifest without a list of chunks, or with too many")
    if not all(isinstance(ref, str) and is_ref(ref) for ref in refs) or len(set(refs)) != len(refs):
        raise RemoteProtocolError("a list of chunks with something else or twice the same in it")
    return tuple(refs)


def _size(fields: dict[str, Any], count: int) -> int:
    size = fields.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise RemoteProtocolError("a manifest without a size")
    # Some writers give an empty file one empty chunk.
    if count != chunk_count(size) and (size, count) != (0, 1):
        raise RemoteProtocolError("a size that does not fit the number of chunks")
    return size


def _ivs(fields: dict[str, Any], count: int) -> tuple[bytes, ...] | None:
    if "ivs" not in fields:
        return None
    ivs = fields["ivs"]
    if not isinstance(ivs, list) or len(ivs) != count or not all(isinstance(iv, str) for iv in ivs):
        raise RemoteProtocolError("not one iv a chunk")
    decoded = tuple(decode_base64(iv, IV_BYTES, IV_BYTES) for iv in ivs)
    if len(set(decoded)) != count:
        raise RemoteProtocolError("one iv for two chunks")
    return decoded


def _file_key(fields: dict[str, Any]) -> bytes | None:
    if fields.get("fileKeyRaw") is None:
        return None
    return _bytes(fields, "fileKeyRaw", KEY_BYTES)


def _file_id(fields: dict[str, Any]) -> str:
    file_id = _text(fields, "fileId", MAX_FILE_ID_CHARS)
    if not is_file_id(file_id):
        raise RemoteProtocolError("a manifest without a usable fileId")
    return file_id


def _text(fields: dict[str, Any], name: str, max_chars: int) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > max_chars or _LONE_SURROGATE.search(value):
        raise RemoteProtocolError(f"{name} is no text, or too long")
    return value


def _bytes(fields: dict[str, Any], name: str, exact_bytes: int) -> bytes:
    text = _text(fields, name, MAX_TEXT_CHARS)
    return decode_base64(text, exact_bytes, exact_bytes)


def _iso_time(unix_ms: int) -> str:
    """`2024-01-02T03:04:05.678Z`, as ECMAScript's toISOString."""
    moment = datetime.fromtimestamp(unix_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03d}Z"
