"""Canonical JSON against the real client's, and against bad peers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.content.canonical import MAX_JSON_DEPTH, decode_json, encode_canonical
from shared.errors import RemoteProtocolError
from tests.shared.content.space_vectors import VECTORS

CANONICAL: dict[str, Any] = VECTORS["canonicalJson"]
SAME = ("key_order_ascii", "numbers", "strings", "specials")
BY_LOCALE = ("key_order_case", "key_order_underscore_digit", "key_order_unicode")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", SAME)
def test_equal_to_the_client(name: str) -> None:
    vector = CANONICAL[name]
    expected = bytes.fromhex(vector["utf8_hex"])
    assert encode_canonical(json.loads(expected)) == expected
    assert encode_canonical(decode_json(expected, len(expected), len(expected))) == expected


@pytest.mark.parametrize("name", BY_LOCALE)
def test_keys_that_a_locale_sorts_otherwise_are_the_known_difference(name: str) -> None:
    """Such keys are in no field that is signed; ours sort by code point, with the same members."""
    expected = bytes.fromhex(CANONICAL[name]["utf8_hex"])
    ours = encode_canonical(json.loads(expected))
    assert ours != expected
    assert json.loads(ours) == json.loads(expected)
    assert list(json.loads(ours)) == sorted(json.loads(expected))


def test_undefined_is_not_json_and_is_never_written() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_json(CANONICAL["undefined_member"]["canonical"].encode(), 100, 100)


def test_every_vector_is_used() -> None:
    assert set(CANONICAL) == {*SAME, *BY_LOCALE, "undefined_member"}


@pytest.mark.parametrize("name", ["deterministic_manifest", "file"])
def test_signing_payloads_of_the_client(name: str) -> None:
    vector = VECTORS[name]
    text = vector.get("canonical") or vector["signing_payload_canonical"]
    assert encode_canonical(json.loads(text)) == text.encode()
    assert text.encode().hex() == (vector.get("canonical_utf8_hex") or vector["signing_payload_utf8_hex"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (10**400 // 10**380, "100000000000000000000"),
        (-0.0, "0"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (-12.25, "-12.25"),
        (0.001, "0.001"),
        (float("inf"), "null"),
        (float("nan"), "null"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)
def test_numbers_as_ecmascript_writes_them(value: float, text: str) -> None:
    assert encode_canonical(value).decode() == text


@given(value=JSON_VALUES)
@settings(max_examples=100, deadline=None)
def test_canonical_text_is_a_fixed_point(value: Any) -> None:
    once = encode_canonical(value)
    assert encode_canonical(decode_json(once, len(once), len(once))) == once


@given(raw=st.binary(max_size=60) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_remote_protocol_errors(raw: bytes) -> None:
    try:
        encode_canonical(decode_json(raw, 1000, 1000))
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b"[NaN]",
        b"[" * 5000,
        b"[" * (MAX_JSON_DEPTH + 2) + b"]" * (MAX_JSON_DEPTH + 2),
        b"9" * 5000,
        b"\xff",
        b"1" * 10_001,
    ],
)
def test_hostile_json_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_json(raw, 10_000, 10_000)


def test_a_number_beyond_a_double_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        encode_canonical(10**400)
    nested: list[Any] = []
    for _ in range(MAX_JSON_DEPTH + 1):
        nested = [nested]
    with pytest.raises(RemoteProtocolError):
        encode_canonical(nested)


@pytest.mark.parametrize(
    "text", [b'{"a":[' + b"[]," * 50 + b"[]]}", b"[" + b"1," * 60 + b"1]", b'{"' + b"{" * 60 + b'":1}']
)
def test_json_of_too_many_values_is_refused_before_it_is_parsed(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decode_json(text, 1000, 110)
    monkeypatch.setattr("json.loads", None)
    with pytest.raises(RemoteProtocolError):
        decode_json(text, 1000, 50)


def test_long_lists_of_text_are_written_as_any_other() -> None:
    texts = ["é", "\ud800", '"', "\u2028", ""]
    assert encode_canonical(texts) == encode_canonical(list(texts))
    assert encode_canonical([*texts, 1])[:-3] == encode_canonical(texts)[:-1]
    assert encode_canonical(texts) == b'["\xc3\xa9","\\ud800","\\"","\xe2\x80\xa8",""]'
