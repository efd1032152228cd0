"""Chunks: encrypting, opening and checking them (docs/swarm-space.md, docs/trust.md#content)."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.content.manifest import CHUNK_BYTES, IV_BYTES, KEY_BYTES, Manifest
from shared.content.messages import ChunkData
from shared.content.refs import chunk_ref
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError

TAG_BYTES = 16
MAX_CIPHER_BYTES = CHUNK_BYTES + TAG_BYTES


def encrypt_chunk(
    plain: bytes | memoryview, *, key: bytes, iv: bytes, seq: int, total: int, mime: str, original_name: str
) -> tuple[ChunkData, bytes]:
    """Make one chunk: its header, and its cipher with the 16-byte tag.

    Args:    plain: 0..CHUNK_BYTES bytes. key: AES-256, 32 bytes. iv: 12 random bytes, never used twice with
             one key. mime, original_name: what every holder may read; empty for private content.
    """
    if len(plain) > CHUNK_BYTES or len(iv) != IV_BYTES or len(key) != KEY_BYTES:
        raise LocalProtocolError("a chunk, iv or key of the wrong length")
    cipher = AESGCM(key).encrypt(iv, plain, None)
    header = ChunkData(chunk_ref(cipher, seq), seq, total, len(plain), iv, mime, original_name)
    return header, cipher


def decrypt_chunk(cipher: bytes | memoryview, *, key: bytes, iv: bytes) -> bytes:
    """The plaintext of a chunk.

    Raises: RemoteProtocolError(INTEGRITY_MISMATCH): another key or iv, or changed bytes.
    """
    if len(key) != KEY_BYTES or len(iv) != IV_BYTES:
        raise RemoteProtocolError("a key or iv of the wrong length", Cause.INTEGRITY_MISMATCH)
    try:
        return AESGCM(key).decrypt(iv, cipher, None)
    except InvalidTag:
        raise RemoteProtocolError("a chunk does not open", Cause.INTEGRITY_MISMATCH) from None


def verify_chunk(header: ChunkData, cipher: bytes | memoryview, manifest: Manifest, ref: str) -> None:
    """Check a chunk that a peer sent for `ref` of `manifest`, before it is stored.

    The ref is computed from the bytes, never believed; the position, count and size fit the manifest; the iv
    is the manifest's, or, where a foreign manifest has none, the manifest's key opens the chunk with it.

    Raises: RemoteProtocolError(INTEGRITY_MISMATCH): do not store it; the peer sent something else.
    Source: docs/trust.md#content.
    """
    seq = header.seq
    if not 0 <= seq < len(manifest.chunks) or manifest.chunks[seq] != ref or header.ref != ref:
        raise _mismatch("another chunk than asked for")
    if len(cipher) != header.size + TAG_BYTES or header.size != manifest.chunk_size(seq):
        raise _mismatch("a chunk of the wrong size")
    if header.total != len(manifest.chunks):
        raise _mismatch("a chunk of a file with another number of chunks")
    if chunk_ref(cipher, seq) != ref:
        raise _mismatch("a chunk whose bytes do not hash to its ref")
    if manifest.ivs is not None:
        if header.iv != manifest.ivs[seq]:
            raise _mismatch("a chunk with another iv than the manifest's")
    elif manifest.file_key is not None:
        decrypt_chunk(cipher, key=manifest.file_key, iv=header.iv)
    else:
        raise _mismatch("neither an iv nor a key to check the chunk with")


def _mismatch(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(text, Cause.INTEGRITY_MISMATCH)
