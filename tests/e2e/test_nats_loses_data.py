"""A whole node whose NATS server comes back without its data: it is whole again without anybody's help."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.bus.nats import bus as nats_bus
from shared.bus.nats.jetstream import api
from shared.bus.nats.layout import streams
from tests.e2e.leftovers import processes_of
from tests.e2e.test_up import Running, cli, cli_json, running

pytestmark = pytest.mark.e2e

WHOLE_AGAIN_S = 90.0
"""For a slow machine: nats-server is started again, everybody connects, streams are made; a few seconds."""


def _lose_the_volume(node: Running) -> None:
    [server] = [pid for pid in processes_of(node.base) if "nats-server" in Path(f"/proc/{pid}/cmdline").read_text()]
    # Stopped, so that it cannot write what it has while its files go; then killed, as with a lost volume.
    os.kill(server, signal.SIGSTOP)
    shutil.rmtree(node.home / "nats")
    os.kill(server, signal.SIGKILL)


def _remove_every_stream(node: Running) -> None:
    """As `nats stream rm` with the keeper's seed, which may make and remove them."""
    [ports] = list((node.home / "run" / "nats").glob("*.ports"))
    url = json.loads(ports.read_bytes())["nats"][0]
    seed = (node.home / "run" / "seeds" / node.where["node"] / "keeper" / "bus.seed").read_text().strip()
    asyncio.run(_remove_streams(url, seed, node.where["node"]))


async def _remove_streams(url: str, seed: str, node: str) -> None:
    bus = await nats_bus.connect(url, "keeper-2", seed=seed, service="keeper")
    try:
        for _, config in streams(node):
            await api(bus.connection, f"STREAM.DELETE.{config['name']}", {})
    finally:
        await bus.close()


@pytest.mark.parametrize("lose", [_lose_the_volume, _remove_every_stream])
def test_the_node_is_whole_again(tmp_path: Path, lose: Callable[[Running], None]) -> None:
    with running(tmp_path, tmp_path / "home") as node:
        first = tmp_path / "first.bin"
        first.write_bytes(os.urandom(2**20))
        link = cli_json(node, "put", str(first))["files"][0]["link"]
        assert cli(node, "flags", "webtorrent", "off").returncode == 0
        lose(node)

        second = tmp_path / "second.bin"
        second.write_bytes(os.urandom(2**20))
        give_up_s = time.monotonic() + WHOLE_AGAIN_S
        while cli(node, "put", str(second)).returncode != 0:
            assert time.monotonic() < give_up_s, "no put works again"
        while not [one for one in _diagnostics(node) if one["code"] == "storage-lost"]:
            assert time.monotonic() < give_up_s, "nobody was notified of the loss"
            time.sleep(0.2)
        # What people had set, and what was stored, is known as before.
        assert cli_json(node, "flags")["webTorrentTransport"] is False
        assert link in cli(node, "ls", "--links").stdout.splitlines()
        got = tmp_path / "got.bin"
        assert cli(node, "get", link, "-o", str(got)).returncode == 0
        assert got.read_bytes() == first.read_bytes()


def _diagnostics(node: Running) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{node.where['url']}/api/diagnostics", headers={"Authorization": f"Bearer {node.where['page'].split('=')[1]}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())
    return found
