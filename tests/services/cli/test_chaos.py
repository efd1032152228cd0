"""`flags chaos`: what is asked of the gateway, and what is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from services.cli.chaos_command import in_words
from shared import exit_codes
from tests.fakes.gateway import FakeGateway, problem
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]
PEER = "peer-0123456789abcdef"
FAULTS: dict[str, Any] = {"drop": 20, "delayMs": 0, "refuse": 0, "percent": 100, "peer": PEER}


async def test_set_and_clear(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    put, delete = "PUT /api/chaos/webrtc", "DELETE /api/chaos/webrtc"
    gateway.answers = {put: {"webrtcTransport": True, "chaos": {"webrtc": FAULTS}}, delete: {"chaos": {}}}
    shown = await run_cli(capsys, "flags", "chaos", "webrtc", "--drop", "20", "--peer", PEER, *home)
    assert f"drop 20 %, to {PEER}" in shown.out
    assert json.loads(gateway.bodies[put]) == {"drop": 20, "peer": PEER}
    more = ("--refuse", "1", "--delay-ms", "5", "--percent", "3", "--json")
    assert (await run_cli(capsys, "flags", "chaos", "webrtc", *more, *home)).json == {"webrtc": FAULTS}
    assert json.loads(gateway.bodies[put]) == {"refuse": 1, "delayMs": 5, "percent": 3}
    cleared = await run_cli(capsys, "flags", "chaos", "webrtc", "--clear", *home)
    assert "webrtc      none" in cleared.out
    assert gateway.asked[-1][0] == delete


async def test_the_flags_table_shows_faults(gateway: FakeGateway, capsys: Capsys) -> None:
    flags = {"webrtcTransport": True, "chaos": {"webrtc": FAULTS}}
    gateway.answers = {"GET /api/flags": flags}
    shown = await run_cli(capsys, "flags", "--home", str(gateway.home))
    assert "chaos.webrtc     drop 20 %" in shown.out
    assert (await run_cli(capsys, "flags", "--json", "--home", str(gateway.home))).json == flags


async def test_a_node_in_production_says_why(gateway: FakeGateway, capsys: Capsys) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return problem(403, "forbidden", "this node runs in production", "set node.environment")

    gateway.answers = {"PUT /api/chaos/webrtc": refuse}
    result = await run_cli(capsys, "flags", "chaos", "webrtc", "--drop", "1", "--home", str(gateway.home))
    assert result.code == exit_codes.FAILED
    assert result.error_line() == "error: this node runs in production; set node.environment\n"


async def test_its_own_help(capsys: Capsys) -> None:
    shown = await run_cli(capsys, "flags", "chaos", "--help")
    assert shown.code == exit_codes.OK
    for words in ("Examples:", "swarmbridge flags chaos webrtc --drop 20", "--clear", "--json"):
        assert words in shown.out


def test_faults_in_words() -> None:
    assert in_words(None) == "none"
    assert in_words({**FAULTS, "peer": "", "drop": 0, "delayMs": 5}) == "delay all by 5 ms"
    assert (
        in_words({"drop": 1, "refuse": 2, "delayMs": 5, "percent": 10, "peer": PEER})
        == f"refuse 2 %, drop 1 %, delay the others by 5 ms, of 10 % of requests, to {PEER}"
    )
