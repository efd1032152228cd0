"""Everything here happens in virtual time: hedges, pings and deadlines come when they are due, however busy the
machine is, and waiting for them costs nothing. Nothing here has a socket or a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack

import pytest

from shared.bus import calls
from tests.fakes.virtual_time import VirtualLoop, clocks_of
from tests.services.manager.node import Node


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualLoop}


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    with ExitStack() as stack:
        clocks_of(asyncio.get_running_loop(), [calls], stack)
        node = Node(asyncio.get_running_loop().time)
        yield node
        await node.close()
