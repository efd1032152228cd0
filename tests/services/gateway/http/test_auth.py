from __future__ import annotations

import pytest

from services.gateway.http import limits
from services.gateway.http.auth import SESSION_LIFETIME_S, BadTokens, HostAllowList, Token, bearer, same_origin

NOW = 1_800_000_000.0
NONCE = bytes(16)


def test_a_token_matches_itself_alone() -> None:
    token = Token("secret")
    assert token.matches("secret")
    for wrong in ("", "Secret", "secret ", "sécret", "x" * 10_000):
        assert not token.matches(wrong)


def test_a_session_lives_for_its_time_and_for_its_token() -> None:
    token = Token("secret")
    session = token.new_session(NOW, NONCE)
    assert token.session_valid(session, NOW)
    assert token.session_valid(session, NOW + SESSION_LIFETIME_S - 1)
    assert not token.session_valid(session, NOW + SESSION_LIFETIME_S)
    assert not Token("another").session_valid(session, NOW)


@pytest.mark.parametrize("forged", ["", "v1", "v1.99999999999.00.00", "....", "ü.ü", "\ud800"])
def test_a_forged_session_is_none(forged: str) -> None:
    assert not Token("secret").session_valid(forged, NOW)


def test_a_session_cannot_be_prolonged() -> None:
    token = Token("secret")
    version, expiry, nonce, mac = token.new_session(NOW, NONCE).split(".")
    assert not token.session_valid(f"{version}.{int(expiry) + 1}.{nonce}.{mac}", NOW)


def test_two_nodes_use_two_cookies() -> None:
    assert Token("a").cookie_name != Token("b").cookie_name


def test_five_bad_tokens_a_minute_and_no_more() -> None:
    bad = BadTokens()
    for second in range(limits.MAX_BAD_TOKENS):
        assert bad.wait_s("1.2.3.4", second) == 0
        bad.record("1.2.3.4", second)
    assert bad.wait_s("1.2.3.4", 10) == pytest.approx(50)
    assert bad.wait_s("5.6.7.8", 10) == 0
    assert bad.wait_s("1.2.3.4", limits.BAD_TOKEN_WINDOW_S) == 0


def test_remembered_addresses_are_bounded() -> None:
    bad = BadTokens()
    for number in range(limits.MAX_TRACKED_ADDRESSES + 10):
        for _ in range(limits.MAX_BAD_TOKENS):
            bad.record(str(number), 0)
    assert bad.wait_s("0", 1) == 0
    assert bad.wait_s(str(limits.MAX_TRACKED_ADDRESSES), 1) > 0


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:7700", "[::1]:7700", "node.lan:1"])
def test_our_own_names_are_allowed(host: str) -> None:
    assert HostAllowList("127.0.0.1", ["node.lan"]).allows(host)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::1", "a]b", "localhost.:1"]
)
def test_other_names_are_not(host: str) -> None:
    assert not HostAllowList("127.0.0.1", []).allows(host)


def test_bound_to_everything_an_address_is_allowed_and_a_name_is_not() -> None:
    hosts = HostAllowList("0.0.0.0", ["gateway"])
    assert hosts.allows("10.0.0.1:7700")
    assert hosts.allows("gateway:7700")
    assert not hosts.allows("evil.example:7700")


def test_requests_of_other_pages_are_distinguished() -> None:
    host = "127.0.0.1:7700"
    assert same_origin(None, None, host)
    assert same_origin("http://127.0.0.1:7700", "same-origin", host)
    assert same_origin(None, "none", host)
    for origin, site in [
        ("http://evil.example", None),
        ("null", None),
        ("http://127.0.0.1:7701", None),
        (None, "cross-site"),
        (None, "same-site"),
        ("http://[", None),
    ]:
        assert not same_origin(origin, site, host)


def test_only_a_bearer_header_holds_a_token() -> None:
    assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"
    for header in ("", "Bearer", "Bearer ", "Basic abc", "abc"):
        assert bearer(header) is None
