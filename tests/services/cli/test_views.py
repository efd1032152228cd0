from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from services.cli.output import by_transport, size
from shared import exit_codes
from shared.gateway_api.structs import NodeView, PlaceView, Stats
from shared.gateway_api.traces import TraceSummary, Waterfall
from shared.terminal.text import ago, printable
from shared.terminal.waterfall import draw
from tests.fakes.gateway import FakeGateway, problem
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]


def _row(name: str, depth: int = 0, offset: float = 0, length: float = 10, **changes: Any) -> dict[str, Any]:
    row = {
        "spanId": name,
        "parentId": "",
        "depth": depth,
        "name": name,
        "service": "manager",
        "node": "n",
        "offsetMs": offset,
        "durationMs": length,
        "status": "unset",
        "hop": False,
        "outcome": None,
        "cause": None,
        "fallbackReason": None,
        "transport": None,
    }
    return {**row, **changes}


WATERFALL: dict[str, Any] = {
    "traceId": "ab" * 16,
    "fallback": True,
    "focused": True,
    "hidden": 3,
    "startedAt": 1,
    "durationMs": 100.0,
    "rows": [
        _row("process sb.{node}.route.deliver", 0, 0, 100),
        _row("transport.attempt webrtc", 1, 0, 40, hop=True, outcome="failed", cause="closed", status="error"),
        _row("transport.attempt webtorrent", 1, 40, 60, hop=True, outcome="confirmed", fallbackReason="closed"),
        _row("x" * 300, 30, 99, 0),
    ],
}

STATS: dict[str, Any] = {
    "transportFallbacks": 2,
    "lastTransportFallbackAt": 1,
    "managers": {"count": 2, "deliveries": 5, "refused": {"busy": 3}, "duplicateShare": 0.012},
    "transports": [
        {
            "id": "webrtc",
            "label": "PeerJS DataChannels",
            "enabled": True,
            "state": "degraded",
            "fallbackCount": 2,
            "lastFallbackAt": 1,
            "lastError": "import_failed",
            "connectedPeers": 1,
            "fallbackCauses": {"closed": 2},
            "sentBytes": 4 << 30,
            "hops": {},
            "workers": 1,
        },
        {
            "id": "broadcast",
            "label": "BroadcastChannel Shim",
            "enabled": False,
            "state": "idle",
            "fallbackCount": 0,
            "lastFallbackAt": None,
            "lastError": None,
            "connectedPeers": 0,
            "fallbackCauses": {},
            "hops": {},
            "workers": 1,
        },
    ],
}


async def test_stats_as_a_table_and_as_json(gateway: FakeGateway, capsys: Capsys) -> None:
    whole = msgspec.to_builtins(msgspec.convert(STATS, Stats))
    gateway.answers = {"GET /api/stats": STATS}
    shown = await run_cli(capsys, "stats", "--home", str(gateway.home))
    assert shown.code == 0
    for words in (
        "degraded",
        "import_failed",
        "closed 2",
        "swarmbridge[node]",
        "2 fallbacks",
        "off",
        "never",
        "4.0 GiB",
    ):
        assert words in shown.out
    assert "2 managers, 5 deliveries in flight, not taken: busy 3, 1.2% of bytes came twice" in shown.out
    assert (await run_cli(capsys, "stats", "--home", str(gateway.home), "--json")).json == whole
    alone = {"count": 0, "deliveries": 0, "refused": {}, "duplicateShare": 0.0}
    gateway.answers = {"GET /api/stats": STATS | {"managers": alone}}
    assert "nothing can be delivered" in (await run_cli(capsys, "stats", "--home", str(gateway.home))).out


