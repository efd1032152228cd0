"""What the gateway knows of its node: bus events and the hops stream into the views' models, and on to SSE.

*Back-pressure*: handlers only fold and queue, so the bus is never kept waiting; every model is bounded.
*Cancellation*: `close` ends the subscriptions; `run` is a task of the process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from services.gateway.model import limits
from services.gateway.model.blocks import blocklist_view
from services.gateway.model.history import History
from services.gateway.model.managers import ManagerBoard
from services.gateway.model.metrics import MetricTotals
from services.gateway.model.status import StatusBoard, stats_of
from services.gateway.model.traces import TraceStore
from services.gateway.transfers.board import TransferBoard
from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.envelopes import TransferUpdate
from shared.bus.messages.records import Diagnostic, HopRecord, LinkChanged, ManagerStatus, Spans, WorkerStatus
from shared.bus.messages.subjects import STREAM_HOPS, Subjects
from shared.clock import Clock, monotonic, unix_ms
from shared.gateway_api.structs import DiagnosticView, HopView, PeerView, Stats, Transfer, TransportStats
from shared.hops.fold import HopCounters
from shared.settings.blocklist import Blocklist
from shared.settings.flags import FLAG_NAMES, Flags
from shared.transports import ORDER

STATS_INTERVAL_S = 0.5
"""How often the page hears of changed numbers; also the resolution at which a lost worker shows."""

MAX_REMEMBERED_ROLES = 4096

_TRANSPORT_OF_FLAG = {flag: transport.value for transport, flag in FLAG_NAMES.items()}


class Feed:
    """The models behind the views, kept up to date from the bus. publish: notifies pages of an event, by its name."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        flags: Flags,
        blocklist: Blocklist,
        publish: Callable[[str, object], None],
        clock: Clock = monotonic,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._flags = flags
        self._blocklist = blocklist
        self._publish = publish
        self._clock = clock
        self._subscriptions: list[Subscription] = []
        self._counters = HopCounters(flags.counters_since_ms)
        self._roles: dict[str, str] = {}
        self._last_stats: Stats | None = None
        self.board = StatusBoard(clock())
        self.managers = ManagerBoard()
        self.history = History(clock(), unix_ms())
        self.transfers = TransferBoard()
        self.traces = TraceStore()
        self.totals = MetricTotals()
        self.hops: deque[HopRecord] = deque(maxlen=limits.MAX_HOPS)
        self.diagnostics: deque[DiagnosticView] = deque(maxlen=limits.MAX_DIAGNOSTICS)

    async def start(self) -> None:
        bus, event = self._bus, self._subjects.event
        self._subscriptions = [
            await bus.serve(event("status"), WorkerStatus, self._on_status),
            await bus.serve(event("manager"), ManagerStatus, self._on_manager),
            await bus.serve(event("link"), LinkChanged, self._on_link),
            await bus.serve(event("transfer"), TransferUpdate, self._on_transfer),
            await bus.serve(event("diagnostic"), Diagnostic, self._on_diagnostic),
            await bus.serve(event("spans"), Spans, self._on_spans),
            await bus.follow(STREAM_HOPS, HopRecord, self._on_hop),
        ]
        self._note_flags()
        self._flags.on_change(self._on_flags)
        for peer, block in self._blocklist.snapshot().items():
            self.history.block_is(peer, block, unix_ms())
        self._blocklist.on_change(self._on_block)

    async def close(self) -> None:
        for subscription in self._subscriptions:
            await subscription.close()

    async def run(self) -> None:
        """Notify the page of changed numbers until cancelled."""
        while True:
            await asyncio.sleep(STATS_INTERVAL_S)
            self.board.hears(connected=self._bus.connected, now=self._clock())
            self.history.look(self.transports(), self._clock(), unix_ms(), connected=self._bus.connected)
            self._publish_stats()

    def stats(self) -> Stats:
        found = stats_of(self.transports(), self.managers.view(self._clock()), self.transfers.by_instance())
        return msgspec.structs.replace(found, bus_connected=self._bus.connected)

    def transports(self) -> list[TransportStats]:
        now = self._clock()
        return [
            msgspec.structs.replace(
                self.board.transport(name, self._flags.enabled(name), self._counters.transport(name), now),
                counted_since=self._flags.counters_since_ms(name) or None,
            )
            for name in ORDER
        ]

    def peers(self) -> list[PeerView]:
        linked = self.board.peers(self._clock())
        return [PeerView(name, transports, self._roles.get(name)) for name, transports in sorted(linked.items())]

    def pages_url(self) -> str:
        """Where browsers' pages join the node; "" where no worker takes them."""
        return self.board.pages_url(self._clock())

    def blocked_count(self) -> int:
        return len(self._blocklist.snapshot())

    def recent_hops(self, transfer: str, limit: int) -> list[HopView]:
        """Newest first; of one transfer, or of all for ""."""
        found: list[HopView] = []
        for record in reversed(self.hops):
            if len(found) == limit:
                break
            if not transfer or record.transfer == transfer:
                found.append(_hop_view(record))
        return found

    def transfer_changed(self, transfer: Transfer) -> None:
        self._publish("transfer", transfer)

    async def _on_status(self, status: WorkerStatus, incoming: Incoming) -> None:
        self.totals.apply_status(status)
        self.history.heard(status, self._clock(), unix_ms())
        if self.board.apply(status, self._clock()):
            self._publish(
                "status",
                {
                    "worker": status.worker,
                    "transport": status.transport,
                    "state": status.state,
                    "lastError": status.last_error,
                    "peers": len(status.peers),
                    "draining": status.draining,
                },
            )
            self._publish_stats()

    async def _on_manager(self, status: ManagerStatus, incoming: Incoming) -> None:
        self.managers.apply(status, self._clock())
        self.history.heard_somebody(self._clock())

    async def _on_link(self, link: LinkChanged, incoming: Incoming) -> None:
        self.history.link_changed(link)
        self._roles.pop(link.peer, None)
        self._roles[link.peer] = link.role
        if len(self._roles) > MAX_REMEMBERED_ROLES:
            del self._roles[next(iter(self._roles))]
        self._publish(
            "link",
            {
                "transport": link.transport,
                "peer": link.peer,
                "role": link.role,
                "change": link.change,
                "cause": link.cause,
                "at": link.at_ms,
            },
        )

    async def _on_transfer(self, update: TransferUpdate, incoming: Incoming) -> None:
        transfer = self.transfers.apply(update)
        if transfer is not None:
            self.transfer_changed(transfer)

    async def _on_diagnostic(self, diagnostic: Diagnostic, incoming: Incoming) -> None:
        view = DiagnosticView(
            id=diagnostic.id,
            level=diagnostic.level,
            source=diagnostic.source,
            code=diagnostic.code,
            message=diagnostic.message,
            timestamp=diagnostic.timestamp_ms,
            context=dict(diagnostic.context),
        )
        self.diagnostics.append(view)
        self._publish("diagnostic", view)

    async def _on_spans(self, spans: Spans, incoming: Incoming) -> None:
        for trace_id in self.traces.add(spans.spans):
            self._publish("trace", {"traceId": trace_id})

    def _on_hop(self, record: HopRecord, stored_ms: int) -> None:
        self.hops.append(record)
        self.totals.apply_hop(record, stored_ms)
        self._counters.apply(record, stored_ms)

    def _note_flags(self) -> None:
        self.history.flags_are(self._flags.snapshot(), _TRANSPORT_OF_FLAG, unix_ms())
        self.history.chaos_is(self._flags.chaos_snapshot(), unix_ms())

    def _on_flags(self) -> None:
        self._note_flags()
        self._publish("flags", self._flags.snapshot())
        self._publish_stats()

    def _on_block(self, peer: str) -> None:
        self.history.block_is(peer, self._blocklist.snapshot().get(peer), unix_ms())
        self._publish("blocklist", blocklist_view(self._blocklist))

    def _publish_stats(self) -> None:
        stats = self.stats()
        if stats != self._last_stats:
            self._last_stats = stats
            self._publish("stats", stats)


def _hop_view(record: HopRecord) -> HopView:
    return HopView(
        delivery=record.delivery,
        number=record.number,
        transport=record.transport,
        peer=record.peer,
        outcome=record.outcome,
        cause=record.cause.value if record.cause else None,
        fallback_from=record.fallback_from or None,
        fallback_cause=record.fallback_cause.value if record.fallback_cause else None,
        hedged=record.hedged,
        started_ms=record.started_ms,
        elapsed_ms=record.elapsed_ms,
        bytes=record.bytes,
        trace_id=record.trace_id,
        transfer=record.transfer,
    )
