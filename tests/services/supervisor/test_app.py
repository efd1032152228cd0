"""Every ending is a line and an exit code, and with --json an object of the form that every command has."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from services.supervisor.app import main
from services.supervisor.arguments import parse
from shared import exit_codes

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _quiet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMBRIDGE_NODE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("json_wanted", [True, False])
def test_a_taken_port(capsys: Capsys, json_wanted: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = parse(["up", "--no-fork", "--port", str(port), *(["--json"] if json_wanted else [])])
        assert main(options) == exit_codes.CANNOT_START
    said = capsys.readouterr()
    if json_wanted:
        error = json.loads(said.out)["error"]
        assert (error["code"], said.err) == ("cannot_start", "")
        assert "--port" in error["message"]
    else:
        assert said.out == ""
        assert said.err == f"error: port {port} is taken; choose another with --port\n"


@pytest.mark.parametrize("command", [["up"], ["init"]])
def test_bad_settings(capsys: Capsys, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setenv("SWARMBRIDGE_GATEWAY_PORT", "many")
    monkeypatch.setenv("SWARMBRIDGE_TELEMETRY_LOG_LEVEL", "loud")
    assert main(parse(command)) == exit_codes.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
    assert main(parse([*command, "--json"])) == exit_codes.USAGE
    said = capsys.readouterr()
    assert said.err == ""
    assert "SWARMBRIDGE_GATEWAY_PORT" in json.loads(said.out)["error"]["message"]


def test_a_demo_that_cannot_start_is_a_demos_document_too(capsys: Capsys) -> None:
    options = parse(["demo", "--no-fork", "--json", "--nats-binary", "/no/such/nats-server"])
    assert main(options) == exit_codes.CANNOT_START
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["reason"] == document["error"]["message"]
