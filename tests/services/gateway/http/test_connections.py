from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from services.gateway.http import limits
from tests.services.gateway.node import TOKEN, GatewayNode


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


async def test_one_connection_too_many_is_dropped(node: GatewayNode) -> None:
    await node.get("/healthz")  # holds one, kept alive
    opened = [await _open(node) for _ in range(limits.MAX_CONNECTIONS - 1)]
    reader, writer = await _open(node)
    assert await _ends(reader) == b""
    writer.close()
    for _, other in opened:
        other.close()


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
