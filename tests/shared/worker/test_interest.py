"""PeerInterest follows the links, however they flap; whoever waits for it is never left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from shared.bus.contract import Handler, Incoming
from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.bus.messages.subjects import Subjects
from shared.ids import PeerToken, member_token
from shared.tasks.owned import Tasks
from shared.worker.interest import PeerInterest
from tests.fakes.memory_bus import MemoryHub

PEER = member_token(bytes(32))
SUBJECTS = Subjects("n")
WAIT_S = 2.0


class Rig:
    def __init__(self) -> None:
        self.hub, self.tasks = MemoryHub(), Tasks()
        self.bus = self.hub.bus("w")
        self.interest = PeerInterest(self.bus, SUBJECTS, "webrtc", self._handler, self._start)

    def interested(self) -> bool:
        return any(interest.pattern == SUBJECTS.link("webrtc", PEER) for interest in self.hub.interests)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self.tasks.start(work, name=name)

    def _handler(self, peer: PeerToken) -> Handler[SendRequest]:
        async def handle(call: SendRequest, incoming: Incoming) -> Accepted:
            return Accepted("w", "link", 0.0)

        return handle


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.tasks.close()


async def test_wanted_is_routed_and_dropped_is_not(rig: Rig) -> None:
    rig.interest.want(PEER)
    await asyncio.wait_for(rig.interest.routed(PEER), WAIT_S)
    assert rig.interested()
    rig.interest.drop(PEER)
    await rig.interest.settled()
    assert not rig.interested()


async def test_who_waits_for_a_peer_that_is_dropped_is_released(rig: Rig) -> None:
    rig.interest.want(PEER)
    waiting = asyncio.create_task(rig.interest.routed(PEER))
    await asyncio.sleep(0)
    rig.interest.drop(PEER)
    await asyncio.wait_for(waiting, WAIT_S)


async def test_dropped_and_wanted_again_at_once_is_routed(rig: Rig) -> None:
    rig.interest.want(PEER)
    await rig.interest.settled()
    rig.interest.drop(PEER)
    rig.interest.want(PEER)
    await asyncio.wait_for(rig.interest.routed(PEER), WAIT_S)
    await rig.interest.settled()
    assert rig.interested()


async def test_a_subscription_that_is_in_flight_when_its_peer_is_dropped_is_no_route(rig: Rig) -> None:
    """Its interest is about to go: whoever dials next must wait for one that stays."""
    serve, reached, go_on = rig.bus.serve, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **options: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await serve(*args, **options)

    rig.bus.serve = slow  # type: ignore[method-assign]
    rig.interest.want(PEER)
    await asyncio.wait_for(reached.wait(), WAIT_S)
    rig.interest.drop(PEER)
    go_on.set()
    await rig.interest.settled()
    assert not rig.interested()
    go_on.clear()
    reached.clear()
    rig.interest.want(PEER)
    routed = asyncio.create_task(rig.interest.routed(PEER))
    await asyncio.wait_for(reached.wait(), WAIT_S)
    assert not routed.done()
    go_on.set()
    await asyncio.wait_for(routed, WAIT_S)
    assert rig.interested()


async def test_nobody_waits_for_a_route_that_nobody_wants(rig: Rig) -> None:
    rig.interest.want(PEER)
    rig.interest.drop(PEER)
    await asyncio.wait_for(rig.interest.routed(PEER), WAIT_S)
