"""`up` and the command line against it: two nodes of one machine meet; each wrong turn has one line and its code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared import exit_codes
from shared.content.keys import ROOT_BYTES, identity_seed, public_key
from shared.ids import member_token
from tests.e2e.leftovers import environment, files_in, processes_of

pytestmark = pytest.mark.e2e

START_TIMEOUT_S = 60
COMMAND_TIMEOUT_S = 120
"""A transfer whose bus is away is given up after 60 s."""
FILE_BYTES = 5 * 2**20 + 3


@dataclass(frozen=True)
class Running:
    """A node that is up. where: what `up --json` said. errors: its stderr, in one piece, once it has ended."""

    base: Path
    home: Path
    process: subprocess.Popen[str]
    where: dict[str, Any]
    errors: list[str] = field(default_factory=list)


def up_command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.supervisor", "up", "--home", str(home), "--json", *arguments]


def cli(node: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.cli", *arguments, "--home", str(node.home)]
    return subprocess.run(
        command, env=environment(node.base), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )


def cli_json(node: Running, *arguments: str) -> Any:
    ended = cli(node, *arguments, "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


@contextmanager
def running(base: Path, home: Path, *arguments: str) -> Iterator[Running]:
    base.mkdir(exist_ok=True)
    with subprocess.Popen(
        up_command(home, *arguments),
        env=environment(base),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            node = Running(base, home, process, json.loads(line))
            yield node
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
        assert process.stderr is not None
        node.errors.append(process.stderr.read())


def identity(home: Path) -> str:
    """Make a home with a root key. Returns: the node's peer token."""
    home.mkdir(parents=True)
    root = os.urandom(ROOT_BYTES)
    (home / "root.key").write_bytes(root)
    (home / "root.key").chmod(0o600)
    return member_token(public_key(identity_seed(root)))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Running]]:
    """A with a rendezvous of its own, B joined to it; each trusts the other."""
    base = tmp_path_factory.mktemp("up")
    homes = base / "home a", base / "home b"
    tokens = [identity(home) for home in homes]
    with ExitStack() as held:
        first = held.enter_context(running(base / "a", homes[0], "--name", "a", "--member", tokens[1]))
        assert first.where["peer"] == tokens[0]
        document = first.where["rendezvous"]
        second = held.enter_context(
            running(base / "b", homes[1], "--name", "b", "--rendezvous", document, "--member", tokens[0])
        )
        yield first, second


def test_a_file_goes_from_one_node_to_the_other(nodes: tuple[Running, Running], tmp_path: Path) -> None:
    first, second = nodes
    source = tmp_path / "photo one.jpg"
    source.write_bytes(os.urandom(FILE_BYTES))
    link = cli_json(first, "put", str(source))["files"][0]["link"]
    got = cli_json(second, "get", link, "-o", str(tmp_path / "got.jpg"))
    assert (tmp_path / "got.jpg").read_bytes() == source.read_bytes()
    assert got["bytes"] == FILE_BYTES
    # Nodes with a NATS server each share no BroadcastChannel: that is one bus's.
    assert set(got["byTransport"]) <= {"webrtc", "webtorrent"}


def test_stats_and_peers_show_the_link(nodes: tuple[Running, Running]) -> None:
    stats = cli_json(nodes[0], "stats")
    assert [row["id"] for row in stats["transports"]] == ["webrtc", "webtorrent", "broadcast"]
    assert stats["transportFallbacks"] == sum(row["fallbackCount"] for row in stats["transports"])
    assert cli(nodes[0], "peers").returncode == 0


def test_a_flag_holds_until_it_is_set_again(nodes: tuple[Running, Running]) -> None:
    assert cli(nodes[1], "flags", "broadcast", "off").returncode == 0
    assert cli_json(nodes[1], "flags")["broadcastTransport"] is False
    assert cli(nodes[1], "flags", "broadcast", "on").returncode == 0


def test_the_page_needs_the_token(nodes: tuple[Running, Running]) -> None:
    assert nodes[0].where["page"].startswith(nodes[0].where["url"] + "/#token=")


def test_a_home_that_is_in_use_is_refused(nodes: tuple[Running, Running]) -> None:
    again = subprocess.run(
        up_command(nodes[0].home),
        env=environment(nodes[0].base),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert again.returncode == 3
    assert "already runs" in json.loads(again.stdout)["error"]["message"]
    assert again.stderr == ""


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        ended = subprocess.run(
            up_command(tmp_path / "home", "--port", str(port)),
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 3
    assert json.loads(ended.stdout)["error"]["message"] == f"port {port} is taken; choose another with --port"


def test_without_a_node_the_command_line_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.cli", "stats", "--home", str(tmp_path / "none")]
    ended = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == exit_codes.NOT_RUNNING
    assert len(ended.stderr.splitlines()) == 1


def test_ending_a_node_keeps_its_data_and_nothing_else(tmp_path: Path) -> None:
    """Last in this file: a node of its own, with two managers' worth of time to start."""
    home = tmp_path / "kept"
    with running(tmp_path / "base", home) as node:
        assert (home / "gateway.json").exists()
        link = cli_json(node, "put", __file__)["files"][0]["link"]
        peer = node.where["peer"]
    assert node.process.returncode == 0
    assert node.errors == [""], "whoever runs it in a terminal reads that as trouble"
    assert not processes_of(node.base)
    assert files_in(node.base / "tmp") == []
    kept = {path.name for path in home.iterdir()}
    assert {"root.key", "gateway.token", "nats", "store", "logs"} <= kept
    assert not {"gateway.json", "run"} & kept
    with running(tmp_path / "base", home) as node:
        assert node.where["peer"] == peer
        assert cli(node, "get", link, "-o", str(tmp_path / "again.py")).returncode == 0
    assert (tmp_path / "again.py").read_bytes() == Path(__file__).read_bytes()
