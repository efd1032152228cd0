"""The suite against webrtc: real data channels, signalled through a PeerServer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.rtc import available
from tests.conformance.suite import CHECKS, Check, End, Pair
from tests.services.webrtc.node import Node, Worker
from tests.services.webrtc.peer_server import FakePeerServer


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    server = FakePeerServer()
    await server.start()
    near, far = [await _end(name, tmp_path, server) for name in ("near", "far")]
    await near.start()
    await far.start()
    yield Pair(near, far)
    await near.stop()
    await far.stop()
    await server.stop()


async def _end(name: str, folder: Path, server: FakePeerServer) -> End:
    node = await Node(name, folder, [server.entry]).start(workers=0)
    worker = Worker(node, f"webrtc-{name}", available.load)
    await worker.serve()
    return End(worker.transport, node.hint)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_webrtc(pair: Pair, check: Check) -> None:
    await check(pair)
