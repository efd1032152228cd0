"""Derived keys and the `swarmbridge:` link."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.content.keys import derive, identity_seed, peerjs_token, public_key, publish_seed, server_origin
from shared.content.link import MAX_HOLDERS, ContentLink, decode_key, format_link, parse_link
from shared.errors import Cause, SwarmbridgeError
from shared.ids import guest_token, member_token

ROOT = bytes(range(32))
DIGEST = "ab" * 32
KEYS = st.binary(min_size=32, max_size=32)


def test_derivation_is_hkdf_with_our_info() -> None:
    extracted = hmac.digest(bytes(32), ROOT, "sha256")
    assert derive(ROOT, "identity") == hmac.digest(extracted, b"swarmbridge v1 identity\x01", "sha256")


def test_each_use_has_its_own_key() -> None:
    made = {identity_seed(ROOT), publish_seed(ROOT), derive(ROOT, "other")}
    assert len(made) == 3
    assert len(public_key(identity_seed(ROOT))) == 32
    with pytest.raises(SwarmbridgeError):
        derive(b"short", "identity")


def test_a_peerserver_token_is_bound_to_the_origin_and_fits() -> None:
    token = peerjs_token(ROOT, "http://LOCALHOST:9000/path?x")
    assert token == peerjs_token(ROOT, "http://localhost:9000")
    assert token != peerjs_token(ROOT, "http://localhost:9001")
    assert len(token.encode()) <= 64


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example/x", "https://a.example:443"),
        ("http://[::1]:9000/", "http://[::1]:9000"),
        ("WS://A:1", "ws://a:1"),
    ],
)
def test_origins(url: str, origin: str) -> None:
    assert server_origin(url) == origin


@pytest.mark.parametrize("url", ["", "ftp://a", "http://", "http://a:99999", "a.example"])
def test_no_server_no_origin(url: str) -> None:
    with pytest.raises(SwarmbridgeError):
        server_origin(url)


@given(
    digest=st.binary(min_size=32, max_size=32).map(bytes.hex),
    holders=st.lists(KEYS.map(member_token) | st.text("abc:-", min_size=1).map(guest_token), max_size=5, unique=True),
    key=KEYS | st.just(b""),
)
@settings(max_examples=60, deadline=None)
def test_format_then_parse_is_the_identity(digest: str, holders: list[str], key: bytes) -> None:
    link = ContentLink(digest, tuple(holders), key)  # type: ignore[arg-type]
    assert parse_link(f" {format_link(link)}\n") == link
    assert parse_link(format_link(link.without_key())).key == b""


@given(text=st.text(max_size=80) | st.text(max_size=60).map(lambda rest: f"swarmbridge:{DIGEST}{rest}"))
@settings(max_examples=100, deadline=None)
def test_arbitrary_text_raises_only_invalid(text: str) -> None:
    try:
        link = parse_link(text)
    except SwarmbridgeError as error:
        cause = error.cause
    else:
        cause = Cause.INVALID
        assert link.digest == DIGEST
    assert cause is Cause.INVALID


@pytest.mark.parametrize(
    "text",
    [
        "",
        DIGEST,
        "swarmbridge:",
        f"swarmbridge:{DIGEST.upper()}",
        f"swarmbridge:{DIGEST}?h=zzz",
        f"swarmbridge:{DIGEST}?x=1",
        f"swarmbridge:{DIGEST}?h",
        f"swarmbridge:{DIGEST}#short",
        f"swarmbridge:{DIGEST}#!",
        f"swarmbridge:{DIGEST}?" + "&".join([f"h={guest_token('a')}"] * (MAX_HOLDERS + 1)),
        f"swarmbridge:{DIGEST}" + " " * 5000 + "x",
    ],
)
def test_bad_links_say_so(text: str) -> None:
    with pytest.raises(SwarmbridgeError, match="not a swarmbridge link"):
        parse_link(text)


def test_a_key_is_32_bytes() -> None:
    assert decode_key("A" * 43) == bytes(32)
    with pytest.raises(SwarmbridgeError):
        decode_key("A" * 42)
