"""The server's configuration: text that the real nats-server takes, and never more than was granted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.bus.nats.layout import streams
from shared.bus.nats.server_config import AccountEntry, ServerLayout, UserEntry, server_config
from shared.errors import ConfigError
from tests.fakes.nats_server import nats_server

OTHER_KEY = "UCNDV7DF2NX35XVFCUX4CZ32PYTR6OZRNMT4XYL6JPZUHDDGVRGJDDW7"
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


ODD_NAMES = [
    "plain",
    "with space",
    'with "quote',
    "dé",
    "日本 🙂",
    "back\\slash\\n",
    "tab\tnewline\nreturn\r",
    "\x01\x1f\x7f",
    "$HOME # ; { } [ ] : = *",
    "1k",
    "true",
    "include 'x'",
]


@pytest.mark.parametrize("directory", ODD_NAMES)
async def test_the_real_server_takes_any_path_and_reads_it_as_it_is(tmp_path: Path, directory: str) -> None:
    """By NATS's own rules for strings, which are not JSON's: the store is made exactly where it was said."""
    store = tmp_path / directory
    users = [user(["sb.n.>", "$KV.flags.>"], ["_INBOX.x.>"]), UserEntry(OTHER_KEY, [], [])]
    layout = ServerLayout('server"é', str(store), "", accounts=[AccountEntry("node-n", True, users)])
    text = server_config(layout).replace("{", "{{").replace("}", "}}")
    async with nats_server(tmp_path / "server", text):
        assert (store / "jetstream").is_dir()
    assert set(os.listdir(tmp_path)) == {directory, "server"}


@pytest.mark.parametrize("name", ["nul\0", "surrogate\udce9"])
def test_what_the_format_cannot_hold_is_a_clear_error(name: str) -> None:
    with pytest.raises(ConfigError):
        server_config(ServerLayout(name, "/s", ""))


def test_what_a_node_reserves_is_little() -> None:
    reserved = sum(config["max_bytes"] for _, config in streams("n"))
    assert reserved <= 101 * 2**20
