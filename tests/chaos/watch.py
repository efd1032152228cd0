"""A node as its operator's own bus user sees it: hops, spans, diagnostics, and a caller of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.supervisor.machine.node import Node
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.conversations import ADMIN
from shared.bus.messages.records import Diagnostic, HopRecord, SpanRecord, Spans
from shared.bus.messages.subjects import STREAM_HOPS, Subjects
from shared.bus.nats import bus as nats_bus
from shared.content.link import ContentLink, parse_link
from shared.gateway_api.async_client import AsyncGatewayClient
from shared.settings.config import FlagSettings
from shared.settings.flags import Flags
from tests.chaos.caller import Caller

POLL_S = 0.02
PUT_WITHIN_S = 20.0


@dataclass
class Watch:
    """caller: asks this node's managers, as its chunk service does. records, spans, diagnostics: as they come.

    stored_ms: when the stream took a record, by its delivery (hex) and hop number.
    """

    bus: Bus
    caller: Caller
    flags: Flags
    records: list[HopRecord] = field(default_factory=list)
    spans: list[SpanRecord] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    stored_ms: dict[tuple[str, int], int] = field(default_factory=dict)

    async def listen(self, subjects: Subjects) -> None:
        async def spans(event: Spans, incoming: Incoming) -> None:
            self.spans += event.spans

        async def diagnostic(event: Diagnostic, incoming: Incoming) -> None:
            self.diagnostics.append(event)

        def hop(record: HopRecord, stored_ms: int) -> None:
            self.records.append(record)
            self.stored_ms[record.delivery, record.number] = stored_ms

        await self.bus.serve(subjects.event("spans"), Spans, spans)
        await self.bus.serve(subjects.event("diagnostic"), Diagnostic, diagnostic)
        await self.bus.follow(STREAM_HOPS, HopRecord, hop)


@asynccontextmanager
async def watching(node: Node) -> AsyncIterator[Watch]:
    """Connect as the node's admin, who hears everything; disconnected at the end."""
    subjects = Subjects(node.name)
    seed = node.plan.seeds[ADMIN].node.read_text().strip()
    bus = await nats_bus.connect(node.plan.nats_url, "chunk-watch", seed=seed, service=ADMIN)
    flags = Flags(FlagSettings())
    watch = Watch(bus, Caller(bus, subjects), flags)
    try:
        await flags.start(bus)
        await watch.listen(subjects)
        await watch.caller.start()
        yield watch
    finally:
        await watch.caller.close()
        await flags.close()
        await bus.close()


async def put(api: AsyncGatewayClient, source: Path, content: bytes) -> ContentLink:
    """Put a file on a node. Returns: its link, which names the node as its holder."""
    await asyncio.to_thread(source.write_bytes, content)
    transfer = await api.put(source, source.name)
    async with asyncio.timeout(PUT_WITHIN_S):
        while not (link := (await api.transfer(transfer)).link):
            await asyncio.sleep(POLL_S)
    return parse_link(link)
