"""The one client against a fake gateway: what it does where the node, the network or the caller fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from shared.gateway_api import calls
from shared.gateway_api.async_client import AsyncGatewayClient
from shared.gateway_api.client import GatewayClient
from shared.gateway_api.errors import BrokenOff, GatewayError, NoGateway, NotRunning, Refused
from shared.gateway_api.structs import NodeView, Started
from tests.fakes.gateway import TOKEN, FakeGateway, fake_gateway, json_answer, problem
from tests.fakes.waiting import until

NODE = NodeView("n", "kabc", "peer-a", "1")
GET_NODE = "GET /api/node"
PUT = "POST /api/files"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    async with fake_gateway(tmp_path) as running:
        running.answers = {GET_NODE: NODE}
        yield running


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[GatewayClient]:
    with GatewayClient(gateway.url, TOKEN) as made:
        yield made


def test_importing_it_loads_no_event_loop_and_no_http_library() -> None:
    heavy = {"aiohttp", "asyncio", "rich", "nats"}
    code = f"import sys, shared.gateway_api.client; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


async def test_a_kept_connection_that_the_gateway_has_ended_is_replaced(
    gateway: FakeGateway, client: GatewayClient
) -> None:
    peers: list[object] = []

    async def ends_after(request: web.Request) -> web.StreamResponse:
        peers.append(request.transport)
        assert request.transport is not None
        asyncio.get_running_loop().call_soon(request.transport.close)  # without a word about it in the answer
        return json_answer(NODE)

    gateway.answers = {GET_NODE: ends_after}
    for _ in range(3):
        assert await asyncio.to_thread(client.ask, calls.node()) == NODE
        await until(lambda: all(peer.is_closing() for peer in peers))  # type: ignore[attr-defined]
    assert len(set(map(id, peers))) == 3


async def test_a_connection_is_kept_for_the_next_request(gateway: FakeGateway, client: GatewayClient) -> None:
    peers = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        peers.add(id(request.transport))
        return json_answer(NODE)

    gateway.answers = {GET_NODE: answer}
    for _ in range(3):
        await asyncio.to_thread(client.ask, calls.node())
    assert len(peers) == 1


async def test_a_refusal_has_the_nodes_own_words(gateway: FakeGateway, client: GatewayClient) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        return problem(503, "busy", "the node has no room", "try again")

    gateway.answers = {GET_NODE: busy}
    with pytest.raises(Refused) as refused:
        await asyncio.to_thread(client.ask, calls.node())
    error = refused.value
    assert (error.status, error.code, error.message, error.hint) == (503, "busy", "the node has no room", "try again")
    assert not error.is_about_the_token
    gateway.token = "another"
    with pytest.raises(Refused) as refused:
        await asyncio.to_thread(client.ask, calls.node())
    assert refused.value.is_about_the_token


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"node": 1}', b"\xff"])
async def test_what_is_no_answer_of_the_api_is_no_gateway(
    gateway: FakeGateway, client: GatewayClient, body: bytes
) -> None:
    async def odd(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    gateway.answers = {GET_NODE: odd}
    with pytest.raises(NoGateway):
        await asyncio.to_thread(client.ask, calls.node())


async def test_a_redirect_is_not_followed(gateway: FakeGateway, client: GatewayClient) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": gateway.url + "/api/stats"})

    gateway.answers = {GET_NODE: away}
    with pytest.raises(NoGateway):
        await asyncio.to_thread(client.ask, calls.node())
    assert [asked for asked, _ in gateway.asked] == [GET_NODE]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://a..b", "http://[::1]:1", "http://no.such.invalid:80"])
def test_where_nothing_listens_no_node_is_running(url: str) -> None:
    with GatewayClient(url, TOKEN) as client, pytest.raises(NotRunning):
        client.ask(calls.node())


def test_a_port_that_is_none_is_an_error_of_this_client_too() -> None:
    with pytest.raises(GatewayError):
        GatewayClient("http://127.0.0.1:99999", TOKEN)


@pytest.mark.parametrize("length", [6, None])
async def test_an_upload_of_a_known_and_of_an_unknown_length(
    gateway: FakeGateway, client: GatewayClient, length: int | None
) -> None:
    gateway.answers = {PUT: Started("t1")}
    query = calls.upload_query("a b", "text/plain", "mesh", again=True)
    started = await asyncio.to_thread(client.upload, query, iter([b"abc", b"", b"def"]), length)
    assert (started.transfer, gateway.bodies[PUT]) == ("t1", b"abcdef")
    assert gateway.asked == [(PUT, {"name": "a b", "mime": "text/plain", "class": "mesh", "again": "1"})]


async def test_what_the_callers_own_body_raises_is_the_callers(gateway: FakeGateway, client: GatewayClient) -> None:
    """A disk that fails while a file is read is no fault of the node."""

    def body() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionResetError("of the caller")

    gateway.answers = {PUT: Started("t1")}
    with pytest.raises(ConnectionResetError, match="of the caller"):
        await asyncio.to_thread(client.upload, {}, body(), 10)


async def test_a_node_that_refuses_in_the_middle_of_an_upload_is_heard(
    gateway: FakeGateway, client: GatewayClient
) -> None:
    refused = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def full(request: web.Request) -> web.StreamResponse:
        await request.content.readany()
        loop.call_later(0.05, refused.set)
        return problem(413, "too_large", "this is larger than the node takes", "send less")

    def body() -> Iterator[bytes]:
        yield b"x" * 1000
        asyncio.run_coroutine_threadsafe(refused.wait(), loop).result()
        yield b"x" * 1000

    gateway.answers = {PUT: full}
    with pytest.raises(Refused) as error:
        await asyncio.to_thread(client.upload, {}, body(), 10**9)
    assert error.value.code == "too_large"


async def test_a_download_that_is_cut_short_is_reported(gateway: FakeGateway, client: GatewayClient) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.close()
        return response

    def read() -> None:
        with client.download("ab", "key") as content:
            assert content.length == 1000
            assert b"".join(content.parts) == b""

    gateway.answers = {"GET /api/files/ab/content": cut}
    with pytest.raises(BrokenOff):
        await asyncio.to_thread(read)


async def test_closing_ends_what_another_thread_waits_for(gateway: FakeGateway, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    gateway.answers = {GET_NODE: never}
    api = AsyncGatewayClient.of_home(tmp_path)
    assert api is not None
    waiting = asyncio.create_task(api.node())
    await asked.wait()
    await api.close()
    with pytest.raises(BrokenOff):
        await waiting
    with pytest.raises(BrokenOff):
        await api.node()


@pytest.mark.parametrize("text", ["../stats", "a/b", "a?b=c", "ä b", "#x"])
def test_whatever_is_asked_for_stays_one_part_of_the_path(text: str) -> None:
    path = calls.transfer(text).path
    assert path.startswith("/api/transfers/")
    assert path.count("/") == 3
    assert not set(path) & set("?# ")
