"""Posts and presence between broadcast workers, over the account `mesh`.

Posts go to each worker in batches, one batch at a time, so that their order holds: it is sent again until it is
answered, or until that worker is gone. Presence is published every PRESENCE_INTERVAL_S and at each change.

Bounds:        what waits is bounded by the machine (RELAY_BYTES); one task a worker that has something waiting.
Cancellation:  `close` says that we leave; what waits then is with the pages still, which say it to another worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from services.broadcast.pages.channel import Posted
from services.broadcast.pages.limits import (
    MAX_VALUE_BYTES,
    MAX_WORKERS,
    PRESENCE_INTERVAL_S,
    RELAY_RETRY_S,
    RELAY_TIMEOUT_S,
)
from services.broadcast.pages.machine import PagesMachine, Scope
from services.broadcast.pages.messages import CarriedPost, CarryPosts, PagesPresent, ScopePages
from shared.bus.contract import Bus, Incoming, Subscription
from shared.bus.messages.envelopes import Done
from shared.bus.messages.subjects import BROADCAST_PRESENT, broadcast_pages
from shared.clock import Clock
from shared.errors import BusError, NoResponders
from shared.ids import is_instance
from shared.tasks.owned import Tasks

MAX_BATCH_POSTS = 256
MAX_BATCH_BYTES = MAX_VALUE_BYTES
"""Of a batch's values; a single value may be as long. Some 50 bytes are around each: with them it fits a message."""
AROUND_BYTES = 64

log = logging.getLogger(__name__)

Waiting = deque[tuple[Scope, Posted]]


class Relay:
    """Driven by its owner: `carry_out` after anything was done to the machine. on_arrived: after what arrived was."""

    def __init__(self, mesh: Bus, machine: PagesMachine, clock: Clock, on_arrived: Callable[[], None]) -> None:
        self._mesh = mesh
        self._machine = machine
        self._clock = clock
        self._on_arrived = on_arrived
        self._tasks = Tasks()
        self._waiting: dict[str, Waiting] = {}
        self._carrying: dict[str, asyncio.Task[None]] = {}
        self._count = 0
        self._report_now = asyncio.Event()
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Be there for other workers. Raises: BusError."""
        own = broadcast_pages(self._mesh.instance)
        self._subscriptions = [
            await self._mesh.serve(own, CarryPosts, self._arrived, max_concurrent=MAX_WORKERS),
            await self._mesh.serve(BROADCAST_PRESENT, PagesPresent, self._present),
        ]
        self._tasks.start(self._report(), name="presence")

    async def close(self) -> None:
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions = []
        await self._tasks.close()
        self._waiting.clear()
        await self._publish(leaving=True)

    def carry_out(self) -> None:
        """Take what the machine has for other workers."""
        for worker, scope, post in self._machine.relays():
            self._waiting.setdefault(worker, deque()).append((scope, post))
            if worker not in self._carrying:
                self._carrying[worker] = self._tasks.start(self._carry(worker), name="carry")
        if self._machine.presence_changed:
            self._machine.presence_changed = False
            self._report_now.set()

    async def _carry(self, worker: str) -> None:
        try:
            while batch := _batch(self._waiting.get(worker)):
                if await self._delivered(worker, batch):
                    for scope, post in batch:
                        self._waiting[worker].popleft()
                        self._machine.confirm(worker, scope, post)
                else:
                    self._waiting.pop(worker, None)
                    self._machine.forget_worker(worker)
                self._on_arrived()
        finally:
            self._waiting.pop(worker, None)
            del self._carrying[worker]

    async def _delivered(self, worker: str, batch: list[tuple[Scope, Posted]]) -> bool:
        """Send until it is there. Returns: False where the worker is gone."""
        posts = [CarriedPost(scope, post.sender, post.browser, post.number, post.value) for scope, post in batch]
        while self._machine.knows_worker(worker):
            try:
                await self._mesh.request(broadcast_pages(worker), CarryPosts(posts), Done, RELAY_TIMEOUT_S)
                return True
            except BusError as error:
                if isinstance(error, NoResponders) and not self._machine.is_settling(self._clock()):
                    return False
                # Frozen, or the bus is away or just back: presence tells when to stop waiting for it.
                log.debug("posts wait for a worker: %s", error.cause.value)
                await asyncio.sleep(RELAY_RETRY_S)
        return False

    async def _arrived(self, call: CarryPosts, incoming: Incoming) -> None:
        now = self._clock()
        for post in call.posts:
            self._machine.hear_post(post.scope, Posted(post.sender, post.browser, post.number, post.value), now)
        self._on_arrived()

    async def _present(self, report: PagesPresent, incoming: Incoming) -> None:
        if report.worker == self._mesh.instance:
            self._machine.hear_bus(self._clock())
            return
        if not is_instance(report.worker):
            return
        if report.leaving:
            self._machine.forget_worker(report.worker)
        else:
            there = [(each.scope, each.pages) for each in report.scopes]
            if self._machine.hear_worker(report.worker, there, report.count, self._clock()):
                self._report_now.set()  # it has just come, and should not wait to hear of us
        self._on_arrived()

    async def _report(self) -> None:
        while True:
            # First: who comes while we publish is waited for no longer than who came before.
            self._report_now.clear()
            await self._publish()
            try:
                async with asyncio.timeout(PRESENCE_INTERVAL_S):
                    await self._report_now.wait()
            except TimeoutError:
                pass

    async def _publish(self, *, leaving: bool = False) -> None:
        self._count += 1
        scopes = [ScopePages(scope, pages) for scope, pages in self._machine.own_pages()]
        try:
            await self._mesh.publish(BROADCAST_PRESENT, PagesPresent(self._mesh.instance, self._count, scopes, leaving))
        except BusError:
            log.debug("presence not published: no bus")


def _batch(waiting: Waiting | None) -> list[tuple[Scope, Posted]]:
    """The oldest posts that fit one message of the bus, at least one where there is any."""
    batch: list[tuple[Scope, Posted]] = []
    length = 0
    for scope, post in list(waiting or ())[:MAX_BATCH_POSTS]:
        length += len(post.value) + AROUND_BYTES
        if batch and length > MAX_BATCH_BYTES:
            break
        batch.append((scope, post))
    return batch
