"""`blocklist`: what is asked of the gateway, and what is shown."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.cli.output import clock
from shared import exit_codes
from shared.ids import member_token
from shared.settings.blocklist import MAX_NOTE_CHARS
from tests.fakes.gateway import FakeGateway, problem
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]
PEER = "peer-0123456789abcdef"
TOKEN = member_token(bytes(32))
LONG_AGO_MS = 1_700_000_000_000
GET, PUT, DELETE = "GET /api/blocklist", f"PUT /api/blocklist/{PEER}", f"DELETE /api/blocklist/{PEER}"


def _block(**changes: Any) -> dict[str, Any]:
    return {"peer": PEER, "direction": "all", "note": "", "since": LONG_AGO_MS, **changes}


async def test_who_is_blocked_as_a_table_and_as_json(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    now_ms = round(time.time() * 1000)
    gateway.answers = {GET: [_block(note="asks [bold]too[/] much"), _block(direction="inbound", since=now_ms)]}
    shown = await run_cli(capsys, "blocklist", *home)
    header, first, second = [line.split("  ") for line in shown.out.splitlines()]
    assert [cell.strip() for cell in header if cell] == ["PEER", "DIRECTION", "SINCE", "NOTE"]
    assert [cell.strip() for cell in first if cell] == [PEER, "all", clock(LONG_AGO_MS), "asks [bold]too[/] much"]
    assert [cell.strip() for cell in second if cell.strip()] == [PEER, "inbound", clock(now_ms)]
    assert (await run_cli(capsys, "blocklist", "--json", *home)).json == gateway.answers[GET]


async def test_nobody(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    gateway.answers = {GET: []}
    assert (await run_cli(capsys, "blocklist", *home)).out == "nobody is blocked\n"
    assert (await run_cli(capsys, "blocklist", "--json", *home)).json == []


async def test_a_note_cannot_steer_the_terminal(gateway: FakeGateway, capsys: Capsys) -> None:
    gateway.answers = {GET: [_block(note="a\x1b[31mb\nc", since=0)]}
    shown = await run_cli(capsys, "blocklist", "--home", str(gateway.home))
    assert "unknown  a�[31mb�c" in shown.out


async def test_add_and_remove(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    blocked = [_block(direction="outbound", note="a note")]
    gateway.answers = {PUT: blocked, DELETE: []}
    shown = await run_cli(capsys, "blocklist", "add", PEER, "--direction", "outbound", "--note", "a note", *home)
    assert (shown.code, shown.err) == (exit_codes.OK, "")
    assert "outbound" in shown.out
    assert json.loads(gateway.bodies[PUT]) == {"direction": "outbound", "note": "a note"}
    assert (await run_cli(capsys, "blocklist", "add", PEER, "--json", *home)).json == blocked
    assert json.loads(gateway.bodies[PUT]) == {"direction": "all", "note": ""}
    assert (await run_cli(capsys, "blocklist", "remove", PEER, *home)).out == "nobody is blocked\n"
    assert (await run_cli(capsys, "blocklist", "remove", PEER, "--json", *home)).json == []


async def test_a_token_is_taken_as_it_is(gateway: FakeGateway, capsys: Capsys) -> None:
    gateway.answers = {f"PUT /api/blocklist/{TOKEN}": [_block()]}
    assert (await run_cli(capsys, "blocklist", "add", TOKEN, "--home", str(gateway.home))).code == exit_codes.OK


@pytest.mark.parametrize("peer", ["somebody", "../flags", "peer-1", "kabc", "", "peer-0123456789abcdef/x", "ä"])
@pytest.mark.parametrize("command", ["add", "remove"])
async def test_what_names_no_peer_is_wrong_usage(gateway: FakeGateway, capsys: Capsys, command: str, peer: str) -> None:
    result = await run_cli(capsys, "blocklist", command, peer, "--home", str(gateway.home))
    assert result.code == exit_codes.USAGE
    assert "names no peer" in result.error_line()
    assert gateway.asked == []


@pytest.mark.parametrize("note", ["x" * (MAX_NOTE_CHARS + 1), "two\nlines", "\x1b[31m"])
async def test_a_note_that_cannot_be_kept_is_wrong_usage(gateway: FakeGateway, capsys: Capsys, note: str) -> None:
    result = await run_cli(capsys, "blocklist", "add", PEER, "--note", note, "--home", str(gateway.home))
    assert result.code == exit_codes.USAGE
    assert "the note cannot be used; write one line" in result.error_line()


async def test_what_the_node_refuses_is_reported_in_its_words(gateway: FakeGateway, capsys: Capsys) -> None:
    async def unknown(request: web.Request) -> web.StreamResponse:
        return problem(404, "not_found", "this peer is not blocked", "see `swarmbridge blocklist`")

    gateway.answers = {DELETE: unknown}
    home = ("--home", str(gateway.home))
    result = await run_cli(capsys, "blocklist", "remove", PEER, *home)
    assert result.code == exit_codes.FAILED
    assert result.error_line() == "error: this peer is not blocked; see `swarmbridge blocklist`\n"
    assert (await run_cli(capsys, "blocklist", "remove", PEER, "--json", *home)).json["error"]["code"] == "not_found"
    gateway.token = "another"
    assert (await run_cli(capsys, "blocklist", *home)).code == exit_codes.REFUSED


@pytest.mark.parametrize("command", [(), ("add", PEER), ("remove", PEER)])
async def test_no_node_is_code_4(capsys: Capsys, tmp_path: Path, command: tuple[str, ...]) -> None:
    result = await run_cli(capsys, "blocklist", *command, "--home", str(tmp_path))
    assert result.code == exit_codes.NOT_RUNNING


@pytest.mark.parametrize("command", ["add", "remove"])
async def test_each_has_its_own_help(capsys: Capsys, command: str) -> None:
    shown = await run_cli(capsys, "blocklist", command, "--help")
    assert shown.code == exit_codes.OK
    for words in ("Examples:", f"swarmbridge blocklist {command} {PEER[:5]}", "--json", "--home"):
        assert words in shown.out
