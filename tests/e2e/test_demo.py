"""The demo as a person runs it: the whole story over real transports, and nothing left, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shared.bus.nats import bus as nats_bus
from shared.bus.nats.jetstream import api
from tests.e2e.leftovers import assert_nothing_left, environment
from tests.e2e.secrets_scan import secrets_in
from tests.fakes.nats_server import nats_server

SIZE_MIB = 24
"""Large enough for a fault to hit the middle, small enough for a test."""
RUN_TIMEOUT_S = 600
"""For a run that hangs; a busy machine may take ten times an idle one's half minute."""
LINE_TIMEOUT_S = 300

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(RUN_TIMEOUT_S + 30)]


def demo_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.supervisor", "demo", *arguments]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One whole run, with a file of your own."""
    base = tmp_path_factory.mktemp("demo")
    mine = base / "holiday video.bin"
    mine.write_bytes(os.urandom(3 * 2**20 + 17))
    command = demo_command("--json", "--size-mib", str(SIZE_MIB), "--file", str(mine))
    return (
        base,
        subprocess.run(
            command, env=environment(base), capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
        ),
    )


@pytest.fixture(scope="module")
def story(demo_run: tuple[Path, subprocess.CompletedProcess[str]]) -> dict[str, Any]:
    _, ended = demo_run
    assert ended.stdout, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    assert document["ok"], document["reason"]
    assert ended.returncode == 0
    return document


def test_every_file_arrived_and_every_fault_was_answered(story: dict[str, Any]) -> None:
    """Not which transport a file ended on: a slow chunk may be hedged over another one at any time."""
    files = {file["label"]: file for file in story["files"]}
    assert {"hello", "file 1", "file 2", "file 3", "file 4", "your file 1"} <= set(files)
    assert all(file["sha256Ok"] for file in story["files"])
    assert [(fault["transport"], fault["unexplained"]) for fault in story["faults"]] == [
        ("webrtc", 0),
        ("webtorrent", 0),
    ]
    assert all(fault["explained"] for fault in story["faults"])
    returned = [file for label, file in files.items() if label.startswith("file 4")]
    assert "webrtc" in returned[-1]["byTransport"], "the primary came back"
    assert files["your file 1"]["chunks"] == 4
    assert story["slowdown"] >= 1


def test_every_transport_carried_confirmed_chunks(story: dict[str, Any]) -> None:
    confirmed = {hop["transport"] for hop in story["hops"] if hop["outcome"] == "confirmed" and hop["bytes"] > 0}
    assert confirmed == {"webrtc", "webtorrent", "broadcast"}
    assert set(story["throughputMbPerS"]) == confirmed
    assert all(check["ok"] for check in story["checks"])


def test_a_failed_hop_has_its_cause(story: dict[str, Any]) -> None:
    failed = [hop for hop in story["hops"] if hop["outcome"] == "failed"]
    assert failed
    assert all(hop["cause"] for hop in failed)


def test_one_trace_crosses_processes_and_nodes(story: dict[str, Any]) -> None:
    spans = story["trace"]["rows"]
    assert spans[0]["depth"] == 0
    assert spans[0]["name"] == "chunk.fetch"
    hops = [span for span in spans if span["name"].startswith("transport.attempt")]
    assert len(hops) >= 2
    assert "confirmed" in {span["outcome"] for span in hops}
    assert {span["node"] for span in spans} == {"a", "b"}
    assert {"chunk", "manager"} <= {span["service"] for span in spans}


def test_nothing_that_must_stay_secret_is_printed(demo_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, ended = demo_run
    assert secrets_in(ended.stdout) == []
    assert secrets_in(ended.stderr) == []
    assert "holiday" not in ended.stdout


def test_nothing_is_left(demo_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    base, _ = demo_run
    assert_nothing_left(base)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("0.4 s", signal.SIGINT),
        ("starting", signal.SIGTERM),
        ("file 2: ", signal.SIGINT),
    ],
)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        demo_command("--size-mib", str(SIZE_MIB)),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        said = _until_moment(process, moment)
        os.killpg(process.pid, number)  # as a terminal does
        out, err = process.communicate(timeout=LINE_TIMEOUT_S)
        assert process.returncode == 130, err
    assert_nothing_left(tmp_path)
    assert secrets_in(said + out + err) == []


def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        demo_command("--size-mib", str(SIZE_MIB)), env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        _until_moment(process, "processes are ready")
        process.kill()
    # Its directory cannot be removed by anyone: that is what SIGKILL means.
    for path in (tmp_path / "tmp").iterdir():
        subprocess.run(["rm", "-rf", path], check=True)
    assert_nothing_left(tmp_path)


def test_a_demo_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        demo_command("--nats-binary", "/bin/false"),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=LINE_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 3
    assert "nats-server ended with code 1 while starting" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert_nothing_left(tmp_path)


def _until_moment(process: subprocess.Popen[str], moment: str) -> str:
    """Read until a line holds `moment`, or let that many seconds pass. Returns: what was printed."""
    if moment.endswith(" s"):
        time.sleep(float(moment.removesuffix(" s")))
        return ""
    assert process.stdout is not None
    said = ""
    give_up_s = time.monotonic() + LINE_TIMEOUT_S
    for line in process.stdout:
        said += line
        if moment in line:
            return said
        assert time.monotonic() < give_up_s
    raise AssertionError(f"it ended before {moment!r}: {said}")


async def test_it_runs_on_a_server_of_ones_own_and_leaves_nothing_there(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as server:
        command = demo_command("--json", "--size-mib", str(SIZE_MIB), "--nats-url", server.url)
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), RUN_TIMEOUT_S)
        document = json.loads(out)
        assert document["ok"], document["reason"]
        assert process.returncode == 0
        assert "nats-server" not in document["processes"]
        bus = await nats_bus.connect(server.url, "test-1")
        try:
            assert (await api(bus.connection, "STREAM.NAMES", {}))["total"] == 0
        finally:
            await bus.close()
