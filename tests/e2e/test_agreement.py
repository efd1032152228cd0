"""Every number agrees: after 1,000 deliveries under faults, fallbacks by cause are equal wherever they are counted.

Real workers of two nodes; node B's managers are asked for 1,000 deliveries while its transports
are switched off, stopped, killed and harmed by chaos flags, and one of its managers is restarted. Only what each
place shows to others is read.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.pair import Pair
from shared.bus.messages.envelopes import HopReceipt, Receipt
from shared.clock import monotonic
from shared.content.link import ContentLink
from shared.content.messages import RequestManifest
from shared.settings.chaos import ChaosFlag
from shared.transports import TransportName
from tests.chaos.fallbacks import (
    Counts,
    Page,
    in_diagnostics,
    in_hops,
    in_metrics,
    in_receipts,
    in_spans,
    in_stats,
    table,
)
from tests.chaos.watch import Watch, put, watching

pytestmark = pytest.mark.e2e

DELIVERIES = 1_000
WINDOW = 8
WEBRTC, WEBTORRENT = TransportName.WEBRTC, TransportName.WEBTORRENT
CHAOS = ChaosFlag(drop=3, refuse=10)
PRIMARY_WITHIN_S = 15.0
AGREE_WITHIN_S = 8.0
"""Records are written behind receipts, spans leave in batches, the page is notified twice a second."""
POLL_S = 0.1


Fault = Callable[[], Awaitable[None]]


@dataclass
class Stage:
    """The pair, what is heard on node B's bus, B's page, and what B's caller asks A for."""

    pair: Pair
    watch: Watch
    page: Page
    link: ContentLink
    receipts: list[Receipt] = field(default_factory=list)

    async def deliver(self) -> Receipt:
        receipt = await self.watch.caller.deliver(self.link.holders[0], RequestManifest(self.link.digest))
        self.receipts.append(receipt)
        return receipt

    async def deliver_many(self, count: int, faults: dict[int, Fault] | None = None) -> None:
        """So many deliveries, WINDOW at a time. faults: what is done when so many of them have been asked for."""
        numbers = iter(range(count))

        async def keep_asking() -> None:
            for number in numbers:
                if faults is not None and number in faults:
                    await faults[number]()
                await self.deliver()

        await asyncio.gather(*(keep_asking() for _ in range(WINDOW)))

    async def on_primary(self) -> None:
        """Deliver one after another until the primary carries them."""
        async with asyncio.timeout(PRIMARY_WITHIN_S):
            while (await self.deliver()).hops[0].outcome != "confirmed":
                await asyncio.sleep(POLL_S)

    # ── faults ──

    async def switch(self, enabled: bool) -> None:
        await self.watch.flags.set(WEBRTC, enabled)

    async def chaos(self, flag: ChaosFlag | None) -> None:
        for transport in (WEBRTC, WEBTORRENT):
            await self.watch.flags.set_chaos(transport, flag)

    async def stop_far_worker(self) -> None:
        self._signal_far_worker(signal.SIGSTOP)

    async def continue_far_worker(self) -> None:
        self._signal_far_worker(signal.SIGCONT)

    async def restart_manager(self) -> None:
        """As an operator does: what it has not reported yet it reports before it ends."""
        manager = self.pair.b.processes("manager")[0]
        await manager.stop()
        manager.start()

    def _signal_far_worker(self, number: signal.Signals) -> None:
        pid = self.pair.a.processes(WEBRTC)[0].pid
        assert pid is not None
        os.kill(pid, number)

    # ── counts ──

    async def counts(self) -> tuple[dict[str, Counts], dict[str, Counts]]:
        """By place: of everything, and since the transport was last switched off."""
        watch = self.watch
        total = {
            "receipts": in_receipts(self.receipts, lambda receipt, hop: True),
            "hops": in_hops(watch.records),
            "spans": in_spans(watch.spans),
            "metrics": in_metrics(await self.pair.b.api.metrics()),
            "diagnostics": in_diagnostics(watch.diagnostics),
        }
        since = {
            "receipts": in_receipts(self.receipts, self._counts_still),
            "stats": in_stats(await self.page.get_stats()),
            "page": in_stats(self.page.stats),
        }
        return total, since

    def _counts_still(self, receipt: Receipt, hop: HopReceipt) -> bool:
        stored_ms = self.watch.stored_ms.get((receipt.delivery_id.hex(), hop.number), 0)
        return stored_ms >= self.watch.flags.counters_since_ms(TransportName(hop.fallback_from))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    pair = Pair(tmp_path / "pair", {"manager": 2}, environment="development")
    try:
        await pair.start(find_binary())
        link = await put(pair.a.api, tmp_path / "small.bin", os.urandom(1000))
        async with watching(pair.b) as watch:
            page = Page(pair.b)
            try:
                yield Stage(pair, watch, page, link)
            finally:
                await page.close()
    finally:
        await pair.clear()


async def test_every_number_agrees_after_1000_deliveries_under_faults(stage: Stage) -> None:
    pair = stage.pair
    await stage.on_primary()
    started_at = monotonic()
    await stage.deliver_many(100, {30: partial(stage.switch, False), 80: partial(stage.switch, True)})
    await stage.on_primary()
    await stage.chaos(CHAOS)
    await stage.deliver_many(650, {300: stage.restart_manager})
    await stage.chaos(None)
    await stage.deliver_many(100, {20: stage.stop_far_worker})
    await stage.continue_far_worker()
    await stage.on_primary()
    await stage.deliver_many(150, {30: partial(pair.b.kill, WEBRTC), 90: partial(pair.b.kill, WEBTORRENT)})
    took_s = monotonic() - started_at

    total, since = await agreed(stage)
    print(f"\n{len(stage.receipts)} deliveries in {took_s:.1f} s; everything\n{table(total)}")
    print(f"since a transport was last switched off\n{table(since)}")
    assert len(stage.receipts) >= DELIVERIES
    assert {receipt.outcome for receipt in stage.receipts} == {"confirmed"}, "a delivery was lost"
    assert equal(total)
    assert equal(since)
    # The faults did what they are for; which of two causes a cut-off delivery gets is a matter of moments.
    causes = {cause for left, cause in total["receipts"] if left == WEBRTC}
    assert {"refused", "silent", "no_link"} <= causes
    assert ("webtorrent", "refused") in total["receipts"]


async def agreed(stage: Stage) -> tuple[dict[str, Counts], dict[str, Counts]]:
    """Wait until every place has heard of everything, or the time for that is over."""
    give_up_at = monotonic() + AGREE_WITHIN_S
    while True:
        total, since = await stage.counts()
        if (equal(total) and equal(since)) or monotonic() > give_up_at:
            return total, since
        await asyncio.sleep(POLL_S)


def equal(columns: dict[str, Counts]) -> bool:
    first, *others = columns.values()
    return all(other == first for other in others)
