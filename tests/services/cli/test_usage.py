"""Exit codes and the one line: what a person gets who made a mistake, or whose node is not there."""

from __future__ import annotations

import socket
from pathlib import Path

import click
import pytest

from services.cli import supervisor
from services.cli.__main__ import main
from services.cli.commands import MODULES
from services.cli.failures import failure_of
from shared import exit_codes
from shared.errors import ConfigError
from shared.version import VERSION
from tests.services.cli.run_cli import run_cli

Capsys = pytest.CaptureFixture[str]
LINK = "swarmbridge:" + "ab" * 32


async def test_without_a_command_it_shows_what_there_is(capsys: Capsys) -> None:
    shown = await run_cli(capsys)
    assert shown.code == exit_codes.OK
    for name in ("up", "demo", "put", "get", "peers", "blocklist", "stats", "flags", "trace", "why", "version", "init"):
        assert f"\n  {name} " in shown.out


@pytest.mark.parametrize("name", sorted(MODULES))
async def test_every_command_has_help_with_examples_and_json(capsys: Capsys, name: str) -> None:
    shown = await run_cli(capsys, name, "--help")
    assert shown.code == exit_codes.OK
    assert "Examples:" in shown.out
    assert f"swarmbridge {name}" in shown.out
    assert "--json" in shown.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flag"], "No such command 'flag'"),
        (["put"], "Missing argument"),
        (["put", "/no/such/file"], "does not exist"),
        (["get", "http://example"], "does not start with swarmbridge:"),
        (["get", LINK + "#short"], "key is not"),
        (["get", LINK, "-o", "-", "--json"], "choose one"),
        (["flags", "nothing", "on"], "no flag nothing"),
        (["flags", "webrtc", "maybe"], "maybe"),
        (["flags", "chaos"], "Missing argument"),
        (["flags", "chaos", "carrier-pigeon", "--drop", "5"], "carrier-pigeon"),
        (["flags", "chaos", "webrtc"], "no fault to set"),
        (["flags", "chaos", "webrtc", "--drop", "101"], "101"),
        (["flags", "chaos", "webrtc", "--drop", "5", "--clear"], "--clear"),
        (["flags", "chaos", "webrtc", "--delay-ms", "60001"], "60001"),
        (["blocklist", "add"], "Missing argument"),
        (["blocklist", "ban"], "No such command 'ban'"),
        (["blocklist", "add", "peer-0123456789abcdef", "--direction", "sideways"], "sideways"),
        (["blocklist", "--url", "http://x", "remove", "peer-0123456789abcdef"], "blocklist remove"),
        (["blocklist", "--json", "add", "peer-0123456789abcdef"], "blocklist add"),
        (["stats", "--url", "nonsense"], "no http address"),
        (["stats", "extra"], "extra"),
    ],
)
async def test_wrong_usage_is_one_line_and_code_2(capsys: Capsys, arguments: list[str], said: str) -> None:
    result = await run_cli(capsys, *arguments)
    assert result.code == exit_codes.USAGE
    if "--json" in arguments:
        assert result.json["error"]["code"] == "usage"
        assert result.err == ""
    else:
        assert said in result.error_line()


async def test_with_json_the_error_is_json(capsys: Capsys, tmp_path: Path) -> None:
    result = await run_cli(capsys, "stats", "--home", str(tmp_path), "--json")
    assert result.code == exit_codes.NOT_RUNNING
    assert result.json["error"]["code"] == "not_running"
    assert (result.err, set(result.json["error"])) == ("", {"code", "message", "hint"})


EVERY_COMMAND = {
    "put": [__file__],
    "get": [LINK],
    "ls": [],
    "rm": ["ab" * 32],
    "peers": [],
    "blocklist": [],
    "stats": [],
    "flags": [],
    "trace": [],
    "why": ["peer-0123456789abcdef"],
}
"""Command -> arguments with which it asks a node."""


