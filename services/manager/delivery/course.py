"""Which transport a delivery turns to next: links first, then one round of dials, and links of doubtful use. Pure.

Owned by the machine of a delivery (services.manager.delivery.machine), which owns the hops; this owns the choice. What
is passed over because it may not be used is kept in `skips` until the machine has recorded it, once a transport.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.manager.delivery.dial_round import DialRound
from services.manager.delivery.steps import DialFailed
from services.manager.routing.rank import BARRED, Known, Routes, rank, rank_dials
from shared.errors import Cause
from shared.transports import ORDER, TransportName

ANSWERED = frozenset({Cause.REFUSED, Cause.FORBIDDEN, Cause.INTEGRITY_MISMATCH, Cause.INVALID, Cause.TOO_LARGE})
"""Failures that are the peer's answer: a new link would bring the same one."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Send on this transport now. dialled_at: when the dial of its link began, None = there was a link."""

    transport: TransportName
    dialled_at: float | None = None


class Course:
    """What is left to try. last_skip: why something was passed over, None = nothing was."""

    def __init__(self) -> None:
        self.skips: list[tuple[TransportName, Cause]] = []
        self.last_skip: Cause | None = None
        self._waiting: list[TransportName] = []
        self._dials: DialRound | None = None
        self._skipped: set[TransportName] = set()
        self._retried: set[TransportName] = set()
        self._answered: set[TransportName] = set()
        self._resorted: set[TransportName] = set()

    def plan(self, routes: Routes) -> None:
        """Line up the transports; none where no usable one has a link."""
        self._waiting = rank(routes)

    def next(self, routes: Routes) -> Turn | None:
        """The next usable transport, a freshly dialled link first; None: nothing is left but dials, if those."""
        turn = self._next_opened(routes)
        while turn is None and self._waiting:
            transport = self._waiting.pop(0)
            if not self._skip(transport, routes):
                return Turn(transport)
        return turn

    def next_hedge(self, routes: Routes) -> Turn | None:
        """The same for a hop beside another: a luxury, so not on a transport known to have no link."""
        turn = self._next_opened(routes)
        if turn is not None:
            return turn
        for transport in [name for name in self._waiting if routes[name].link is not Known.UNLINKED]:
            self._waiting.remove(transport)
            if not self._skip(transport, routes):
                return Turn(transport)
        return None

    def last_resort(self, routes: Routes) -> Turn | None:
        """A transport whose open circuit keeps traffic away, where no other has a link; each once a delivery.

        A circuit says that a link is doubtful. That is worth a detour, and no reason to fail a delivery.
        """
        for transport in ORDER:
            route = routes[transport]
            doubtful = route.skip is Cause.CIRCUIT_OPEN and route.link is not Known.UNLINKED
            if doubtful and transport not in self._resorted | self._answered:
                self._resorted.add(transport)
                return Turn(transport)
        return None

    def has_next(self, routes: Routes) -> bool:
        """Whether `next` would find something."""
        opened = self._dials is not None and self._dials.has_opened
        return opened or any(routes[transport].skip is None for transport in self._waiting)

    def has_next_linked(self, routes: Routes) -> bool:
        """The same among transports that are not known to be without a link."""
        opened = self._dials is not None and self._dials.has_opened
        linked = (routes[name] for name in self._waiting if routes[name].link is not Known.UNLINKED)
        return opened or any(route.skip is None for route in linked)

    def hop_failed(self, transport: TransportName, cause: Cause) -> None:
        """What a hop's failure means for the transport's next turn."""
        if cause is Cause.SOURCE_LOST and transport not in self._retried:
            # A body holder died; the transport did nothing wrong and is asked once more.
            self._retried.add(transport)
            self._waiting.insert(0, transport)
        elif cause in BARRED:
            self._note_barred(transport, cause)
        elif cause in ANSWERED:
            self._answered.add(transport)

    # ── dials ──

    @property
    def dialled(self) -> bool:
        """Whether the round of dials has begun: there is only one."""
        return self._dials is not None

    @property
    def dials_pending(self) -> bool:
        return self._dials is not None and self._dials.pending

    def begin_dials(self, routes: Routes, now: float) -> None:
        """Plan the round, without transports over which the peer has answered already: it would again, and the same."""
        for transport in ORDER:
            # With no link anywhere nothing was lined up: what is passed over has had no turn, and would leave no
            # record.
            self._skip(transport, routes)
        self._dials = DialRound(
            [(name, now + after_s) for name, after_s in rank_dials(routes) if name not in self._answered]
        )

    def next_dial_at(self) -> float | None:
        return self._dials.next_start() if self._dials is not None else None

    def hurry_dials(self, now: float) -> None:
        """No hop is in flight: where no dial is either, the next one does not wait for its time."""
        if self._dials is not None:
            self._dials.hurry(now)

    def start_dials(self, routes: Routes, now: float) -> list[TransportName]:
        """Transports to dial now."""
        started: list[TransportName] = []
        # A barred one fails at once and so pulls the next one forward: look again until none is due.
        while self._dials is not None and (due := self._dials.start_due(now)):
            for transport in due:
                # An open circuit does not bar a dial: rank_dials has put it last already.
                if routes[transport].barred and self._skip(transport, routes):
                    self._dials.failed(transport, now)
                else:
                    started.append(transport)
        return started

    def dial_succeeded(self, transport: TransportName) -> None:
        if self._dials is not None:
            self._dials.opened(transport)

    def dial_failed(self, event: DialFailed, now: float) -> float | None:
        """When the failed dial had started; None where it was none of ours."""
        started_at = self._dials.failed(event.transport, now) if self._dials is not None else None
        # Not dialled, so recorded as a skip: `Hops.last_failure` does not know of it.
        if started_at is not None and not event.tried:
            self.last_skip = event.cause
        return started_at

    def drop_barred_dials(self, routes: Routes) -> list[tuple[TransportName, Cause, float]]:
        """Forget dials of transports that are barred now. Returns: those in flight, why, and since when they were."""
        barred = {name: cause for name in ORDER if (cause := routes[name].barred) is not None}
        dropped = self._dials.drop(barred.__contains__) if self._dials is not None else []
        for name, _ in dropped:
            self._note_barred(name, barred[name])
        return [(name, barred[name], started_at) for name, started_at in dropped]

    def drop_dials(self) -> list[tuple[TransportName, float]]:
        """The same for all of them, at the deadline."""
        return self._dials.drop(lambda _: True) if self._dials is not None else []

    # ── within ──

    def _next_opened(self, routes: Routes) -> Turn | None:
        while self._dials is not None and (opened := self._dials.take_opened()):
            # Whatever its circuit says: the dial has just shown that the link is there.
            if not (routes[opened[0]].barred and self._skip(opened[0], routes)):
                return Turn(*opened)
        return None

    def _note_barred(self, transport: TransportName, cause: Cause) -> None:
        """The hop that ended with it says why the transport may not be used: no skip need say it again."""
        self.last_skip = cause
        self._skipped.add(transport)

    def _skip(self, transport: TransportName, routes: Routes) -> bool:
        cause = routes[transport].skip
        if cause is None:
            return False
        self.last_skip = cause
        if transport not in self._skipped:
            self._skipped.add(transport)
            self.skips.append((transport, cause))
        return True
