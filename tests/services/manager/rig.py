"""A delivery machine under a fake clock: say what happens, look at what it wants."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from services.manager.delivery.hop import Hop
from services.manager.delivery.machine import Delivery
from services.manager.delivery.steps import (
    CancelHop,
    Command,
    DialTransport,
    Event,
    Finish,
    GiveAnswer,
    RecordHop,
    SendOnLink,
    TimerFired,
)
from services.manager.routing.rank import ANSWER_DEFAULT_S, Known, Route, Routes
from shared.content.messages import ManifestData
from shared.errors import Cause
from shared.transports import ORDER, TransportName

WEBRTC, WEBTORRENT, BROADCAST = ORDER
ANSWER = ManifestData("00")
C = TypeVar("C", bound=Command)


def all_linked() -> Routes:
    return Routes({name: Route(name, Known.LINKED, None, 0.1, 0.5) for name in ORDER})


def none_linked() -> Routes:
    return Routes({name: Route(name, Known.UNLINKED, None, 0.3, 1.0) for name in ORDER})


def with_skip(routes: Routes, transport: TransportName, cause: Cause | None) -> Routes:
    return replace(routes, routes={**routes.routes, transport: replace(routes[transport], skip=cause)})


def with_link(routes: Routes, transport: TransportName, known: Known) -> Routes:
    return replace(routes, routes={**routes.routes, transport: replace(routes[transport], link=known)})


def with_heard(routes: Routes, transport: TransportName, at: float, in_flight: int = 2) -> Routes:
    """A link that gave something at `at`, with that many requests on it."""
    route = replace(routes[transport], heard_at=at, in_flight=in_flight)
    return replace(routes, routes={**routes.routes, transport: route})


def without_acks(routes: Routes, transport: TransportName, answer_delay_s: float = ANSWER_DEFAULT_S) -> Routes:
    """A link whose peer cannot ack, as it is known once a worker has said so."""
    route = replace(routes[transport], acks=False, answer_delay_s=answer_delay_s)
    return replace(routes, routes={**routes.routes, transport: route})


class Rig:
    """now starts at 100; the delivery's deadline is 10 s later. `seen`: every command, in order."""

    def __init__(self, routes: Routes, timeout_s: float = 10.0) -> None:
        self.now = 100.0
        self.routes = routes
        self.machine = Delivery(self.now, self.now + timeout_s)
        self.seen: list[Command] = []
        self.last: list[Command] = []
        self._take(self.machine.start(self.routes, self.now))

    def happens(self, event: Event) -> list[Command]:
        """Returns: what the machine wants because of it."""
        return self._take(self.machine.handle(event, self.routes, self.now))

    def passes(self, seconds: float) -> list[Command]:
        """Let time pass, firing the timer whenever it is due. Returns: all that was wanted meanwhile."""
        end = self.now + seconds
        wanted: list[Command] = []
        while (due := self.machine.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            wanted += self.happens(TimerFired())
        self.now = end
        return wanted

    def of(self, kind: type[C]) -> list[C]:
        return [command for command in self.seen if isinstance(command, kind)]

    @property
    def sent(self) -> list[tuple[int, TransportName]]:
        return [(command.hop, command.transport) for command in self.of(SendOnLink)]

    @property
    def dialled(self) -> list[TransportName]:
        return [command.transport for command in self.of(DialTransport)]

    @property
    def given(self) -> list[int]:
        return [command.hop for command in self.of(GiveAnswer)]

    @property
    def cancelled(self) -> list[int]:
        return [command.hop for command in self.of(CancelHop)]

    @property
    def records(self) -> list[Hop]:
        return [command.hop for command in self.of(RecordHop)]

    @property
    def story(self) -> list[tuple[str, str, str]]:
        """(transport, outcome, cause) of each record, in the order in which the hops ended."""
        return [(record.transport.value, record.outcome, record.cause or "") for record in self.records]

    @property
    def finish(self) -> tuple[str, Cause | None] | None:
        finishes = self.of(Finish)
        assert len(finishes) <= 1
        return (finishes[0].outcome, finishes[0].cause) if finishes else None

    def _take(self, commands: list[Command]) -> list[Command]:
        self.last = commands
        self.seen += commands
        return commands
