"""A wrong argument is one clear line and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.supervisor.arguments import DEFAULT_SIZE_MIB, MAX_SIZE_MIB, MIN_SIZE_MIB, parse
from shared.ids import guest_token, member_token

MEMBER = member_token(bytes(32))


def test_up_reads_what_it_needs(tmp_path: Path) -> None:
    document = tmp_path / "rendezvous.json"
    document.write_text("{}")
    options = parse(
        ["up", "--home", str(tmp_path), "--port", "8080", "--rendezvous", str(document), "--member", MEMBER, "--json"]
    )
    assert (options.home, options.port, options.rendezvous) == (tmp_path, 8080, document.resolve())
    assert options.member == [MEMBER]
    assert options.json


def test_demo_has_defaults() -> None:
    options = parse(["demo"])
    assert options.size_mib == DEFAULT_SIZE_MIB
    assert options.file == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "up|demo|init"),
        (["up", "--port", "70000"], "must be 0 to 65535"),
        (["up", "--port", "x"], "whole number"),
        (["up", "--member", "nonsense"], "peer token"),
        (["up", "--member", guest_token("someone")], "peer token"),
        (["up", "--rendezvous", "/nowhere/at/all"], "is no file"),
        (["up", "--rendezvous", __file__], "is no rendezvous document"),
        (["demo", "--size-mib", "2"], "must be "),
        (["demo", "--file", "/nowhere/at/all"], "is no file"),
        (["demo", "--nonsense"], "unrecognized"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("error: ")
    assert (printed.err.count("\n"), printed.out) == (1, "")


def test_a_wrong_argument_is_one_object_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["up", "--port", "x", "--json"])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (2, "")
    assert json.loads(printed.out)["error"]["hint"] == "see `swarmbridge up --help`"


def test_a_path_may_start_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "r.json").write_text("{}")
    options = parse(["up", "--home", "~/node", "--rendezvous", "~/r.json"])
    assert (options.home, options.rendezvous) == (tmp_path / "node", tmp_path / "r.json")


def test_the_bounds_that_help_says_are_those_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["demo", "--help"])
    assert f"{MIN_SIZE_MIB} to {MAX_SIZE_MIB}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["up", "demo", "init"])
def test_help_says_exit_codes_and_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([command, "--help"])
    text = capsys.readouterr().out
    assert "Exit codes" in text
    assert "Example" in text