@pytest.mark.parametrize("command", sorted(MODULES.keys() - {"version"}))
async def test_with_json_the_error_of_every_command_is_json(capsys: Capsys, tmp_path: Path, command: str) -> None:
    here = ["--home", str(tmp_path), "--json"]
    wrong = await run_cli(capsys, command, "--nonsense", *here)
    assert (wrong.code, wrong.json["error"]["code"], wrong.err) == (exit_codes.USAGE, "usage", "")
    absent = await run_cli(capsys, command, *EVERY_COMMAND[command], *here)
    assert (absent.code, absent.json["error"]["code"], absent.err) == (exit_codes.NOT_RUNNING, "not_running", "")
    assert absent.json["error"]["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense", "--json"],
        ["version", "--nonsense", "--json"],
        ["blocklist", "add", "--json"],
        ["blocklist", "remove", "x", "--nonsense", "--json"],
        ["flags", "chaos", "webrtc", "--drop", "x", "--json"],
        ["nothing", "--json"],
    ],
)
async def test_with_json_wrong_usage_is_json_wherever_it_is_noticed(capsys: Capsys, arguments: list[str]) -> None:
    wrong = await run_cli(capsys, *arguments)
    assert (wrong.code, wrong.json["error"]["code"], wrong.err) == (exit_codes.USAGE, "usage", "")


@pytest.mark.parametrize("command", [["stats"], ["peers"], ["blocklist"], ["flags"], ["trace"], ["get", LINK]])
async def test_no_node_is_code_4(capsys: Capsys, tmp_path: Path, command: list[str]) -> None:
    result = await run_cli(capsys, *command, "--home", str(tmp_path))
    assert result.code == exit_codes.NOT_RUNNING
    assert "swarmbridge up" in result.error_line()


async def test_a_node_that_was_killed_is_code_4(capsys: Capsys, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "gateway.json").write_text(f'{{"url": "http://127.0.0.1:{port}", "pid": 1}}')
    (tmp_path / "gateway.token").write_text("token")
    result = await run_cli(capsys, "stats", "--home", str(tmp_path))
    assert result.code == exit_codes.NOT_RUNNING
    assert f"no node answers at http://127.0.0.1:{port}" in result.error_line()


async def test_a_bad_setting_in_the_environment_is_named(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMBRIDGE_GATEWAY_PORT", "many")
    result = await run_cli(capsys, "stats")
    assert result.code == exit_codes.USAGE
    assert "SWARMBRIDGE_GATEWAY_PORT: must be a whole number" in result.error_line()


async def test_version(capsys: Capsys) -> None:
    found = VERSION
    assert (await run_cli(capsys, "--version")).out == f"swarmbridge {found}\n"
    assert (await run_cli(capsys, "version")).out == f"swarmbridge {found}\n"
    assert (await run_cli(capsys, "version", "--json")).json == {"version": found}


@pytest.mark.parametrize("command", sorted(supervisor.COMMANDS))
async def test_what_is_the_supervisors_is_handed_on_as_it_is(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Its command line has one home; `--help` and mistakes are answered there."""
    became: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda path, arguments: became.append(arguments[1:]))
    line = [command, "--home", "h", "--nonsense=x", "--help", "--member", "k1", "-x", "--json"]
    assert (await run_cli(capsys, *line)).code == exit_codes.OK
    monkeypatch.setattr("sys.argv", ["swarmbridge", *line])
    with pytest.raises(SystemExit):  # as execv would not return, main goes on in this test alone
        main()
    assert became[0] == became[1] == ["-P", "-m", "services.supervisor", *line]


def test_whatever_happens_there_are_words_for_it() -> None:
    assert failure_of(KeyboardInterrupt()).exit_code == exit_codes.INTERRUPTED
    assert failure_of(click.Abort()).exit_code == exit_codes.INTERRUPTED
    assert failure_of(ConfigError(["a.b: no"])).exit_code == exit_codes.USAGE
    assert failure_of(PermissionError(13, "Permission denied", "/x")).message == "Permission denied /x"
    strange = failure_of(ValueError("secret"))
    assert strange.exit_code == exit_codes.FAILED
    assert "secret" not in strange.message
