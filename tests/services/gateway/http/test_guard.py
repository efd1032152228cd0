from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest

from services.gateway.http import limits
from tests.services.gateway.node import TOKEN, GatewayNode


@pytest.fixture
async def stranger(node: GatewayNode) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without the token; it keeps cookies as a browser does."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def _error(response: aiohttp.ClientResponse) -> tuple[int, str]:
    body = await response.json()
    assert body["error"]["message"]
    return response.status, body["error"]["code"]


@pytest.mark.parametrize("path", ["/api/stats", "/api/files", "/api/events", "/metrics", "/api/nothing"])
async def test_nothing_is_said_without_a_token(node: GatewayNode, stranger: aiohttp.ClientSession, path: str) -> None:
    async with stranger.get(node.url + path) as response:
        assert await _error(response) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_health_and_page_need_none(node: GatewayNode, stranger: aiohttp.ClientSession) -> None:
    async with stranger.get(node.url + "/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    async with stranger.get(node.url + "/") as response:
        assert response.status == 200
        assert "script-src 'self'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert TOKEN not in await response.text()


async def test_after_five_wrong_tokens_wrong_ones_wait_and_the_right_one_gets_in(
    node: GatewayNode, stranger: aiohttp.ClientSession
) -> None:
    for _ in range(limits.MAX_BAD_TOKENS):
        async with stranger.get(node.url + "/api/stats", headers={"Authorization": "Bearer wrong"}) as response:
            assert await _error(response) == (401, "unauthorized")
    async with stranger.get(node.url + "/api/stats", headers={"Authorization": "Bearer wrong"}) as response:
        assert await _error(response) == (429, "rate_limited")
        assert int(response.headers["Retry-After"]) > 50
    async with stranger.get(node.url + "/api/stats", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        assert response.status == 200
    async with stranger.post(node.url + "/api/login", json={"token": TOKEN}) as response:
        assert response.status == 200


async def test_a_token_that_is_not_utf8_is_wrong_like_any_other(node: GatewayNode) -> None:
    answers = []
    for _ in range(limits.MAX_BAD_TOKENS + 1):
        request = (
            b"GET /api/stats HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\r\nConnection: close\r\n\r\n"
        )
        parts = urlsplit(node.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(request)
        answers.append((await reader.read()).split()[1])
        writer.close()
    assert answers == [b"401"] * limits.MAX_BAD_TOKENS + [b"429"]


async def test_a_compressed_body_is_refused_before_it_is_inflated(
    node: GatewayNode, stranger: aiohttp.ClientSession
) -> None:
    bomb = zlib.compress(b"0" * 2**20)
    headers = {"Content-Encoding": "deflate", "Content-Type": "application/json"}
    async with stranger.post(node.url + "/api/login", data=bomb, headers=headers) as response:
        assert await _error(response) == (415, "invalid")


@pytest.mark.parametrize("limit", ["9" * 5000, "0", "-1", "1e3", "\u0661", ""])
async def test_a_limit_that_is_none_is_said_to_be_so(node: GatewayNode, limit: str) -> None:
    await node.get("/api/traces", 400, params={"limit": limit})


async def test_login_gives_a_cookie_that_no_script_can_read(node: GatewayNode, stranger: aiohttp.ClientSession) -> None:
    async with stranger.post(node.url + "/api/login", json={"token": "wrong"}) as response:
        assert await _error(response) == (401, "unauthorized")
    async with stranger.post(node.url + "/api/login", json={"token": TOKEN}) as response:
        assert response.status == 200
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
    async with stranger.get(node.url + "/api/stats") as response:
        assert response.status == 200
    async with stranger.post(node.url + "/api/logout") as response:
        assert response.status == 200
    async with stranger.get(node.url + "/api/stats") as response:
        assert response.status == 401


async def test_a_rebound_name_gets_nothing(node: GatewayNode) -> None:
    for path in ("/", "/healthz", "/api/stats"):
        async with node.session.get(node.url + path, headers={"Host": "evil.example"}) as response:
            assert await _error(response) == (403, "forbidden")


async def test_another_sites_page_gets_nothing_and_costs_no_try(node: GatewayNode) -> None:
    for _ in range(2 * limits.MAX_BAD_TOKENS):
        headers = {"Origin": "http://evil.example", "Authorization": "Bearer guess"}
        async with node.session.get(node.url + "/api/stats", headers=headers) as response:
            assert await _error(response) == (403, "forbidden")
    await node.get("/api/stats")


async def test_errors_of_http_itself_are_json_too(node: GatewayNode) -> None:
    assert (await node.get("/api/nothing", 404))["error"]["code"] == "not_found"
    assert (await node.ask("DELETE", "/api/stats", 405))["error"]["code"] == "method_not_allowed"
    assert (await node.post("/api/fetches", 400, data=b"{"))["error"]["code"] == "invalid"
    assert (await node.post("/api/fetches", 400, data=b'{"link": "\xff"}'))["error"]["code"] == "invalid"
    assert (await node.post("/api/fetches", 400, data=b"[" * 10_000))["error"]["code"] == "invalid"
    assert (await node.post("/api/fetches", 400, json={"link": 3}))["error"]["code"] == "invalid"
    big = b'"' + b"x" * (limits.MAX_JSON_BYTES + 1) + b'"'
    assert (await node.post("/api/fetches", 413, data=big))["error"]["code"] == "too_large"
