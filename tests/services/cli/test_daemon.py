"""A home's token goes to that home's own gateway alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli import exit_codes
from services.cli.daemon import find_daemon
from services.cli.failures import CliFailure

URL = "http://127.0.0.1:7700"


def _home(folder: Path, pid: int) -> str:
    (folder / "gateway.json").write_text(json.dumps({"url": URL, "pid": pid}))
    (folder / "gateway.token").write_text("secret\n")
    return str(folder)


def test_the_token_goes_where_the_home_says(tmp_path: Path) -> None:
    home = _home(tmp_path, os.getpid())
    assert find_daemon(home, None, None).token == "secret"
    assert find_daemon(home, URL + "/", None).token == "secret"


def test_the_token_goes_to_no_other_address(tmp_path: Path) -> None:
    home = _home(tmp_path, os.getpid())
    with pytest.raises(CliFailure, match="not sent there") as refused:
        find_daemon(home, "http://127.0.0.1:45999", None)
    assert refused.value.exit_code == exit_codes.REFUSED
    (tmp_path / "other.token").write_text("another")
    assert find_daemon(home, "http://127.0.0.1:45999", str(tmp_path / "other.token")).token == "another"


def test_a_gateway_that_was_killed_is_not_where_its_file_says(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    home = _home(tmp_path, gone.pid)
    with pytest.raises(CliFailure) as refused:
        find_daemon(home, None, None)
    assert refused.value.exit_code == exit_codes.NOT_RUNNING
    with pytest.raises(CliFailure):
        find_daemon(home, URL, None)


@pytest.mark.parametrize("text", ["", "[]", '{"url": 1}', '{"url": "x", "pid": "y"}', '{"url": "x", "pid": 1e999}'])
def test_an_address_file_that_is_none_is_no_node(tmp_path: Path, text: str) -> None:
    (tmp_path / "gateway.json").write_text(text)
    with pytest.raises(CliFailure) as refused:
        find_daemon(str(tmp_path), None, None)
    assert refused.value.exit_code == exit_codes.NOT_RUNNING
