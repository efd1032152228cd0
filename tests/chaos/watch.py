"""A node as its operator's own bus user sees it: attempts, spans, diagnostics, and an asker of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.supervisor.bus_users import ADMIN
from services.supervisor.gateway_client import GatewayClient
from services.supervisor.node import Node
from shared.bus import nats_bus
from shared.bus.contract import Bus, Incoming
from shared.bus.permissions import inbox_prefix
from shared.bus.records import Attempt, Diagnostic, SpanRecord, Spans
from shared.bus.subjects import STREAM_ATTEMPTS, Subjects
from shared.content.link import parse_link
from shared.content.messages import RequestManifest
from shared.settings.config import FlagSettings
from shared.settings.flags import Flags
from tests.chaos.asker import Asker
from tests.fakes.waiting import until

PUT_WITHIN_S = 20.0


@dataclass
class Watch:
    """asker: asks this node's managers, as its chunk service does. records, spans, diagnostics: as they come."""

    bus: Bus
    asker: Asker
    flags: Flags
    records: list[Attempt] = field(default_factory=list)
    spans: list[SpanRecord] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    async def listen(self, subjects: Subjects) -> None:
        async def spans(event: Spans, incoming: Incoming) -> None:
            self.spans += event.spans

        async def diagnostic(event: Diagnostic, incoming: Incoming) -> None:
            self.diagnostics.append(event)

        await self.bus.serve(subjects.event("spans"), Spans, spans)
        await self.bus.serve(subjects.event("diagnostic"), Diagnostic, diagnostic)
        await self.bus.follow(STREAM_ATTEMPTS, Attempt, lambda record, _: self.records.append(record))


@asynccontextmanager
async def watching(node: Node) -> AsyncIterator[Watch]:
    """Connect as the node's admin, who hears everything; disconnected at the end."""
    subjects = Subjects(node.name)
    seed = node.plan.seeds[ADMIN].node.read_text().strip()
    bus = await nats_bus.connect(node.plan.nats_url, "watch-1", seed=seed, inbox_prefix=inbox_prefix(ADMIN))
    flags = Flags(FlagSettings())
    watch = Watch(bus, Asker(bus, subjects), flags)
    try:
        await flags.start(bus)
        await watch.listen(subjects)
        await watch.asker.start()
        yield watch
    finally:
        await watch.asker.close()
        await flags.close()
        await bus.close()


async def stored_manifest(api: GatewayClient, source: Path, content: bytes) -> RequestManifest:
    """Put a file on a node. Returns: what a peer asks it for the file's manifest with."""
    source.write_bytes(content)
    transfer = await api.put(source, source.name)
    link = ""

    async def done() -> bool:
        nonlocal link
        link = (await api.transfer(transfer)).link or ""
        return bool(link)

    await until_async(done, PUT_WITHIN_S)
    return RequestManifest(parse_link(link).manifest)
