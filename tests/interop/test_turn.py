"""coturn as Debian has it, on loopback: nodes that know nothing of each other but relays still deliver."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from shared.rtc import available
from shared.rtc.contract import DataChannel, LinkEvents, LinkFactory, LinkSettings
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.services.webrtc.node import Node
from tests.services.webrtc.peer_server import FakePeerServer

pytestmark = pytest.mark.timeout(120)
USER, WORD = "node", "only for this test"


@pytest_asyncio.fixture
async def turn(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a TURN server."""
    program = shutil.which("turnserver")
    assert program is not None, "tests/interop/install installs coturn"
    port = free_port()
    arguments = (
        "-n",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--allow-loopback-peers",
        "--lt-cred-mech",
        "--realm",
        "test",
    )
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        *("--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--listening-port", str(port)),
        *("--user", f"{USER}:{WORD}", "--pidfile", str(tmp_path / "pid"), "--log-file", "stdout"),
        *("--userdb", str(tmp_path / "users")),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    yield port
    process.terminate()
    await process.wait()


def relays_only() -> LinkFactory:
    """Links whose descriptions hold no candidate but relayed ones, so that every path leads through a relay."""
    make = available.load()

    def make_relayed(settings: LinkSettings, events: LinkEvents) -> DataChannel:
        link: Any = make(settings, events)
        for name in ("offer", "accept_offer"):
            setattr(link, name, _only_relays(getattr(link, name)))
        return link  # type: ignore[no-any-return]

    return make_relayed


def _only_relays(describe: Any) -> Any:
    async def described(*arguments: Any, **options: Any) -> str:
        lines = (await describe(*arguments, **options)).splitlines()
        kept = [line for line in lines if not line.startswith("a=candidate:") or " typ relay" in line]
        assert any(" typ relay" in line for line in kept), "the TURN server gave no address"
        return "\r\n".join(kept) + "\r\n"

    return described


async def test_relays_alone_deliver(turn: int, tmp_path: Path) -> None:
    server = FakePeerServer()
    await server.start()
    nodes = [Node(name, tmp_path, [server.entry]) for name in ("a", "b")]
    try:
        for node in nodes:
            node.write_ice([f"turn:127.0.0.1:{turn}"], USER, WORD)
            assert "turn:" in json.dumps(node.document.read_text())
            await node.start(load=relays_only)
        await until(lambda: all(states(node) == {"open"} for node in nodes), timeout_s=30)
        a, b = nodes
        await a.worker.transport.dial(b.hint, 3)
        await until(lambda: b.worker.ups, timeout_s=10)
        link = a.worker.ups[0].link
        for length in (1, 60_000):
            await a.worker.transport.send(link, bytes(length))
        arrived = b.worker.ups[0].link
        await until(lambda: len(b.worker.records(arrived)) == 2, timeout_s=20)
        assert [len(record) for record in b.worker.records(arrived)] == [1, 60_000]
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))
        await server.stop()


def states(node: Node) -> set[str]:
    return {place.state for place in node.worker.transport.meeting_places()}
