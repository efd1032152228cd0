"""A whole gateway under test: its app on a bus in memory, a fake chunk service, and a client on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from services.gateway.app import app
from shared.bus.messages.subjects import Subjects
from shared.process.run import Process
from shared.settings.blocklist import Blocklist
from shared.settings.config import BroadcastSettings, Config, GatewaySettings, NodeSettings
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from tests.fakes.memory_bus import MemoryBus, MemoryHub
from tests.fakes.waiting import DEADLINE_S, until
from tests.services.gateway.fake_chunk import FakeChunk

TOKEN = "the-operator's-token"


@dataclass
class GatewayNode:
    """bus: another process of the node, to publish events from."""

    home: Path
    url: str
    hub: MemoryHub
    subjects: Subjects
    chunk: FakeChunk
    bus: MemoryBus
    flags: Flags
    session: aiohttp.ClientSession
    process: Process
    serving: asyncio.Task[None]

    async def get(self, path: str, status: int = 200, **options: Any) -> Any:
        return await self.ask("GET", path, status, **options)

    async def post(self, path: str, status: int = 200, **options: Any) -> Any:
        return await self.ask("POST", path, status, **options)

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """The answer's JSON, after a look at its status."""
        async with self.session.request(method, self.url + path, **options) as response:
            body = await response.text()
            assert response.status == status, body
            return json.loads(body)

    async def once(self, path: str, ready: Callable[[Any], object], **options: Any) -> Any:
        """What is at `path` once it is as wanted. Raises: TimeoutError."""
        async with asyncio.timeout(DEADLINE_S):
            while not ready(found := await self.get(path, **options)):
                await asyncio.sleep(0.01)
        return found

    async def ended(self, transfer_id: str) -> Any:
        """The transfer once it runs no more."""
        return await self.once(f"/api/transfers/{transfer_id}", lambda transfer: transfer["state"] != "running")


@asynccontextmanager
async def gateway_node(
    home: Path,
    *,
    environment: str = "production",
    allow_chaos: bool = False,
    hub: MemoryHub | None = None,
    pages_token: str = "",
    **settings: Any,
) -> AsyncIterator[GatewayNode]:
    """Run a gateway; its token is TOKEN unless the settings name another file. hub: one that others use already."""
    (home / "gateway.token").write_text(TOKEN + "\n")
    hub, subjects = hub or MemoryHub(), Subjects("n")
    chunk = FakeChunk(hub, subjects)
    await chunk.start()
    config = Config(
        node=NodeSettings(id="n", home=str(home), environment=environment, allow_chaos=allow_chaos),
        gateway=GatewaySettings(**settings),
        broadcast=BroadcastSettings(token_file=pages_token),
    )
    bus = hub.bus("gateway-1")
    flags = Flags(config.flags)
    await flags.start(bus)
    blocklist = Blocklist()
    await blocklist.start(bus)
    process = Process("gateway", "gateway-1", config, bus, None, subjects, flags, blocklist, Tasks())
    serving = asyncio.create_task(app(process))
    address = home / "gateway.json"
    await until(lambda: address.exists() or serving.done())
    if serving.done():
        serving.result()
    url = json.loads(address.read_text())["url"]
    session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})
    node = GatewayNode(home, url, hub, subjects, chunk, hub.bus("other-1"), flags, session, process, serving)
    try:
        yield node
    finally:
        await session.close()
        process.stopping.set()
        await asyncio.wait_for(serving, 10)
        await process.tasks.close()
        await chunk.close()
