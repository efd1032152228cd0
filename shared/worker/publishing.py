"""What the links of a worker say to whoever listens: events for views, and what peers announce. Lost without a bus."""

from __future__ import annotations

import logging

import msgspec

from shared.bus.contract import Bus
from shared.bus.messages.envelopes import NamedGuests, PeerAnnounced, Stamp
from shared.bus.messages.records import LinkChanged
from shared.bus.messages.subjects import Subjects
from shared.clock import unix_ms
from shared.errors import BusError, Cause
from shared.ids import peer_name
from shared.tasks.owned import Tasks
from shared.transports import ORDER
from shared.worker.ties import Pair

MAX_PAIRS = 1_000
"""Of one message."""

log = logging.getLogger(__name__)


class Publishing:
    """Glue: each message in a task of the worker's, so that links need not wait."""

    def __init__(self, bus: Bus, subjects: Subjects, transport: str, tasks: Tasks) -> None:
        self._bus = bus
        self._subjects = subjects
        self._transport = transport
        self._tasks = tasks

    def link_changed(self, peer: str, role: str, change: str, cause: Cause | None) -> None:
        """change: opened or closed."""
        name = peer_name(peer)
        # Names, never tokens: what is logged may be shown to anybody.
        log.info("link to %s %s: %s", name, change, cause.value if cause else "ready")
        event = LinkChanged(self._transport, self._bus.instance, name, role, change, cause, unix_ms())
        self._start(self._subjects.event("link"), event)

    def announced(self, peer: str, role: str, link: str, manifests: tuple[str, ...]) -> None:
        stamp = Stamp(self._transport, role, peer, link)
        self._start(self._subjects.announced(self._transport), PeerAnnounced(stamp, list(manifests)))

    def named(self, pairs: list[Pair]) -> None:
        """What guests here say they are called elsewhere: to the workers of every other transport."""
        for start in range(0, len(pairs), MAX_PAIRS):
            message = NamedGuests([(peer, guest) for peer, guest in pairs[start : start + MAX_PAIRS]])
            for other in ORDER:
                if other != self._transport:
                    self._start(self._subjects.named(self._transport, other), message)

    def _start(self, subject: str, message: msgspec.Struct) -> None:
        self._tasks.start(self._publish(subject, message), name="event")

    async def _publish(self, subject: str, message: msgspec.Struct) -> None:
        try:
            await self._bus.publish(subject, message)
        except BusError:
            log.debug("an event was not published: no bus")
