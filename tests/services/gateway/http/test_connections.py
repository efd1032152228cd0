from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest

from services.gateway.http import limits
from services.gateway.http.connections import Connections
from tests.services.gateway.node import TOKEN, GatewayNode


class _Transport(asyncio.Transport):
    """As much of one as a connection uses."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


async def _open(node: GatewayNode) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(node.url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def _ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed, however it is closed."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def test_strangers_connections_give_way_and_the_operators_stay(node: GatewayNode) -> None:
    """As many connections as there are places, each with one byte of a login: the operator gets in all the same."""
    await node.get("/api/stats")  # holds one, kept alive, with the token
    opened = [await _open(node) for _ in range(limits.MAX_CONNECTIONS + 1)]
    for _, writer in opened[2:]:
        writer.write(b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    for reader, _ in opened[:2]:
        assert await _ends(reader) == b""
    await node.get("/api/stats")
    async with node.session.get(node.url + "/metrics") as response:
        assert "swarmbridge_http_connections_refused_total 2.0" in await response.text()
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as another,
        another.get(node.url + "/api/stats") as response,
    ):
        assert response.status == 200
    for _, writer in opened:
        writer.close()


async def test_where_all_have_shown_the_token_a_new_connection_is_refused() -> None:
    owner = Connections(asyncio.Protocol, max_connections=1)
    first, second = owner(), owner()
    first.connection_made(_Transport())
    cast(Any, first).authenticated = True
    refused = _Transport()
    second.connection_made(refused)
    assert refused.aborted
    assert (len(owner), owner.refused_count) == (1, 1)
    first.connection_lost(None)


async def test_a_body_that_does_not_come_is_not_waited_for(node: GatewayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JSON_TIMEOUT_S", 0.05)
    reader, writer = await _open(node)
    writer.write(b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert b" 408 " in await _ends(reader)
    writer.close()


async def test_a_head_that_never_ends_is_cut(node: GatewayNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEADER_TIMEOUT_S", 0.05)
    for start in (b"", b"GET / HT"):
        reader, writer = await _open(node)
        writer.write(start)
        assert await _ends(reader) == b""
        writer.close()


async def test_a_head_that_is_too_long_is_cut(node: GatewayNode) -> None:
    reader, writer = await _open(node)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: %s\r\n" % (b"y" * 2000) * 10)
    assert await _ends(reader) == b""
    writer.close()


async def test_a_second_request_on_a_connection_has_its_own_time(
    node: GatewayNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEADER_TIMEOUT_S", 0.1)
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reader, writer = await _open(node)
    for _ in range(2):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(len(b'{"status":"ok"}'))
        await asyncio.sleep(0.15)  # idle between requests is no slow head
    writer.write(b"GET /heal")
    assert await _ends(reader) == b""
    writer.close()


async def test_a_refused_body_does_not_become_the_next_request(node: GatewayNode) -> None:
    reader, writer = await _open(node)
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(
        b"POST /api/files?class=nonsense HTTP/1.1\r\nHost: localhost\r\n"
        + f"Authorization: Bearer {TOKEN}\r\n".encode()
        + b"Content-Length: 1000000\r\n\r\n"
        + smuggled
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in answer.lower()
    writer.close()
