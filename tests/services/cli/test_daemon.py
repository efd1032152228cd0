"""A home's token goes to that home's own gateway alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from services.cli.daemon import find_daemon
from services.cli.failures import CliFailure
from shared import exit_codes
from shared.gateway_api.proof import PROOF_PATH
from tests.fakes.gateway import PROOF_KEY, Answer, FakeGateway
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]
LINK = "swarmbridge:" + "ab" * 32
URL = "http://127.0.0.1:7700"


def _home(folder: Path, pid: int, url: str = URL, proof: str = "key") -> str:
    (folder / "gateway.json").write_text(json.dumps({"url": url, "pid": pid, "proof": proof}))
    (folder / "gateway.token").write_text("secret\n")
    return str(folder)


def test_the_token_goes_where_the_home_says(tmp_path: Path) -> None:
    home = _home(tmp_path, os.getpid())
    assert find_daemon(home, None, None).token == "secret"
    assert find_daemon(home, URL + "/", None).token == "secret"


def test_a_token_that_is_not_in_the_home_is_where_the_home_says(tmp_path: Path) -> None:
    home = _home(tmp_path, os.getpid())
    address = Path(home) / "gateway.json"
    elsewhere = tmp_path / "configured.token"
    elsewhere.write_text("another\n")
    address.write_text(json.dumps({**json.loads(address.read_text()), "token_file": str(elsewhere)}))
    assert find_daemon(home, None, None).token == "another"
    elsewhere.unlink()  # a path of a container, say
    assert find_daemon(home, None, None).token == "secret"


def test_the_token_goes_to_no_other_address(tmp_path: Path) -> None:
    home = _home(tmp_path, os.getpid())
    with pytest.raises(CliFailure, match="not sent there") as refused:
        find_daemon(home, "http://127.0.0.1:45999", None)
    assert refused.value.exit_code == exit_codes.REFUSED
    (tmp_path / "other.token").write_text("another")
    assert find_daemon(home, "http://127.0.0.1:45999", str(tmp_path / "other.token")).token == "another"


def test_a_gateway_that_was_killed_is_not_where_its_file_says(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    home = _home(tmp_path, gone.pid)
    with pytest.raises(CliFailure) as refused:
        find_daemon(home, None, None)
    assert refused.value.exit_code == exit_codes.NOT_RUNNING
    with pytest.raises(CliFailure):
        find_daemon(home, URL, None)


@pytest.mark.parametrize("text", ["", "[]", '{"url": 1}', '{"url": "x", "pid": "y"}', '{"url": "x", "pid": 1e999}'])
def test_an_address_file_that_is_none_is_no_node(tmp_path: Path, text: str) -> None:
    (tmp_path / "gateway.json").write_text(text)
    with pytest.raises(CliFailure) as refused:
        find_daemon(str(tmp_path), None, None)
    assert refused.value.exit_code == exit_codes.NOT_RUNNING


@asynccontextmanager
async def _whoever_has_the_port(answer: Answer) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server that is no gateway of this home. Yields its address, and the requests that it got."""
    asked: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return await answer(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def _ok(request: web.Request) -> web.StreamResponse:
    return web.json_response({"proof": "0" * 64})


async def _closes(request: web.Request) -> web.StreamResponse:
    response = web.json_response({"proof": ""})
    response.force_close()
    return response


async def _no_http(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"220 mail ready\r\n")
    request.transport.close()
    return web.Response()


async def _endless(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"{" * 10_000_000)


@pytest.mark.parametrize("answer", [_ok, _closes, _no_http, _endless])
@pytest.mark.parametrize("proof", ["key", ""])
@pytest.mark.parametrize("command", [["stats"], ["put", __file__], ["ls"], ["get", LINK]])
async def test_whoever_has_the_port_of_a_killed_gateway_gets_no_token(
    tmp_path: Path, capsys: Capsys, answer: Answer, proof: str, command: list[str]
) -> None:
    async with _whoever_has_the_port(answer) as (url, asked):
        home = _home(tmp_path, os.getpid(), url, proof)  # its process id has a new owner as well
        result = await run_cli(capsys, *command, "--home", home)
        assert result.code in (exit_codes.REFUSED, exit_codes.FAILED)
        assert url in result.error_line() or "broke off" in result.err
        assert asked
        assert all(request.path == PROOF_PATH for request in asked)
        assert not any("Authorization" in request.headers for request in asked)


async def test_the_question_cannot_be_passed_on_to_the_gateway_itself(
    gateway: FakeGateway, tmp_path: Path, capsys: Capsys
) -> None:
    """The home's gateway runs elsewhere by now, and whoever has its old port asks it for the answer."""

    async def pass_on(request: web.Request) -> web.StreamResponse:
        async with aiohttp.ClientSession() as session, session.get(gateway.url + request.path_qs) as response:
            return web.Response(body=await response.read(), content_type="application/json")

    async with _whoever_has_the_port(pass_on) as (url, asked):
        result = await run_cli(capsys, "stats", "--home", _home(tmp_path, os.getpid(), url, PROOF_KEY))
        assert result.code == exit_codes.REFUSED
        assert "its token was not sent there" in result.error_line()
        assert [request.path for request in asked] == [PROOF_PATH]


async def test_a_token_that_the_user_names_goes_where_the_user_says(gateway: FakeGateway, capsys: Capsys) -> None:
    """Behind a proxy the gateway sees another address than its user."""
    gateway.answers = {"GET /api/flags": {"webrtcTransport": True}}
    token = str(gateway.home / "gateway.token")
    assert (await run_cli(capsys, "flags", "--url", gateway.url, "--token-file", token)).code == 0
    assert (await run_cli(capsys, "flags", "--home", str(gateway.home))).code == 0
