"""Real managers over real workers, in each speech and both ways: what a manager knows of a peer is `Accepted` alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from services.manager.app import app
from shared.bus import bodies
from shared.bus.calls import Calls
from shared.bus.contract import Incoming
from shared.bus.messages.envelopes import Answered, Deliver, Receipt, ReplyMessage, Verdict
from shared.bus.messages.records import WorkerStatus
from shared.content.messages import RequestChunk
from shared.ids import PeerToken
from shared.process.run import Process
from shared.settings.blocklist import Blocklist
from shared.settings.config import Config, FlagSettings
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from tests.fakes.json_speech import BOTH
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.shared.worker.couple import BODY, Couple

REQUEST_S = 10.0


class ManagedNode(WorkerNode):
    """With a real manager, and a caller in the place of the chunk service."""

    async def _start_manager(self) -> None:
        self.chunk = self.hub.bus("chunk-caller")
        self.calls = Calls(self.chunk, self.subjects, self.subjects.manager)
        await self.calls.start()

        async def status(event: WorkerStatus, incoming: Incoming) -> None:
            self.status = event

        await self.caller.serve(self.subjects.event("status"), WorkerStatus, status)
        bus = self.hub.bus("manager-real")
        flags, blocklist = Flags(FlagSettings()), Blocklist()
        await flags.start(bus)
        await blocklist.start(bus)
        process = Process("manager", bus.instance, Config(), bus, None, self.subjects, flags, blocklist, Tasks())
        self.manager = process
        self.managing = asyncio.create_task(app(process))
        await until(lambda: any(one.pattern == self.subjects.deliver for one in self.hub.interests))

    async def stop(self) -> None:
        await super().stop()
        self.manager.stopping.set()
        await self.managing
        await self.manager.tasks.close()
        await self.calls.close()

    async def fetch(self, peer: PeerToken, ref: str) -> tuple[bytes, Receipt]:
        """What the chunk service does: ask, pull the body, give the verdict."""
        call_id, body = os.urandom(16), b""
        call = Deliver(call_id, self.chunk.instance, peer, RequestChunk(ref))

        async def on_message(message: ReplyMessage) -> bool:
            nonlocal body
            if isinstance(message, Answered):
                assert message.body is not None
                body = await bodies.pull(self.chunk, self.subjects, message.body, timeout_s=REQUEST_S)
                verdict = Verdict(call_id, message.hop, None, len(body))
                await self.chunk.publish(self.subjects.manager(message.manager), verdict)
            return isinstance(message, Receipt)

        receipt = await self.calls.call(self.subjects.deliver, call_id, call, REQUEST_S, on_message)
        assert isinstance(receipt, Receipt)
        return body, receipt


@pytest.fixture(params=BOTH)
async def couple(request: pytest.FixtureRequest) -> AsyncIterator[Couple]:
    couple = Couple(request.param, node=ManagedNode)
    await couple.start()
    yield couple
    await couple.stop()


async def test_chunks_are_delivered_both_ways_over_one_link(couple: Couple) -> None:
    near, far = couple.near, couple.far
    assert isinstance(near, ManagedNode)
    assert isinstance(far, ManagedNode)
    near.bodies["chunk-n"] = BODY[::-1]
    for asks, holds, ref, body in ((near, far, "chunk-a", BODY), (far, near, "chunk-n", BODY[::-1])):
        got, receipt = await asks.fetch(holds.token, ref)
        assert got == body
        assert receipt.outcome == "confirmed"
        assert holds.asked[-1].stamp.role == ("member" if couple.sealed else "guest")
    assert len(couple.near_transport.links) == 1
