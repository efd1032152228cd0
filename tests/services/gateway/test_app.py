from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from services.gateway.http.server import read_token
from shared.process.run import CannotStart
from tests.services.gateway.node import gateway_node


async def test_a_gateway_says_where_it_is_and_takes_it_back(tmp_path: Path) -> None:
    address = tmp_path / "gateway.json"
    async with gateway_node(tmp_path) as node:
        found = json.loads(address.read_text())
        assert found == {"url": node.url, "pid": os.getpid()}
        assert node.url.startswith("http://127.0.0.1:")
    assert not address.exists()
    assert sorted(os.listdir(tmp_path)) == ["gateway.token", "spool"]


async def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart) as caught:
            async with gateway_node(tmp_path, port=port):
                pass
    assert f"port {port} of 127.0.0.1 is taken" in str(caught.value)
    assert not (tmp_path / "gateway.json").exists()


def test_a_missing_token_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "gateway.token"
    token = read_token(path)
    assert len(token) >= 40
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_token(path) == token
    assert [entry.name for entry in path.parent.iterdir()] == ["gateway.token"]


def test_an_unusable_token_file_is_said_in_words(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for path in (empty, tmp_path):
        with pytest.raises(CannotStart, match="token file"):
            read_token(path)
