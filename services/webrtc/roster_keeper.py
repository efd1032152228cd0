"""Says which pages this worker has, hears it of the others, and dials those whose worker is gone or leaving.

    every SAY_EVERY_S and at each change   PagesHeld ──▶ `signal.pages` ──▶ every webrtc worker of the node
    every LOOK_EVERY_S                     ping whom we look after; dial what was left to us

Cancellation: dials that are in flight end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from services.webrtc.roster import Roster
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import PagesHeld, Ping, Pong
from shared.bus.messages.subjects import Subjects
from shared.clock import Clock
from shared.errors import BusError, NoResponders, TransportError
from shared.tasks.owned import Tasks

SAY_EVERY_S = 1.0
LOOK_EVERY_S = 0.25
PING_TIMEOUT_S = 0.5
SERVE_RETRY_S = 1.0
MAX_DIALS = 16
"""At a time: a worker with hundreds of pages is followed in turns, which leaves room for offers."""
HAND_OVER_POLL_S = 0.02

log = logging.getLogger(__name__)


class RosterKeeper:
    """One worker's part. pages: ids of the pages that it has a link to. dial: open a link to a page."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        pages: Callable[[], list[str]],
        dial: Callable[[str], Awaitable[None]],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._pages = pages
        self._dial_page = dial
        self._roster = Roster(bus.instance)
        self._leaving = False
        self._said: tuple[list[str], bool] | None = None
        self._said_at = 0.0
        self._tasks = Tasks()
        self._dialling: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        subscription = None
        try:
            while subscription is None:
                try:
                    subscription = await self._bus.serve(self._subjects.signal_pages, PagesHeld, self._heard)
                except BusError:
                    await asyncio.sleep(SERVE_RETRY_S)
            while True:
                await self._say()
                # Who leaves inherits nothing, and looks after nobody.
                if not self._leaving:
                    self._look()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await self._tasks.close()
            if subscription is not None:
                with contextlib.suppress(BusError):
                    await subscription.close()

    async def leave(self) -> None:
        """Give this worker's pages to the others, who dial them."""
        self._leaving = True
        await self._say()

    async def handed_over(self) -> None:
        """Wait until each of them has another worker, or there is none."""
        while not self._roster.handed_over(self._pages()):  # noqa: ASYNC110 - it is other processes that say so
            await asyncio.sleep(HAND_OVER_POLL_S)

    async def _heard(self, message: PagesHeld, incoming: Incoming) -> None:
        if message.worker != self._bus.instance:
            self._roster.heard(message.worker, message.pages, leaving=message.leaving, now=self._clock())

    async def _say(self) -> None:
        pages, now = self._pages(), self._clock()
        # Ourselves too, by the same way: heirs are chosen among all.
        self._roster.heard(self._bus.instance, pages, leaving=self._leaving, now=now)
        if self._said == (pages, self._leaving) and now - self._said_at < SAY_EVERY_S:
            return
        if await self._tell(PagesHeld(self._bus.instance, pages, self._leaving)):
            self._said, self._said_at = (pages, self._leaving), now

    async def _tell(self, held: PagesHeld) -> bool:
        try:
            await self._bus.publish(self._subjects.signal_pages, held)
        except BusError:
            log.debug("the others were not notified: no bus")
            return False
        return True

    def _look(self) -> None:
        for worker in self._roster.watched():
            if worker not in self._dialling:
                self._dialling.add(worker)
                self._tasks.start(self._ping(worker), name="ping")
        for page in self._roster.to_dial(self._clock()):
            if page not in self._dialling and len(self._dialling) < MAX_DIALS:
                self._dialling.add(page)
                self._tasks.start(self._dial(page), name="dial-page")

    async def _ping(self, worker: str) -> None:
        try:
            await self._bus.request(self._subjects.worker(worker), Ping(), Pong, PING_TIMEOUT_S)
        except NoResponders:
            pages = self._roster.gone(worker, self._clock())
            if pages:
                # For the one that cannot say it itself: the heirs of its pages may be others than we.
                await self._tell(PagesHeld(worker, pages, leaving=True))
        except BusError:
            pass  # busy, stopped, or we are cut off: its links may be well
        finally:
            self._dialling.discard(worker)

    async def _dial(self, page: str) -> None:
        try:
            await self._dial_page(page)
        except TransportError as error:
            log.info("a page whose worker is gone was not reached: %s", error.cause.value)
            await asyncio.sleep(LOOK_EVERY_S)  # signalling may be changing hands as well
        else:
            self._roster.reached(page)
        finally:
            self._dialling.discard(page)
