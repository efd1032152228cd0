"""Wires the manager: the stream it learns from, the subjects it serves, the loops it keeps."""

from __future__ import annotations

import asyncio
import logging

from services.manager.desk import Desk
from services.manager.dialler import Dialler
from services.manager.inbound import InboundDesk
from services.manager.outbox import Outbox
from services.manager.recorder import Recorder
from services.manager.report import Report
from services.manager.routing.facts import Routing
from services.manager.runs import Runs
from services.manager.worker_watch import WorkerWatch
from shared.bus.messages.records import HopRecord
from shared.bus.messages.subjects import STREAM_HOPS
from shared.clock import Clock, monotonic
from shared.process.run import Process
from shared.transports import ORDER

DRAIN_GRACE_S = 3.0
"""Deliveries in flight may end for this long after SIGTERM; what is left goes to other managers. With the flush it
is over before whoever sent the SIGTERM loses patience (5 s in our supervisor): a kill would lose records."""

FLUSH_GRACE_S = 1.0
"""Receipts and records that have not left by then are lost; callers ask again, and the loss is logged."""

log = logging.getLogger(__name__)


async def app(process: Process, clock: Clock = monotonic) -> None:
    """Serve until `process.stopping`, then drain."""
    tasks = process.tasks
    routing = Routing(process.flags, process.blocklist)
    desk = Desk(
        process.bus,
        process.subjects,
        clock,
        routing,
        Recorder(process.bus, process.subjects, process.flags, clock, tasks),
        Outbox(process.bus, clock, tasks),
        Dialler(process.bus, process.subjects, routing, clock, tasks),
        tasks,
    )
    runs = Runs(desk)
    inbound = InboundDesk(process.bus, process.subjects, routing, clock)
    watch = WorkerWatch(process.bus, process.subjects, clock, runs.workers, runs.worker_lost)

    def flags_changed() -> None:
        for transport in ORDER:
            if not process.flags.enabled(transport):
                routing.book.transport_gone(transport)
        runs.rules_changed()

    process.flags.on_change(flags_changed)
    process.blocklist.on_change(lambda _: runs.rules_changed())
    history = await process.bus.follow(STREAM_HOPS, HopRecord, routing.apply)
    try:
        tasks.start(watch.run(tasks), name="watch")
        tasks.start(desk.dialler.keep_warm(), name="warm")
        tasks.start(Report(process.bus, process.subjects, runs, routing.budget).run(), name="report")
        await inbound.start()
        await runs.start()
        process.serves()
        await process.stopping.wait()
        await inbound.close()
        await runs.drain(DRAIN_GRACE_S)
    finally:
        # Before the flush: what it abandons is written down.
        await runs.close()
        await _flush(desk)
        await history.close()


async def _flush(desk: Desk) -> None:
    try:
        async with asyncio.timeout(FLUSH_GRACE_S):
            # First: callers wait for these.
            await desk.outbox.flushed()
            await desk.recorder.flushed()
    except TimeoutError:
        log.error("stopped with %d messages and %d records not sent", len(desk.outbox), len(desk.recorder))
