"""A whole node whose NATS server comes back without its data: it is whole again without anybody's help."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from shared.gateway_api import calls
from shared.gateway_api.client import GatewayClient
from shared.gateway_api.structs import DiagnosticView
from tests.e2e.leftovers import processes_of
from tests.e2e.test_up import Running, cli, cli_json, running

pytestmark = pytest.mark.e2e

WHOLE_AGAIN_S = 90.0
"""For a slow machine: nats-server is started again, everybody connects, streams are made; a few seconds."""


def test_the_node_is_whole_again(tmp_path: Path) -> None:
    with running(tmp_path, tmp_path / "home") as node:
        first = tmp_path / "first.bin"
        first.write_bytes(os.urandom(2**20))
        link = cli_json(node, "put", str(first))["files"][0]["link"]
        assert cli(node, "flags", "webtorrent", "off").returncode == 0
        store = node.home / "nats"
        [server] = [pid for pid in processes_of(tmp_path) if "nats-server" in Path(f"/proc/{pid}/cmdline").read_text()]
        # Stopped, so that it cannot write what it has while its files go; then killed, as with a lost volume.
        os.kill(server, signal.SIGSTOP)
        shutil.rmtree(store)
        os.kill(server, signal.SIGKILL)

        second = tmp_path / "second.bin"
        second.write_bytes(os.urandom(2**20))
        give_up_s = time.monotonic() + WHOLE_AGAIN_S
        while cli(node, "put", str(second)).returncode != 0:
            assert time.monotonic() < give_up_s, "no put works again"
        while not [one for one in _diagnostics(node) if one.code == "storage-lost"]:
            assert time.monotonic() < give_up_s, "nobody was notified of the loss"
            time.sleep(0.2)
        # What people had set, and what was stored, is known as before.
        assert cli_json(node, "flags")["webTorrentTransport"] is False
        got = tmp_path / "got.bin"
        assert cli(node, "get", link, "-o", str(got)).returncode == 0
        assert got.read_bytes() == first.read_bytes()


def _diagnostics(node: Running) -> list[DiagnosticView]:
    with GatewayClient(node.where["url"], node.where["page"].split("=")[1]) as client:
        return client.ask(calls.diagnostics())
