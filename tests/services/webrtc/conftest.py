"""A PeerServer and nodes, closed after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.services.webrtc.node import Node
from tests.services.webrtc.peer_server import FakePeerServer

MakeNode = Callable[..., Awaitable[Node]]


@pytest.fixture
async def server() -> AsyncIterator[FakePeerServer]:
    server = FakePeerServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def make_node(server: FakePeerServer, tmp_path: Path) -> AsyncIterator[MakeNode]:
    nodes: list[Node] = []

    async def make(name: str, **start: object) -> Node:
        node = Node(name, tmp_path, [server.entry])
        nodes.append(node)
        return await node.start(**start)  # type: ignore[arg-type]

    yield make
    for node in nodes:
        await node.stop()
