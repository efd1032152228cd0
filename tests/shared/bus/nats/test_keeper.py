"""When the keeper looks: at once after every reconnect, also one in the middle of a look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from shared.bus.nats import keeper
from shared.bus.nats.keeper import Keeper
from tests.fakes.waiting import until


class _Connection:
    """Renewed by the test; `renew` is what a reconnect calls."""

    connected = True

    def on_renewed(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.renew = callback
        return lambda: None


async def test_a_reconnect_in_the_middle_of_a_look_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 3600.0)
    connection: Any = _Connection()
    looks = 0

    async def lay_out(*_: object) -> list[str]:
        nonlocal looks
        looks += 1
        if looks == 1:
            connection.renew()
        return []

    monkeypatch.setattr(keeper, "ensure_layout", lay_out)
    monkeypatch.setattr(keeper, "is_laid_out", lay_out)
    running = asyncio.create_task(Keeper(connection, "node", "").run())
    await until(lambda: looks >= 2)
    running.cancel()
