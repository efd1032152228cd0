"""The server's configuration: text that the real nats-server takes, and never more than was granted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from services.supervisor.machine.nats_process import find_binary
from shared.bus.nats.server_config import AccountEntry, ServerLayout, UserEntry, server_config

KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def user(publish: list[str], subscribe: list[str]) -> UserEntry:
    return UserEntry(KEY, publish, subscribe)


def test_says_the_limits_and_the_accounts() -> None:
    text = server_config(ServerLayout("n", "/store", "/ports", accounts=[AccountEntry("mesh", False, [])]))
    assert "max_payload: 2000000" in text
    assert 'ping_interval: "2s"' in text
    assert '"mesh": {' in text
    assert "jetstream: enabled" not in text


def test_an_empty_allow_list_denies_everything() -> None:
    text = server_config(ServerLayout("n", "/s", "/p", accounts=[AccountEntry("a", True, [user([], ["x"])])]))
    assert 'publish: { deny: ">" }' in text
    assert 'subscribe: { allow: ["x"] }' in text


@pytest.mark.parametrize("directory", ["plain", "with space", 'with "quote'])
def test_the_real_server_takes_it(tmp_path: Path, directory: str) -> None:
    store = tmp_path / directory
    store.mkdir()
    users = [user(["sb.n.>", "$KV.flags.>"], ["_INBOX_x.>"]), user([], [])]
    config = tmp_path / "nats.conf"
    layout = ServerLayout("n", str(store), str(store), accounts=[AccountEntry("node-n", True, users[:1])])
    config.write_text(server_config(layout))
    checked = subprocess.run([find_binary(), "-t", "-c", config], capture_output=True, timeout=20, check=False)
    assert checked.returncode == 0, checked.stderr
