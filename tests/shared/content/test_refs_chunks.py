"""Refs and chunks: the real client's file, and every check of docs/trust.md#content."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.content.chunks import TAG_BYTES, decrypt_chunk, encrypt_chunk, verify_chunk
from shared.content.manifest import CHUNK_BYTES, ContentClass, Manifest, ManifestDraft, parse_manifest, sign_manifest
from shared.content.messages import ChunkData
from shared.content.refs import chunk_ref, decode_base64, encode_base64, is_digest, is_ref
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from tests.shared.content.space_vectors import VECTORS

FILE: dict[str, Any] = VECTORS["file"]
KEY = bytes(range(32))


def header_of(chunk: dict[str, Any]) -> ChunkData:
    iv, meta = base64.b64decode(chunk["iv"]), chunk["meta"]
    return ChunkData(chunk["ref"], chunk["seq"], chunk["total"], chunk["size"], iv, meta["mime"], meta["originalName"])


def test_the_clients_chunk_made_and_opened() -> None:
    plain = bytes.fromhex(FILE["file"]["bytes_hex"])
    key = base64.b64decode(FILE["fileKey_base64"])
    chunk = FILE["chunks"][0]
    header, cipher = encrypt_chunk(
        plain,
        key=key,
        iv=base64.b64decode(chunk["iv"]),
        seq=0,
        total=1,
        mime=FILE["file"]["type"],
        original_name=FILE["file"]["name"],
    )
    assert encode_base64(cipher) == chunk["cipher"]
    assert header == header_of(chunk)
    assert decrypt_chunk(cipher, key=key, iv=header.iv) == plain
    assert FILE["file"]["chunkSize"] == CHUNK_BYTES


def test_the_clients_messages_carry_what_we_compute() -> None:
    messages = [entry["message"] for entry in VECTORS["chunk_protocol_wire"]]
    chunk = next(message["chunk"] for message in messages if message["type"] == "chunk_data")
    manifest = next(message["manifest"] for message in messages if message["type"] == "manifest_data")
    assert chunk_ref(base64.b64decode(chunk["cipher"]), chunk["seq"]) == chunk["ref"]
    asked = [message["hash"] for message in messages if message["type"] == "request_chunk"]
    assert [is_ref(ref) for ref in asked] == [True, False]
    verify_chunk(
        header_of(chunk), base64.b64decode(chunk["cipher"]), parse_manifest(msgspec.json.encode(manifest)), asked[0]
    )
    assert {message["type"] for message in messages} == {
        "request_chunk",
        "chunk_data",
        "chunk_not_found",
        "request_manifest",
        "manifest_data",
        "manifest_not_found",
    }


def make_file(plains: list[bytes]) -> tuple[Manifest, list[tuple[ChunkData, bytes]]]:
    chunks = [
        encrypt_chunk(plain, key=KEY, iv=bytes([seq]) * 12, seq=seq, total=len(plains), mime="a/b", original_name="n")
        for seq, plain in enumerate(plains)
    ]
    draft = ManifestDraft(
        file_id="file-1-abc",
        refs=[header.ref for header, _ in chunks],
        ivs=[header.iv for header, _ in chunks],
        size=sum(map(len, plains)),
        mime="a/b",
        name="n",
        key=KEY,
        content_class=ContentClass.SHARED,
        created_ms=0,
    )
    return sign_manifest(draft, KEY, 0), chunks


def test_a_good_chunk_passes_and_nothing_else_does() -> None:
    manifest, [(header, cipher), (other, other_cipher)] = make_file([bytes(CHUNK_BYTES), b"tail"])
    verify_chunk(header, cipher, manifest, header.ref)
    verify_chunk(other, memoryview(other_cipher), manifest, other.ref)
    change = msgspec.structs.replace
    bad: list[tuple[ChunkData, bytes, str]] = [
        (header, cipher, other.ref),
        (other, other_cipher, header.ref),
        (change(header, seq=1), cipher, header.ref),
        (change(header, seq=-1), cipher, header.ref),
        (change(header, seq=2), cipher, header.ref),
        (change(header, total=3), cipher, header.ref),
        (change(header, size=header.size - 1), cipher, header.ref),
        (change(header, size=header.size - 1), cipher[:-1], header.ref),
        (change(header, iv=bytes(12)[:11] + b"x"), cipher, header.ref),
        (header, bytes([cipher[0] ^ 1]) + cipher[1:], header.ref),
        (header, b"", header.ref),
    ]
    for bad_header, bad_cipher, ref in bad:
        with pytest.raises(RemoteProtocolError) as raised:
            verify_chunk(bad_header, bad_cipher, manifest, ref)
        assert raised.value.cause is Cause.INTEGRITY_MISMATCH


def test_without_ivs_the_key_must_open_the_chunk() -> None:
    manifest = parse_manifest(msgspec.json.encode(FILE["manifest"]))
    chunk = FILE["chunks"][0]
    header, cipher = header_of(chunk), base64.b64decode(chunk["cipher"])
    verify_chunk(header, cipher, manifest, header.ref)
    for bad_manifest, iv in ((manifest, bytes(12)), (manifest, b""), (replace(manifest, file_key=None), header.iv)):
        with pytest.raises(RemoteProtocolError) as raised:
            verify_chunk(msgspec.structs.replace(header, iv=iv), cipher, bad_manifest, header.ref)
        assert raised.value.cause is Cause.INTEGRITY_MISMATCH


@given(plain=st.binary(max_size=200), seq=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_encrypt_then_decrypt_is_the_identity(plain: bytes, seq: int) -> None:
    header, cipher = encrypt_chunk(plain, key=KEY, iv=bytes(12), seq=seq, total=100, mime="", original_name="")
    assert header.size + TAG_BYTES == len(cipher)
    assert decrypt_chunk(memoryview(cipher), key=KEY, iv=header.iv) == plain
    with pytest.raises(RemoteProtocolError):
        decrypt_chunk(cipher, key=bytes(32), iv=header.iv)


@pytest.mark.parametrize("bad", [{"plain": bytes(CHUNK_BYTES + 1)}, {"iv": b""}, {"key": b""}])
def test_our_own_mistakes_are_reported(bad: dict[str, bytes]) -> None:
    good: dict[str, Any] = {"plain": b"", "key": KEY, "iv": bytes(12)}
    arguments = good | bad
    with pytest.raises(LocalProtocolError):
        encrypt_chunk(
            arguments["plain"], key=arguments["key"], iv=arguments["iv"], seq=0, total=1, mime="", original_name=""
        )


@given(raw=st.binary(max_size=40))
def test_base64_has_one_text_a_byte_string(raw: bytes) -> None:
    assert decode_base64(encode_base64(raw), 40) == raw


@pytest.mark.parametrize("text", ["AB", "AB=", "AB==\n", " AB==", "AB-_", "AA==AA==", "ä", "AAAA" * 20, "A", "===="])
def test_sloppy_base64_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_base64(text, 8)


def test_base64_of_another_length_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_base64(encode_base64(bytes(11)), 12, 12)


def test_names() -> None:
    ref = chunk_ref(b"cipher", 7)
    assert is_ref(ref)
    assert not is_ref(ref.upper())
    assert not is_ref(ref + "\n")
    assert is_digest(ref.removeprefix("chunk-"))
    assert not is_digest(ref)
