"""A container's health is its process's own answer on the bus, and old answers count for nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.bus.messages.envelopes import Health
from shared.bus.messages.subjects import Subjects
from shared.process import pulse as pulse_module
from shared.process.health import MAX_PULSE_AGE_S, judge
from shared.process.pulse import pulse
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until

NOW = 1_000_000.0


def written(tmp_path: Path, age_s: float = 0.0, **fields: str) -> Path:
    path = tmp_path / "pulse"
    path.write_text(json.dumps({"instance": "webrtc-1", "state": "ready", "reason": "", **fields}))
    os.utime(path, (NOW - age_s, NOW - age_s))
    return path


@pytest.mark.parametrize("state", ["ready", "active", "idle", "degraded"])
def test_what_serves_is_healthy_and_says_how(tmp_path: Path, state: str) -> None:
    well, line = judge(written(tmp_path, state=state, reason="peer_unknown"), NOW)
    assert well
    assert line == f"webrtc-1: {state} (peer_unknown)"


@pytest.mark.parametrize("state", ["initializing", "error"])
def test_what_does_not_serve_is_not(tmp_path: Path, state: str) -> None:
    assert not judge(written(tmp_path, state=state), NOW)[0]


def test_an_old_answer_is_none(tmp_path: Path) -> None:
    well, line = judge(written(tmp_path, age_s=MAX_PULSE_AGE_S + 5), NOW)
    assert not well
    assert "has not answered on the bus for 15 s" in line


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", "null"])
def test_nonsense_is_no_pulse(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pulse"
    path.write_text(text)
    assert not judge(path, NOW)[0]


def test_no_file_is_no_pulse(tmp_path: Path) -> None:
    assert not judge(tmp_path / "none", NOW)[0]


def test_as_the_engine_runs_it(tmp_path: Path) -> None:
    path = tmp_path / "pulse"
    path.write_text(json.dumps({"instance": "chunk-1", "state": "ready", "reason": ""}))
    done = subprocess.run([sys.executable, "-m", "shared.process.health", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "chunk-1: ready")


async def test_the_answer_crosses_the_bus_and_stops_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "PULSE_INTERVAL_S", 0.01)
    hub = MemoryHub()
    bus, path = hub.bus("chunk-1"), tmp_path / "pulse"
    state = Health("initializing")
    beating = asyncio.create_task(pulse(bus, Subjects("node"), "chunk", lambda: state, path))
    try:
        await until(path.exists)
        assert json.loads(path.read_text())["state"] == "initializing"
        state = Health("ready")
        await until(lambda: json.loads(path.read_text())["state"] == "ready")
    finally:
        beating.cancel()
        await asyncio.wait({beating})
    assert not path.exists()
