from __future__ import annotations

import asyncio

from shared.clock import monotonic
from shared.errors import Cause
from shared.ids import LinkId
from shared.speech.budget import MAX_LINK_BYTES, ByteBudget
from shared.speech.sealed_native import SealedNative
from shared.transport.contract import LinkUp
from shared.wire.sealed.sealed_link import SealedLink
from shared.worker.session import LinkSession
from tests.fakes.loop_transport import LoopNet, LoopTransport
from tests.shared.wire.sealed.links import NOW_S, end

UP = LinkUp(LinkId("0123456789abcdef"), dialer=False, binding=bytes(32), expected_key=None)


def session_with(seal: SealedLink) -> LinkSession:
    transport = LoopTransport(LoopNet())
    speech = SealedNative(seal, ByteBudget(MAX_LINK_BYTES), monotonic(), NOW_S)
    return LinkSession(transport, UP, speech, lambda *_: None, monotonic)


async def test_a_frame_for_a_link_that_is_not_sealed_yet_waits_and_lets_others_run() -> None:
    session = session_with(end("listener", dialer=False))
    running = asyncio.create_task(session.run())
    session.goodbye()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while turns < 100:
            turns += 1
            await asyncio.sleep(0)

    await asyncio.wait_for(others(), 2.0)
    assert not running.done()
    session.close_soon(Cause.CLOSED)
    await asyncio.wait_for(running, 2.0)
