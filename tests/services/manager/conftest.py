from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.services.manager.node import Node


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    yield node
    await node.close()