async def test_stats_say_since_when_and_which_entry_of_the_document_is_of_no_use(
    gateway: FakeGateway, capsys: Capsys
) -> None:
    whole = msgspec.convert(STATS, Stats)
    places = [
        PlaceView("w1", "peerServers", 0, "open", None, 1, None),
        PlaceView("w1", "peerServers", 1, "unusable", "misconfigured", 1, None),
    ]
    now_ms = round(time.time() * 1000)
    first = msgspec.structs.replace(whole.transports[0], last_error_at=now_ms, counted_since=now_ms, places=places)
    gateway.answers = {"GET /api/stats": msgspec.structs.replace(whole, transports=[first])}
    shown = await run_cli(capsys, "stats", "--home", str(gateway.home))
    for words in (
        "import_failed, 0 s ago",
        "counts since it was switched off, 0 s ago",
        "peerServers[1] of the rendezvous document is unusable: misconfigured",
    ):
        assert words in shown.out
    assert "peerServers[0]" not in shown.out


async def test_peers(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    gateway.answers = {"GET /api/peers": [], "GET /api/node": NodeView("n", "kabc", "peer-a")}
    assert (await run_cli(capsys, "peers", *home)).out == "no peer is linked\n"
    assert (await run_cli(capsys, "peers", "--self", *home)).out == "kabc\n"
    gateway.answers["GET /api/peers"] = [{"peer": "peer-a", "transports": ["webrtc", "broadcast"], "role": None}]
    assert "webrtc broadcast" in (await run_cli(capsys, "peers", *home)).out
    assert (await run_cli(capsys, "peers", "--json", *home)).json == gateway.answers["GET /api/peers"]


async def test_one_flag_is_shown_by_its_name(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    gateway.answers = {"GET /api/flags": {"webrtcTransport": True, "webTorrentTransport": False}}
    assert (await run_cli(capsys, "flags", "webrtc", *home)).out == "on\n"
    assert (await run_cli(capsys, "flags", "webTorrentTransport", *home)).out == "off\n"
    assert (await run_cli(capsys, "flags", "webrtc", "--json", *home)).json == {"webrtcTransport": True}
    older = await run_cli(capsys, "flags", "telemetry", *home)
    assert "no flag transportFallbackTelemetry" in older.error_line()
    assert {key for key, _ in gateway.asked} == {"GET /api/flags"}


async def test_flags_by_short_and_full_name(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    flags = {"webrtcTransport": True, "webTorrentTransport": False}
    put = "PUT /api/flags/webTorrentTransport"
    gateway.answers = {"GET /api/flags": flags, put: flags}
    assert "webTorrentTransport  off" in (await run_cli(capsys, "flags", *home)).out
    for name in ("webtorrent", "webTorrentTransport"):
        assert (await run_cli(capsys, "flags", name, "off", "--json", *home)).json == flags
        assert gateway.bodies.pop(put) == b'{"enabled":false}'


async def test_trace_draws_the_last_fallback(gateway: FakeGateway, capsys: Capsys) -> None:
    home = ("--home", str(gateway.home))
    gateway.answers = {
        "GET /api/traces": [TraceSummary("ab" * 16, "chunk.fetch", True, False, 1, 5.4, 7, 0, 2, [], [])],
        f"GET /api/traces/{'ab' * 16}/waterfall": WATERFALL,
    }
    shown = await run_cli(capsys, "trace", *home)
    for words in ("hop webrtc (manager)", "failed closed", "confirmed, after closed", "3 more spans", "━"):
        assert words in shown.out
    assert ("GET /api/traces", {"fallback": "1", "limit": "1"}) in gateway.asked
    assert (await run_cli(capsys, "trace", "ab" * 16, "--json", *home)).json == WATERFALL

    gateway.answers["GET /api/traces"] = []
    none = await run_cli(capsys, "trace", *home)
    assert none.code == exit_codes.FAILED
    assert "no fallback yet" in none.error_line()
    for bad in ("nothing", "../stats", "ä"):
        assert (await run_cli(capsys, "trace", bad, *home)).code == exit_codes.FAILED


async def test_trace_list(gateway: FakeGateway, capsys: Capsys) -> None:
    trace = {
        "traceId": "ab" * 16,
        "name": "chunk.fetch",
        "startedAt": 1,
        "durationMs": 5.4,
        "spans": 7,
        "fallback": True,
        "failed": False,
        "dropped": 0,
        "hops": 2,
        "services": ["chunk"],
        "nodes": ["n"],
    }
    gateway.answers = {"GET /api/traces": [trace]}
    shown = await run_cli(capsys, "trace", "--list", "--home", str(gateway.home))
    assert "chunk.fetch" in shown.out
    assert "fallback" in shown.out


async def test_a_refused_token_is_code_5(gateway: FakeGateway, capsys: Capsys, tmp_path: Path) -> None:
    gateway.token = "another"
    result = await run_cli(capsys, "stats", "--home", str(gateway.home))
    assert result.code == exit_codes.REFUSED
    assert "the token is wrong" in result.error_line()
    gateway.token = "the-operator's-token"
    gateway.answers = {"GET /api/stats": STATS}
    empty = tmp_path / "empty"
    empty.write_text("")
    for file in (empty, tmp_path / "missing"):
        arguments = ("stats", "--home", str(gateway.home), "--token-file", str(file))
        assert (await run_cli(capsys, *arguments)).code == exit_codes.REFUSED


async def test_something_else_on_the_port_is_said_so(gateway: FakeGateway, capsys: Capsys) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", content_type="text/html")

    async def broken(request: web.Request) -> web.StreamResponse:
        return web.Response(text="no", status=500)

    for answer in (page, broken):
        gateway.answers = {"GET /api/stats": answer}
        result = await run_cli(capsys, "stats", "--home", str(gateway.home))
        assert result.code == exit_codes.FAILED
        assert "no swarmbridge gateway" in result.error_line()


async def test_a_problem_of_the_node_is_reported_in_its_words(gateway: FakeGateway, capsys: Capsys) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        return problem(503, "unavailable", "the node's bus cannot be reached", "see whether the node is up")

    gateway.answers = {"GET /api/stats": busy}
    result = await run_cli(capsys, "stats", "--home", str(gateway.home))
    assert result.error_line() == "error: the node's bus cannot be reached; see whether the node is up\n"


@pytest.mark.parametrize("width", [20, 60, 80, 120, 300])
def test_a_waterfall_fits_its_terminal(width: int) -> None:
    lines = draw(msgspec.convert(WATERFALL, Waterfall), width).plain.splitlines()
    if width >= 80:
        assert max(len(line) for line in lines[2:6]) <= width
    assert len(lines) == 8


def test_numbers_as_people_read_them() -> None:
    assert [size(count) for count in (0, 1023, 1536, 32 << 20, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "32.0 MiB",
        "5.0 TiB",
    ]
    assert ago(None) == "never"
    assert by_transport({}) == "all of it was already here"
    assert printable("a\x1b[31mb\n") == "a�[31mb�"


async def test_with_the_bus_away_nobody_else_is_blamed(gateway: FakeGateway, capsys: Capsys) -> None:
    lost = {**STATS["transports"][0], "state": "error", "lastError": "worker_lost"}
    gateway.answers = {"GET /api/stats": {**STATS, "transports": [lost], "busConnected": False}}
    shown = (await run_cli(capsys, "stats", "--home", str(gateway.home))).out
    assert "the node's bus is away" in shown
    assert "manager" not in shown
    assert "worker is gone" not in shown


@pytest.mark.parametrize("arguments", [["flags"], ["flags", "--json"], ["flags", "webrtc"], ["--help"]])
async def test_a_reader_that_has_seen_enough_is_no_failure(gateway: FakeGateway, arguments: list[str]) -> None:
    gateway.answers = {"GET /api/flags": {"webrtcTransport": True}}
    reading, writing = os.pipe()
    os.close(reading)
    home = [] if "--help" in arguments else ["--home", str(gateway.home)]
    command = ("-m", "services.cli", *arguments, *home)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=writing, stderr=asyncio.subprocess.PIPE
    )
    os.close(writing)
    _, error = await process.communicate()
    assert (process.returncode, error) == (0, b"")
