"""The reconnecting client against servers that are not what they should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from shared.clock import monotonic
from shared.errors import Cause, SwarmbridgeError
from shared.websocket.client import ClientOptions, ClientSocket, ClientState, ReconnectingClient, until_first_ends
from tests.fakes.waiting import until

OPTIONS = ClientOptions(
    max_message_bytes=1024, connect_timeout_s=0.3, ping_s=30.0, retry_first_s=0.01, retry_cap_s=0.05
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(
    url: str, serve: Callable[[ClientSocket], Awaitable[None]] | None = None
) -> AsyncIterator[ReconnectingClient]:
    async def where() -> str:
        return url

    async def listen(socket: ClientSocket) -> None:
        async for _ in socket.messages():
            made.proved()

    async with aiohttp.ClientSession() as http:
        made = ReconnectingClient(http, where, serve or listen, OPTIONS, monotonic, lambda: None)
        running = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            assert not running.done(), "nothing ends it"
            running.cancel()
            await asyncio.wait({running})


async def greet(request: web.Request) -> web.StreamResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.send_str("hello")
    async for _ in ws:
        pass
    return ws


async def test_it_is_open_when_the_server_proved_itself_and_comes_back() -> None:
    sockets: list[web.WebSocketResponse] = []

    async def greet_and_keep(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        sockets.append(ws)
        await ws.send_str("hello")
        async for _ in ws:
            pass
        return ws

    async with server(greet_and_keep) as url, client(url) as made:
        await until(lambda: made.state is ClientState.OPEN)
        assert made.cause is None
        await sockets[0].close()
        await until(lambda: len(sockets) == 2 and made.state is ClientState.OPEN)
        assert made.failures == 0


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("ws://a..b/announce", Cause.MISCONFIGURED),
        ("no url", Cause.MISCONFIGURED),
        ("ws://" + "a" * 70 + ".example/", Cause.MISCONFIGURED),
        ("ws://127.0.0.1:9/", Cause.SIGNALLING_UNAVAILABLE),
    ],
)
async def test_a_url_that_leads_nowhere_is_tried_again_with_its_cause(url: str, cause: Cause) -> None:
    async with client(url) as made:
        await until(lambda: made.failures > 1)
        assert made.cause is cause


@pytest.mark.parametrize(("status", "cause"), [(503, Cause.BUSY), (429, Cause.BUSY), (403, Cause.REFUSED)])
async def test_a_server_that_says_no_has_its_cause(status: int, cause: Cause) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    async with server(refuse) as url, client(url) as made:
        await until(lambda: made.failures > 1)
        assert made.cause is cause


async def test_a_server_that_never_answers_the_upgrade_is_silent() -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with server(hang) as url, client(url) as made:
        await until(lambda: made.failures > 0)
        assert made.cause is Cause.SILENT


async def test_a_fault_of_our_own_does_not_end_it() -> None:
    async def broken(socket: ClientSocket) -> None:
        raise RuntimeError

    async with server(greet) as url, client(url, broken) as made:
        await until(lambda: made.failures > 1)
        assert made.cause is Cause.OTHER


async def test_the_parts_of_a_conversation_end_together() -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise SwarmbridgeError(Cause.REFUSED)

    with pytest.raises(SwarmbridgeError):
        await until_first_ends(wait(), fail())
    assert ended.is_set()
