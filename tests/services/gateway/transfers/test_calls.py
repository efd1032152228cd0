"""TransferBoard of which nothing is heard: it is said at once, and not waited out for an hour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.gateway.transfers import limits
from services.gateway.transfers.board import TransferBoard
from services.gateway.transfers.calls import TransferCalls
from shared.bus.messages.envelopes import TransferUpdate
from shared.bus.messages.subjects import Subjects
from shared.content.link import ContentLink
from shared.errors import Cause
from shared.gateway_api.structs import Transfer
from shared.tasks.owned import Tasks
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until
from tests.services.gateway.fake_chunk import FakeChunk
from tests.services.gateway.node import gateway_node

LINK = ContentLink("ab" * 32, ())


class Scene:
    """A gateway's transfers, a chunk service that takes calls and never ends them, and a clock of the test's own."""

    def __init__(self) -> None:
        self.hub, self.subjects = MemoryHub(), Subjects("n")
        self.chunk = FakeChunk(self.hub, self.subjects)
        self.chunk.hold_calls = True
        self.transfers = TransferBoard()
        self.now_s = 1000.0
        self.changes: list[Transfer] = []
        self.tasks = Tasks()
        self.calls = TransferCalls(
            self.hub.bus("gateway-1"),
            self.subjects,
            self.tasks,
            self.transfers,
            self.changes.append,
            clock=lambda: self.now_s,
        )

    def passes(self, seconds: float) -> None:
        """Time, looked at as often as it is."""
        for _ in range(round(seconds)):
            self.now_s += 1.0
            self.calls.watch()

    async def hears(self, transfer: Transfer, waiting: Cause | None = None) -> None:
        before = len(self.changes)
        update = TransferUpdate(
            bytes.fromhex(transfer.id), "get", "running", f"name {before}", 0, 1, 0, 1, {}, waiting=waiting
        )
        await self.chunk.bus.publish(self.subjects.reply("gateway-1"), update)
        await until(lambda: len(self.changes) > before)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    await made.chunk.start()
    await made.calls.start()
    yield made
    await made.calls.close()
    await made.tasks.close()
    await made.chunk.close()


async def test_the_bus_being_away_is_said_at_once_and_over_when_it_is_back(scene: Scene) -> None:
    transfer = scene.calls.start_fetch(LINK)
    await until(lambda: len(scene.chunk.fetches) == 1)
    scene.hub.disconnect("gateway-1")
    scene.calls.watch()
    assert scene.changes[-1].waiting == "bus_unavailable"
    assert "NATS" in scene.changes[-1].reason
    scene.hub.reconnect("gateway-1")
    await scene.hears(transfer)
    last = scene.changes[-1]
    assert (last.waiting, last.reason) == (None, "")


@pytest.mark.parametrize(("away", "cause"), [(True, "bus_unavailable"), (False, "worker_lost")])
async def test_silence_ends_a_transfer_at_its_stall_limit(scene: Scene, away: bool, cause: str) -> None:
    scene.calls.start_fetch(LINK)
    if away:
        scene.hub.disconnect("gateway-1")
    else:
        await scene.chunk.close()
    scene.passes(limits.STALLED_AFTER_S - 1)
    assert (scene.changes[-1].state, scene.changes[-1].waiting) == ("running", cause)
    scene.passes(1)
    ended = scene.changes[-1]
    assert (ended.state, ended.cause, ended.waiting) == ("failed", cause, None)
    assert ended.reason
    await until(lambda: not scene.calls._running)


async def test_what_is_heard_of_now_and_then_is_not_given_up(scene: Scene) -> None:
    transfer = scene.calls.start_fetch(LINK)
    await until(lambda: len(scene.chunk.fetches) == 1)
    for _ in range(3):
        scene.passes(limits.STALLED_AFTER_S - 1)
        await scene.hears(transfer, Cause.NO_LISTENER)
        assert scene.changes[-1].waiting == "no_listener"
        assert "transports switched on" in scene.changes[-1].reason


async def test_a_gateway_that_was_stopped_does_not_blame_others_for_it(scene: Scene) -> None:
    scene.calls.start_fetch(LINK)
    scene.calls.watch()
    scene.now_s += 10 * limits.STALLED_AFTER_S
    scene.calls.watch()
    assert scene.changes[-1].state == "running"


async def test_the_api_tells_what_a_transfer_waits_for(tmp_path: Path) -> None:
    async with gateway_node(tmp_path) as node:
        node.chunk.hold_calls = True
        started = await node.post("/api/files", 202, data=b"x", params={"name": "a"})
        node.hub.disconnect("gateway-1")
        path = f"/api/transfers/{started['transfer']}"
        waits = await node.once(path, lambda transfer: transfer["waiting"])
        assert (waits["state"], waits["waiting"]) == ("running", "bus_unavailable")
        assert waits["reason"]
