from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from shared import exit_codes
from shared.gateway_api.why import Why
from tests.fakes.gateway import FakeGateway
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]
NOON_MS = 1_700_000_000_000
TRANSFER = "9c41d2" + "0" * 26
TRACE = "ab" * 16


def _row(transport: str, outcome: str, **changes: Any) -> dict[str, Any]:
    row = {
        "at": NOON_MS,
        "transport": transport,
        "outcome": outcome,
        "cause": None,
        "count": 1,
        "ms": 3.2,
        "maxMs": 3.2,
        "fallbackFrom": None,
        "hedged": False,
        "traceId": TRACE,
    }
    return {**row, **changes}


WHY: dict[str, Any] = {
    "kind": "transfer",
    "id": TRANSFER,
    "verdict": "fallback",
    "headline": "film.bin arrives over webtorrent since 12:03:04 because the webrtc worker was lost (worker_lost); "
    "webrtc was tried again 3 times: no_link; and more that makes this a line longer than any terminal's, "
    "which must not be cut or broken where a script reads it",
    "transport": "webtorrent",
    "since": NOON_MS,
    "reasons": [],
    "causes": [{"cause": "worker_lost", "count": 2, "sentence": "The worker process died; see its log."}],
    "timeline": [
        _row("webrtc", "failed", cause="worker_lost", count=2, maxMs=40.0),
        _row("webtorrent", "confirmed", fallbackFrom="webrtc", hedged=True),
    ],
    "omitted": 7,
    "changes": [{"at": NOON_MS, "kind": "worker_lost", "text": "the webrtc worker w1 was lost"}],
    "changesKnownSince": NOON_MS,
    "peers": [],
    "links": [],
    "traceId": TRACE,
    "traceKept": True,
}


def _clock() -> str:
    return f"{datetime.fromtimestamp(NOON_MS / 1000).astimezone():%Y-%m-%d %H:%M:%S}"


async def test_the_verdict_then_what_was_tried_what_changed_and_the_trace(gateway: FakeGateway, capsys: Capsys) -> None:
    gateway.answers = {"GET /api/why/9c41d2": WHY}
    shown = await run_cli(capsys, "why", "9c41d2", "--home", str(gateway.home))
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == WHY["headline"]
    order = [
        "7 earlier hops are left out",
        "TRANSPORT",
        "failed     worker_lost",
        "after webrtc, hedge",
        "WHAT CHANGED",
        f"{_clock()}  the webrtc worker w1 was lost",
        "worker_lost (2): The worker process died; see its log.",
        f"trace {TRACE}",
        f"  swarmbridge trace {TRACE}",
    ]
    places = [next(number for number, line in enumerate(lines) if words in line) for words in order]
    assert places == sorted(places)
    assert "3 ≤ 40" in shown.out
    ((_, query),) = gateway.asked
    assert abs(int(query["utcOffset"])) < 24 * 60


async def test_a_note_within_a_change_is_text(gateway: FakeGateway, capsys: Capsys) -> None:
    text = 'peer-0123456789abcdef was blocked (both ways, "[/red] [bold]x")'
    change = {"at": NOON_MS, "kind": "peer_blocked", "text": text}
    gateway.answers = {"GET /api/why/9c41d2": {**WHY, "changes": [change]}}
    shown = await run_cli(capsys, "why", "9c41d2", "--home", str(gateway.home))
    assert f"{_clock()}  {text}" in shown.out


async def test_as_json(gateway: FakeGateway, capsys: Capsys) -> None:
    gateway.answers = {"GET /api/why/9c41d2": WHY}
    assert (await run_cli(capsys, "why", "9c41d2", "--home", str(gateway.home), "--json")).json == msgspec.to_builtins(
        msgspec.convert(WHY, Why)
    )


async def test_a_bad_verdict_is_an_answer_too(gateway: FakeGateway, capsys: Capsys) -> None:
    bad = {**WHY, "verdict": "failed", "changes": [], "causes": [], "traceKept": False}
    gateway.answers = {"GET /api/why/peer-aa": bad}
    shown = await run_cli(capsys, "why", "peer-aa", "--home", str(gateway.home))
    assert shown.code == 0
    assert f"nothing changed on this node before it (watched since {_clock()})" in shown.out
    assert "(not kept here yet, or no longer)" in shown.out


async def test_where_nothing_was_tried_there_is_only_the_verdict(gateway: FakeGateway, capsys: Capsys) -> None:
    nothing = {**WHY, "verdict": "idle", "timeline": [], "changes": [], "causes": [], "traceId": None}
    gateway.answers = {"GET /api/why/9c41d2": {**nothing, "headline": "a\x1b[31m is kept here"}}
    shown = await run_cli(capsys, "why", "9c41d2", "--home", str(gateway.home))
    assert shown.out == "a�[31m is kept here\n"


async def test_nothing_known_is_code_1(gateway: FakeGateway, capsys: Capsys) -> None:
    for subject in ("peer-0000000000000000", "../stats", "Ä"):
        result = await run_cli(capsys, "why", subject, "--home", str(gateway.home))
        assert result.code == exit_codes.FAILED
        result.error_line()
    assert [path for path, _ in gateway.asked] == ["GET /api/why/peer-0000000000000000"]
    assert (await run_cli(capsys, "why", "--home", str(gateway.home))).code == exit_codes.USAGE
