"""How far a transfer is, reported to its caller and to everyone who watches.

*Back-pressure*: at most ten updates a second each, whatever the transfer does; the last state always comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

import msgspec

from shared.backoff import delays_s
from shared.bus.contract import Bus
from shared.bus.messages.envelopes import Done, TransferUpdate
from shared.bus.messages.subjects import Subjects
from shared.clock import unix_ms
from shared.errors import BusError, Cause, NoResponders

UPDATE_INTERVAL_S = 0.1
REPEAT_EVERY_S = 1.0
"""A transfer that stands still is reported too: a gateway that was started meanwhile has not heard of it."""

FINAL_TRIES = 4
FINAL_TIMEOUT_S = 1.0

RUNNING = "running"
DONE = "done"
FAILED = "failed"

log = logging.getLogger(__name__)


@dataclass
class Counts:
    """A transfer's numbers, changed in place by who works on it; `changed()` has them reported soon."""

    name: str = ""
    chunks_done: int = 0
    chunks_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    by_transport: dict[str, int] = field(default_factory=dict)
    manifest: str = ""
    waiting: Cause | None = None
    dirty: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self) -> None:
        self.dirty.set()

    def waits(self, cause: Cause | None) -> None:
        """Nothing comes, because of this; None: it moves again."""
        if cause is not self.waiting:
            self.waiting = cause
            self.changed()

    def add_chunk(self, size_bytes: int) -> None:
        self.chunks_done += 1
        self.bytes_done += size_bytes
        self.changed()

    def add_confirmed(self, transport: str, size_bytes: int) -> None:
        """Bytes that a peer delivered over this transport and that are stored now."""
        self.by_transport[transport] = self.by_transport.get(transport, 0) + size_bytes
        self.changed()


class Progress:
    """Reports one transfer's updates to `sb.N.reply.<caller>` and, without link and digest, to event `transfer`."""

    def __init__(self, bus: Bus, subjects: Subjects, *, call_id: bytes, kind: str, reply_to: str) -> None:
        self._bus = bus
        self._subjects = subjects
        self._call_id = call_id
        self._kind = kind
        self._reply_to = reply_to
        self._started_ms = unix_ms()
        self.counts = Counts()

    async def run(self) -> None:
        """Report what changed, and now and then what did not, until cancelled."""
        while True:
            # At once, before anything has been done: its caller and every view learn that it was taken.
            await self._publish(self._update(RUNNING))
            await asyncio.sleep(UPDATE_INTERVAL_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPEAT_EVERY_S):
                    await self.counts.dirty.wait()
            # Right before the next report, without an await between: no change is lost.
            self.counts.dirty.clear()

    async def finish(self, cause: Cause | None, link: str = "") -> TransferUpdate:
        """Report the end, and make sure that the caller has it or is gone."""
        update = self._update(FAILED if cause else DONE, cause, link)
        await self.repeat_final(update)  # first: the event lacks the link, and views must not see it end without one
        await self._publish(update, to_caller=False)
        return update

    async def repeat_final(self, update: TransferUpdate) -> None:
        """Hand the final update to the caller, acknowledged."""
        for delay_s, _ in zip(delays_s(UPDATE_INTERVAL_S, FINAL_TIMEOUT_S), range(FINAL_TRIES), strict=False):
            try:
                await self._bus.request(self._subjects.reply(self._reply_to), update, Done, FINAL_TIMEOUT_S)
            # The caller is gone; if it comes back it pings, and gets the end then.
            except NoResponders:
                return
            except BusError as error:
                log.info("a final update was not taken: %s", error.cause)
                await asyncio.sleep(delay_s)
            else:
                return

    async def _publish(self, update: TransferUpdate, *, to_caller: bool = True) -> None:
        try:
            if to_caller:
                await self._bus.publish(self._subjects.reply(self._reply_to), update)
            await self._bus.publish(self._subjects.event("transfer"), _for_views(update))
        except BusError as error:
            log.debug("an update was not sent: %s", error.cause)

    def _update(self, state: str, cause: Cause | None = None, link: str = "") -> TransferUpdate:
        counts = self.counts
        return TransferUpdate(
            self._call_id,
            self._kind,
            state,
            counts.name,
            counts.chunks_done,
            counts.chunks_total,
            counts.bytes_done,
            counts.bytes_total,
            dict(counts.by_transport),
            cause,
            link,
            counts.manifest,
            self._started_ms,
            self._bus.instance,
            counts.waiting if state == RUNNING else None,
        )


def _for_views(update: TransferUpdate) -> TransferUpdate:
    """Events are for every view: what is fetched, and its key, are the caller's alone."""
    return msgspec.structs.replace(update, link="", manifest="")
