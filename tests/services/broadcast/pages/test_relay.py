"""What a worker says of its pages to the others: never late where one has just come."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from services.broadcast.pages import relay
from services.broadcast.pages.machine import PagesMachine, scope_of
from services.broadcast.pages.messages import PagesPresent, ScopePages
from services.broadcast.pages.relay import Relay
from tests.fakes.memory_bus import MemoryBus, MemoryHub
from tests.fakes.waiting import until

ORIGIN, CHANNEL = "https://app.example", "room"
OTHER = "worker-2"
"""Another worker, which is new to us."""


async def test_a_worker_that_comes_while_presence_is_published_hears_of_us_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "PRESENCE_INTERVAL_S", 3600.0)
    machine = PagesMachine([ORIGIN], [CHANNEL], "node")
    published: list[str] = []
    publish = MemoryBus.publish

    async def the_other_comes_meanwhile(self: MemoryBus, subject: str, body: Any) -> None:
        published.append(body.worker)
        if len(published) == 1:
            scopes = [ScopePages(scope_of(ORIGIN, CHANNEL), [bytes(16)])]
            await publish(self, subject, PagesPresent(OTHER, 1, scopes))
            await until(heard.is_set)
        await publish(self, subject, body)

    hub = MemoryHub()
    ours = Relay(hub.bus("worker-1"), machine, monotonic, lambda: None)
    heard = ours._report_now
    monkeypatch.setattr(MemoryBus, "publish", the_other_comes_meanwhile)
    await ours.start()
    await until(lambda: len(published) >= 2)
    await ours.close()
