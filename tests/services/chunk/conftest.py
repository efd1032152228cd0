"""Two nodes: A puts, B fetches through a manager in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shared.settings.config import ChunkSettings
from tests.fakes.memory_bus import MemoryHub
from tests.services.chunk.nodes import Caller, ChunkInstance, FakeManager, FarNode


class World:
    """Starts parts of the two nodes; closes all of them at the end of a test."""

    def __init__(self, tmp_path: Path, stack: AsyncExitStack) -> None:
        self.hub_a, self.hub_b = MemoryHub(), MemoryHub()
        self.home_a, self.home_b = tmp_path / "a", tmp_path / "b"
        self._stack = stack

    async def chunk_a(self, name: str = "chunk-a1", settings: ChunkSettings | None = None) -> ChunkInstance:
        return await self._started(ChunkInstance(self.hub_a, self.home_a, name, settings))

    async def chunk_b(self, name: str = "chunk-b1", settings: ChunkSettings | None = None) -> ChunkInstance:
        return await self._started(ChunkInstance(self.hub_b, self.home_b, name, settings))

    async def caller_a(self) -> Caller:
        caller = await Caller(self.hub_a).start()
        self._stack.push_async_callback(caller.close)
        return caller

    async def caller_b(self) -> Caller:
        caller = await Caller(self.hub_b).start()
        self._stack.push_async_callback(caller.close)
        return caller

    async def manager_b(self, role: str = "member") -> FakeManager:
        """B's manager; what it delivers is answered by A's chunk service."""
        manager = await FakeManager(self.hub_b, FarNode(self.hub_a, role).forward).start()
        self._stack.push_async_callback(manager.close)
        return manager

    async def _started(self, instance: ChunkInstance) -> ChunkInstance:
        await instance.start()
        self._stack.push_async_callback(instance.close)
        return instance


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(tmp_path, stack)
