"""When the peer of a link counts as gone: when it is silent altogether, and not when only its answers are late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aioice import ice, stun

from shared.errors import Cause
from shared.rtc.consent import CONSENT_FAILURES, CONSENT_INTERVAL_S
from tests.fakes.waiting import until
from tests.shared.rtc.pair import End, close, connect


async def test_a_peer_whose_data_comes_is_not_gone_because_its_answers_are_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialer, listener = End(), End()
    await connect(dialer, listener)
    asked = 0

    async def unanswered(*_: Any, **__: Any) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.5)
        raise stun.TransactionTimeout

    monkeypatch.setattr(ice.StunProtocol, "request", unanswered)

    async def talk(end: End) -> None:
        while True:
            await end.link.send(b"here")
            await asyncio.sleep(0.02)

    talking = [asyncio.create_task(talk(end)) for end in (dialer, listener)]
    await until(lambda: asked > 3 * CONSENT_FAILURES, timeout_s=60 * CONSENT_INTERVAL_S)
    assert not dialer.closed
    assert not listener.closed
    for task in talking:
        task.cancel()
    await until(lambda: dialer.closed == listener.closed == [Cause.CLOSED], timeout_s=60 * CONSENT_INTERVAL_S)
    await close(dialer, listener)
