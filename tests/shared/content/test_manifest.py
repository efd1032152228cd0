"""Manifests: the real client's signatures, ours, and the content classes."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.content.canonical import encode_canonical
from shared.content.keys import public_key
from shared.content.manifest import (
    CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_MANIFEST_BYTES,
    ContentClass,
    Manifest,
    ManifestDraft,
    chunk_count,
    is_file_id,
    is_manifest_id,
    new_file_id,
    parse_manifest,
    read_manifest,
    sign_manifest,
    signing_payload,
    verify_manifest,
)
from shared.errors import Cause, LocalProtocolError, RemoteProtocolError
from tests.shared.content.space_vectors import VECTORS

DETERMINISTIC: dict[str, Any] = VECTORS["deterministic_manifest"]
SIGNED: dict[str, Any] = DETERMINISTIC["signed"]
FILE_MANIFEST: dict[str, Any] = VECTORS["file"]["manifest"]
SEED = bytes.fromhex(VECTORS["identity"]["seed_hex"])
KEY = bytes(range(32))


def draft(content_class: ContentClass = ContentClass.SHARED, size: int = CHUNK_BYTES + 1) -> ManifestDraft:
    count = chunk_count(size)
    return ManifestDraft(
        file_id="file-1700000000000-abc123",
        refs=[f"chunk-{number:064x}" for number in range(count)],
        ivs=[number.to_bytes(12, "big") for number in range(count)],
        size=size,
        mime="image/png",
        name="na\u00efve \U0001f600.png",
        key=KEY,
        content_class=content_class,
        created_ms=1_704_164_645_678,
    )


def accepts(fields: dict[str, Any]) -> bool:
    try:
        verify_manifest(parse_manifest(json.dumps(fields).encode()))
    except RemoteProtocolError:
        return False
    return True


def test_the_clients_identity() -> None:
    identity = VECTORS["identity"]
    assert public_key(SEED).hex() == identity["publicKey_hex"]
    assert base64.b64encode(public_key(SEED)).decode() == identity["publicKey_base64"]
    assert base64.b64decode(identity["pkcs8_base64"]).endswith(SEED)


def test_the_clients_manifests_verify() -> None:
    for vector, fields in ((DETERMINISTIC, SIGNED), (VECTORS["file"], FILE_MANIFEST)):
        assert vector["verified_by_spa"]
        assert accepts(fields)
    assert signing_payload(SIGNED) == DETERMINISTIC["canonical"].encode()
    assert signing_payload(FILE_MANIFEST) == VECTORS["file"]["signing_payload_canonical"].encode()
    assert DETERMINISTIC["input"].items() <= SIGNED.items()
    manifest = parse_manifest(json.dumps(FILE_MANIFEST).encode())
    assert base64.b64encode(manifest.file_key or b"").decode() == VECTORS["file"]["fileKey_base64"]
    assert manifest.content_class is ContentClass.SHARED
    assert manifest.ivs is None


MATRIX: dict[str, dict[str, Any]] = {
    "tamper_size": {"size": SIGNED["size"] + 1},
    "tamper_chunks_order": {"chunks": SIGNED["chunks"][::-1]},
    "tamper_signedAt_not_covered": {"signedAt": "2030-01-01T00:00:00.000Z"},
    "extra_field_not_covered": {"mediaWidth": 10},
    "no_algorithm_ok": {"signatureAlgorithm": ...},
    "wrong_algorithm": {"signatureAlgorithm": "rsa"},
    "size_string_becomes_null": {"size": str(SIGNED["size"])},
    "owner_empty_vs_null": {"owner": ""},
    "no_signature": {"signature": ...},
    "bad_base64": {"signature": "!" + SIGNED["signature"][1:]},
}


@pytest.mark.parametrize("name", MATRIX)
def test_the_clients_verification_matrix(name: str) -> None:
    changed = {key: value for key, value in (SIGNED | MATRIX[name]).items() if value is not ...}
    assert accepts(changed) is VECTORS["verification_matrix"][name]


def test_the_matrix_is_whole() -> None:
    assert set(MATRIX) == set(VECTORS["verification_matrix"])


def test_the_clients_presence_ticket_is_signed_over_the_same_canonical_json() -> None:
    ticket = VECTORS["presence_ticket"]
    envelope = ticket["envelope"]
    payload = encode_canonical(envelope["payload"])
    assert payload == ticket["payload_canonical"].encode()
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(envelope["publicKey"]))
    key.verify(base64.b64decode(envelope["signature"]), payload)
    assert hashlib.sha256(encode_canonical(envelope)).hexdigest() == ticket["hash"]


@pytest.mark.parametrize("content_class", list(ContentClass))
def test_ours_survives_its_json_and_verifies(content_class: ContentClass) -> None:
    manifest = sign_manifest(draft(content_class), SEED, 1_704_164_646_000)
    again = parse_manifest(manifest.canonical)
    assert again == manifest
    verify_manifest(again, manifest.digest)
    assert manifest.digest == hashlib.sha256(manifest.canonical).hexdigest()
    assert manifest.fields["createdAt"] == "2024-01-02T03:04:05.678Z"
    assert manifest.content_class is content_class
    assert manifest.ivs == tuple(draft().ivs)
    assert (manifest.chunk_size(0), manifest.chunk_size(1)) == (CHUNK_BYTES, 1)
    with pytest.raises(RemoteProtocolError) as raised:
        verify_manifest(again, "0" * 64)
    assert raised.value.cause is Cause.INTEGRITY_MISMATCH


def test_a_private_manifest_says_neither_key_nor_name_nor_type() -> None:
    manifest = sign_manifest(draft(ContentClass.PRIVATE), SEED, 0)
    assert manifest.file_key is None
    assert not any(name.startswith("fileKey") for name in manifest.fields)
    assert "originalName" not in manifest.fields
    assert manifest.mime == "application/octet-stream"
    assert base64.b64encode(KEY) not in manifest.canonical
    for telling in ({"fileKeyRaw": base64.b64encode(KEY).decode()}, {"originalName": "n"}, {"mime": "image/png"}):
        with pytest.raises(RemoteProtocolError):
            read_manifest(manifest.fields | telling)


@pytest.mark.parametrize("field", ["ivs", "contentClass", "fileKeyRaw", "signedAt", "unknown", "signature"])
def test_our_signature_covers_every_field(field: str) -> None:
    fields = dict(sign_manifest(draft(), SEED, 0).fields)
    changes: dict[str, Any] = {
        "ivs": fields["ivs"][::-1],
        "contentClass": "mesh",
        "fileKeyRaw": base64.b64encode(bytes(32)).decode(),
        "signedAt": "2030-01-01T00:00:00.000Z",
        "unknown": 1,
        "signature": base64.b64encode(bytes(64)).decode(),
    }
    assert accepts(fields)
    assert not accepts(fields | {field: changes[field]})


@pytest.mark.parametrize("field", ["ivs", "contentClass", "nativeSignature"])
def test_a_native_manifest_has_all_of_our_fields(field: str) -> None:
    fields = dict(sign_manifest(draft(ContentClass.MESH), SEED, 0).fields)
    del fields[field]
    with pytest.raises(RemoteProtocolError):
        read_manifest(fields)


def test_unknown_fields_are_kept_and_name_another_manifest() -> None:
    fields = FILE_MANIFEST | {"mediaWidth": 640, "later": {"x": [1.5, None]}}
    manifest = parse_manifest(json.dumps(fields).encode())
    assert json.loads(manifest.canonical) == fields
    assert manifest.digest != parse_manifest(json.dumps(FILE_MANIFEST).encode()).digest


def test_an_empty_file_has_no_chunks_or_one() -> None:
    assert sign_manifest(draft(size=0), SEED, 0).chunks == ()
    one = {"size": 0, "chunks": [f"chunk-{0:064x}"]}
    assert read_manifest(FILE_MANIFEST | one).chunk_size(0) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": "x"},
        {"chunks": ["chunk-x"]},
        {"chunks": FILE_MANIFEST["chunks"] * 2, "size": CHUNK_BYTES + 1},
        {"chunks": [f"chunk-{n:064x}" for n in range(MAX_CHUNKS + 1)], "size": CHUNK_BYTES * (MAX_CHUNKS + 1)},
        {"size": -1},
        {"size": True},
        {"size": 1.5},
        {"size": CHUNK_BYTES + 1},
        {"fileId": ""},
        {"fileId": "a" * 64},
        {"fileId": "a\nb"},
        {"fileId": 7},
        {"fileId": "x" * 129},
        {"originalName": "x" * 1025},
        {"originalName": "\ud800"},
        {"mime": ["x"]},
        {"fileKeyRaw": "x"},
        {"signerPublicKey": None},
        {"ivs": [], "contentClass": "shared", "nativeSignature": ""},
        {"ivs": [7], "contentClass": "shared", "nativeSignature": ""},
        {"ivs": ["AAAAAAAAAAAAAAAA"], "contentClass": "other", "nativeSignature": ""},
        {"ivs": ["AAAAAAAAAAAAAAAA"], "contentClass": ["shared"], "nativeSignature": ""},
        {"padding": "x" * MAX_MANIFEST_BYTES},
    ],
    ids=lambda change: "-".join(change)[:40],
)
def test_bad_forms_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_manifest(FILE_MANIFEST | change)


def test_a_repeated_iv_is_refused() -> None:
    fields = dict(sign_manifest(draft(), SEED, 0).fields)
    with pytest.raises(RemoteProtocolError):
        read_manifest(fields | {"ivs": [fields["ivs"][0]] * 2})


@given(
    change=st.dictionaries(
        st.sampled_from([*sorted(FILE_MANIFEST), "ivs", "contentClass", "nativeSignature", "owner"]),
        st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2) | st.booleans(),
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_change_of_types_raises_nothing_but_remote_protocol_errors(change: dict[str, Any]) -> None:
    try:
        verify_manifest(read_manifest(FILE_MANIFEST | change))
    except RemoteProtocolError:
        pass


def test_no_object_is_no_manifest() -> None:
    with pytest.raises(RemoteProtocolError):
        parse_manifest(b"[]")


def test_a_draft_over_a_limit_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        sign_manifest(ManifestDraft("f", [], [], 1, "", "", KEY, ContentClass.SHARED, 0), SEED, 0)


def test_the_largest_manifest_fits_its_limit() -> None:
    manifest: Manifest = sign_manifest(draft(size=MAX_CHUNKS * CHUNK_BYTES), SEED, 0)
    assert len(manifest.canonical) < MAX_MANIFEST_BYTES


def test_file_ids_have_the_clients_form() -> None:
    assert new_file_id(1_700_000_000_000, bytes(8)) == "file-1700000000000-000000"
    name = new_file_id(1_700_000_000_000, b"\xff" * 8)
    assert len(name) == len(SIGNED["fileId"])


@pytest.mark.parametrize(
    "change",
    [
        {"padding": ["x"] * 2000},
        {"padding": [[[1] * 100] * 100] * 100},
        {"padding": {f"{number:x}": 0 for number in range(2000)}},
        {"padding": ["\ud800" * 1000] * 100},
        {f"field-{number}": None for number in range(2000)},
        {"owner": "x" * 100_000},
        {"chunks": None},
        {"size": -1},
    ],
    ids=["list", "nested", "object", "text", "fields", "known", "chunks", "size"],
)
def test_what_is_no_manifest_is_refused_before_it_is_written_canonically(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.content.manifest.encode_canonical", None)
    with pytest.raises(RemoteProtocolError):
        read_manifest(FILE_MANIFEST | change)


def test_what_a_manifest_may_be_asked_for_by() -> None:
    good = ["a" * 64, "file-1-abc", "Bericht\u202f2026 \U0001f469\u200d\U0001f4bb", "x" * 128]
    bad = ["", "\n", "a\x00b", "\u202ebad", "x" * 129, "\ud800"]
    assert [is_manifest_id(text) for text in good + bad] == [True] * len(good) + [False] * len(bad)
    assert not is_file_id("a" * 64)
