"""A manager's heartbeat: what it has in flight, and the deliveries that it did not take, by cause. For views only."""

from __future__ import annotations

import asyncio
import logging

from services.manager.routing.budget import HedgeBudget
from services.manager.runs import Runs
from shared.bus.contract import Bus
from shared.bus.messages.records import ManagerStatus
from shared.bus.messages.subjects import Subjects
from shared.clock import unix_ms
from shared.errors import BusError

REPORT_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


class Report:
    """Publishes the event `manager` every second until cancelled."""

    def __init__(self, bus: Bus, subjects: Subjects, runs: Runs, budget: HedgeBudget) -> None:
        self._bus = bus
        self._subjects = subjects
        self._runs = runs
        self._budget = budget

    async def run(self) -> None:
        while True:
            await self._publish()
            await asyncio.sleep(REPORT_INTERVAL_S)

    async def _publish(self) -> None:
        status = ManagerStatus(
            manager=self._bus.instance,
            deliveries=len(self._runs),
            refused=dict(self._runs.refused),
            duplicate_share=self._budget.duplicate_share,
            at_ms=unix_ms(),
            taken=self._runs.taken,
        )
        try:
            await self._bus.publish(self._subjects.event("manager"), status)
        except BusError:
            log.debug("status not published: no bus")
