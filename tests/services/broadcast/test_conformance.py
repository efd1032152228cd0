"""The suite for all transports against broadcast: on the fake bus, and on a real server with accounts and users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shared.bus.contract import Bus
from shared.bus.nats import bus as nats_bus
from tests.conformance.suite import CHECKS, Check, Pair
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.nats_server import nats_server
from tests.fakes.nats_users import accounts_config
from tests.services.broadcast.conftest import BroadcastEnd


@pytest.fixture(params=["memory", "nats"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        meshes: list[Bus] = []
        if request.param == "memory":
            hub = MemoryHub()
            meshes = [hub.bus("broadcast-a"), hub.bus("broadcast-b")]
        else:
            config, seeds = accounts_config(["n1", "n2"])
            server = await stack.enter_async_context(nats_server(tmp_path, config))
            for node in ("n1", "n2"):
                mesh = await nats_bus.connect(
                    server.url,
                    f"broadcast-{node}",
                    seed=seeds[f"{node}-mesh", "broadcast"],
                    service="broadcast",
                )
                stack.push_async_callback(mesh.close)
                meshes.append(mesh)
        near, far = (BroadcastEnd(mesh) for mesh in meshes)
        await near.start()
        await far.start()
        yield Pair(near, far)
        await near.stop()
        await far.stop()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_broadcast(pair: Pair, check: Check) -> None:
    await check(pair)
