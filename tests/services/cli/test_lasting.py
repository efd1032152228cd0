"""A gateway that is restarted while `get` or `put` runs: it is waited for and found again, and the work goes on."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.cli import lasting
from shared import exit_codes
from tests.fakes.gateway import Answer, FakeGateway, fake_gateway, problem, then
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]
DIGEST = "ab" * 32
LINK = f"swarmbridge:{DIGEST}"
DATA = os.urandom(700_000)
FETCH, PUT, TRANSFER = "POST /api/fetches", "POST /api/files", "GET /api/transfers/t1"
CONTENT = f"GET /api/files/{DIGEST}/content"


@pytest.fixture
async def next_one(gateway: FakeGateway, tmp_path: Path) -> AsyncIterator[FakeGateway]:
    """What the gateway of the home is after its restart: at another port, and nobody knows of it yet."""
    home = tmp_path / "next"
    home.mkdir()
    async with fake_gateway(home) as running:
        running.answers["GET /api/flags"] = {}
        yield running


def dies(gateway: FakeGateway, next_one: FakeGateway, cut_after: int = 0, gone_s: float = 0.0) -> Answer:
    """An answer in the middle of which the gateway is killed; gone_s: until the next one is there."""
    address = gateway.home / "gateway.json"

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse()
        response.content_length = len(DATA)
        if cut_after:
            await response.prepare(request)
            await response.write(DATA[:cut_after])
        if address.exists() and gateway.url in address.read_text():  # a client asks a second time
            address.unlink()
            there = (next_one.home / "gateway.json").read_text()
            asyncio.get_running_loop().call_later(gone_s, address.write_text, there)
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


def transfer(state: str, **changes: Any) -> dict[str, Any]:
    size = len(DATA)
    return {
        "id": "t1",
        "kind": "get",
        "state": state,
        "name": "photo.jpg",
        "chunksDone": 1,
        "chunksTotal": 1,
        "bytesDone": size,
        "bytesTotal": size,
        "byTransport": {"webrtc": size},
        "cause": None,
        "link": LINK,
        "manifest": DIGEST,
        "startedAt": 1,
        **changes,
    }


async def whole(request: web.Request) -> web.StreamResponse:
    return web.Response(body=DATA)


async def test_a_get_follows_its_transfer_to_the_next_gateway(
    gateway: FakeGateway, next_one: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    gateway.answers = {FETCH: {"transfer": "t1"}, TRANSFER: then(transfer("running"), dies(gateway, next_one, 0, 0.5))}
    next_one.answers |= {TRANSFER: then(transfer("running"), transfer("done")), CONTENT: whole}
    result = await run_cli(capsys, "get", LINK, "-o", str(tmp_path / "out"), "--home", str(gateway.home))
    assert result.code == 0, result.err
    assert (tmp_path / "out").read_bytes() == DATA
    assert (result.err.count(lasting.WAITING), result.err.count(lasting.GOES_ON)) == (1, 1)
    assert FETCH not in [asked for asked, _ in next_one.asked]


@pytest.mark.parametrize("end", [None, transfer("failed", cause="closed"), transfer("failed", cause="source_lost")])
async def test_what_went_with_the_gateway_is_asked_for_again(
    gateway: FakeGateway, next_one: FakeGateway, capsys: Capsys, tmp_path: Path, end: dict[str, Any] | None
) -> None:
    gateway.answers = {FETCH: {"transfer": "t1"}, TRANSFER: dies(gateway, next_one)}
    next_one.answers |= {FETCH: {"transfer": "t2"}, "GET /api/transfers/t2": transfer("done", id="t2"), CONTENT: whole}
    next_one.answers |= {TRANSFER: end} if end else {}
    result = await run_cli(capsys, "get", LINK, "-o", str(tmp_path / "out"), "--home", str(gateway.home))
    assert result.code == 0, result.err
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("cut_after", [1, 300_000, len(DATA) - 1])
async def test_a_download_goes_on_where_it_was_cut(
    gateway: FakeGateway, next_one: FakeGateway, capsys: Capsys, tmp_path: Path, cut_after: int
) -> None:
    cut = dies(gateway, next_one, cut_after)
    gateway.answers = {FETCH: {"transfer": "t1"}, TRANSFER: transfer("done"), CONTENT: cut}
    next_one.answers[CONTENT] = whole
    result = await run_cli(capsys, "get", LINK, "-o", str(tmp_path / "out"), "--home", str(gateway.home))
    assert result.code == 0, result.err
    assert (tmp_path / "out").read_bytes() == DATA


async def test_one_that_does_not_come_back_is_said_so(
    gateway: FakeGateway, next_one: FakeGateway, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting, "GONE_FOR_S", 0.5)
    gateway.answers = {FETCH: {"transfer": "t1"}, TRANSFER: dies(gateway, next_one, 0, 3600)}
    result = await run_cli(capsys, "get", LINK, "--home", str(gateway.home))
    assert result.code == exit_codes.FAILED
    assert lasting.WAITING in result.err
    assert "broke off" in result.err


async def test_a_put_sends_again_what_the_gateway_took_with_it(
    gateway: FakeGateway, next_one: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    gateway.answers = {PUT: {"transfer": "t1"}, TRANSFER: dies(gateway, next_one)}
    next_one.answers |= {TRANSFER: transfer("failed", cause="source_lost"), PUT: {"transfer": "t2"}}
    next_one.answers["GET /api/transfers/t2"] = transfer("done", id="t2")
    result = await run_cli(capsys, "put", str(tmp_path / "file"), "--home", str(gateway.home))
    assert result.code == 0, result.err
    assert result.out == LINK + "\n"
    assert next_one.bodies[PUT] == DATA


async def test_a_put_that_is_cut_is_sent_again(
    gateway: FakeGateway, next_one: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    gateway.answers[PUT] = dies(gateway, next_one)
    next_one.answers |= {PUT: {"transfer": "t1"}, TRANSFER: transfer("done")}
    result = await run_cli(capsys, "put", str(tmp_path / "file"), "--home", str(gateway.home))
    assert result.code == 0, result.err
    assert next_one.bodies[PUT] == DATA


async def test_what_was_stored_before_a_failure_is_reported_with_it(
    gateway: FakeGateway, capsys: Capsys, tmp_path: Path
) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        file.write_bytes(b"x")
    full = problem(507, "store_full", "no room", "do rm")

    async def refuse(request: web.Request) -> web.StreamResponse:
        await request.read()
        return full

    gateway.answers = {PUT: then({"transfer": "t1"}, refuse), TRANSFER: transfer("done")}
    result = await run_cli(capsys, "put", *map(str, files), "--json", "--home", str(gateway.home))
    assert result.code == exit_codes.FAILED
    said = json.loads(result.out)
    assert [file["name"] for file in said["files"]] == ["one"]
    assert said["error"]["code"] == "store_full"
