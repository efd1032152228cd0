"""The fallbacks of one node counted in every place that shows them: (transport left, cause) -> how many.

Each place is read in its own way, from what it shows to others; none is derived from another here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from services.supervisor.machine.node import Node
from shared.bus.messages.envelopes import HopReceipt, Receipt
from shared.bus.messages.records import Diagnostic, HopRecord, SpanRecord
from shared.telemetry import names

Counts = Counter[tuple[str, str]]


def in_receipts(receipts: Iterable[Receipt], wanted: Callable[[Receipt, HopReceipt], bool]) -> Counts:
    """As the callers heard. wanted: which hops to count."""
    return Counter(
        (hop.fallback_from, hop.fallback_cause.value)
        for receipt in receipts
        for hop in receipt.hops
        if hop.fallback_from and hop.fallback_cause is not None and wanted(receipt, hop)
    )


def in_hops(records: Iterable[HopRecord]) -> Counts:
    """As the hops stream holds them."""
    return Counter(
        (record.fallback_from, record.fallback_cause.value)
        for record in records
        if record.fallback_from and record.fallback_cause is not None
    )


def in_spans(spans: Iterable[SpanRecord]) -> Counts:
    """By the attributes of hops' spans."""
    return Counter(
        (str(span.attributes[names.FALLBACK_FROM]), str(span.attributes[names.FALLBACK_REASON]))
        for span in spans
        if span.name.startswith(names.SPAN_TRANSPORT_HOP) and names.FALLBACK_FROM in span.attributes
    )


def in_diagnostics(diagnostics: Iterable[Diagnostic]) -> Counts:
    """As the diagnostics of a fallback say it."""
    return Counter(
        (event.context["from"], event.context["cause"])
        for event in diagnostics
        if event.code == names.DIAGNOSTIC_FALLBACK
    )


def in_metrics(text: str) -> Counts:
    """As Prometheus reads them: totals, which a switched flag does not reset."""
    return Counter(
        {
            (sample.labels["from"], sample.labels["cause"]): int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == names.METRIC_FALLBACKS
        }
    )


def in_stats(stats: dict[str, Any]) -> Counts:
    """As `GET /api/stats` and the page's live events show them: since the transport was last switched off.

    Raises: AssertionError where the sums beside the causes are others.
    """
    counts: Counts = Counter()
    for row in stats["transports"]:
        assert row["fallbackCount"] == sum(row["fallbackCauses"].values())
        counts.update({(row["id"], cause): count for cause, count in row["fallbackCauses"].items()})
    assert stats["transportFallbacks"] == counts.total()
    return counts


class Page:
    """What a node's page holds open: its live events. stats: the last it heard."""

    def __init__(self, node: Node) -> None:
        self._url = node.api.url
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {node.token()}"})
        self._reading = asyncio.create_task(self._read(), name="page")
        self.stats: dict[str, Any] = {}

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._session.close()

    async def get_stats(self) -> dict[str, Any]:
        """What it reads when it is opened."""
        async with self._session.get(f"{self._url}/api/stats") as response:
            found: dict[str, Any] = await response.json()
        return found

    async def _read(self) -> None:
        self.stats = await self.get_stats()
        event = ""
        async with self._session.get(f"{self._url}/api/events", timeout=aiohttp.ClientTimeout()) as response:
            async for line in response.content:
                if line.startswith(b"event: "):
                    event = line.removeprefix(b"event: ").strip().decode()
                elif line.startswith(b"data: ") and event == "stats":
                    self.stats = msgspec.json.decode(line.removeprefix(b"data: "))
                elif event == "resync":
                    self.stats = await self.get_stats()


def table(columns: dict[str, Counts]) -> str:
    """For people: a row a (transport, cause), a column a place."""
    rows = sorted(set().union(*columns.values()))
    widths = [max(len(name), 5) for name in columns]
    lines = [f"{'left for':32}" + "  ".join(name.rjust(width) for name, width in zip(columns, widths, strict=True))]
    for left, cause in rows:
        counts = [column[left, cause] for column in columns.values()]
        cells = "  ".join(str(count).rjust(width) for count, width in zip(counts, widths, strict=True))
        lines.append(f"{left + ': ' + cause:32}{cells}")
    return "\n".join(lines)
