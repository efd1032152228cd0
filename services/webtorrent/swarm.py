"""The control swarm: endpoints that we have heard of, and which of them to dial when. Pure.

Driven by: `learn` and `hint` (discovery), `due` (the dialler), `dial_failed`, `linked`, `unlinked` (the wires).

States of an endpoint:
    waiting  -- due -->          dialling
    dialling -- linked -->       linked          -- dial_failed --> waiting, longer each time
    linked   -- unlinked -->     waiting, from the start where the link had lasted
    any      -- mark_own -->     never dialled
Invariants: an endpoint with a link, ours or theirs, is not dialled; at most MAX_KNOWN endpoints are kept, and
linked or dialling ones are never forgotten; DIALS_PER_S holds whatever is learnt; an endpoint that somebody wants
(a hint's) is dialled before any that was only learnt, and has room where those have none.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from services.webtorrent.endpoints import Endpoint
from services.webtorrent.limits import DIALS_PER_S, MAX_ENDPOINTS_PER_ANSWER, MAX_HALF_OPEN, RESERVED_HALF_OPEN
from shared.backoff import delays_s
from shared.errors import Cause
from shared.token_bucket import TokenBucket

MAX_KNOWN = 512
"""Endpoints kept: as many as there may be links (docs/limits.md)."""
REDIAL_FIRST_S = 1.0
REDIAL_CAP_S = 300.0
"""docs/swarm-space.md: 2 s doubling to 5 min; halved at the start, because a restarted worker is back within a
second."""
PROVEN_AFTER_S = 5.0
"""A link that ended sooner proves nothing (one end may have blocked the other): its delays go on growing."""
USELESS_PAUSE_S = 600.0
"""For an endpoint that is no node of this swarm, or a stranger to whoever asked for it."""
HURRY_SPACING_S = 1.0
"""Somebody wants a link now: an endpoint is still dialled no more often than this."""
NEWS_SPACING_S = 10.0
"""A tracker relays offers of peers that are there now: worth a dial before its time, but not indefinitely."""
THEIR_TURN_S = 1.0
"""How long we leave a dial to a peer that hears of us as we hear of it: both at once would make two links."""
FORGET_AFTER_S = 1800.0
"""Without a link and without hearing of it: DHT nodes keep an announce for half an hour, too (BEP 5)."""

USELESS = frozenset({Cause.NO_EXTENSION, Cause.REFUSED, Cause.UNAUTHENTICATED, Cause.INVALID})


class Source(StrEnum):
    """Who named an endpoint to us."""

    DHT = "dht"
    TRACKER = "tracker"
    HINT = "hint"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class DialWanted:
    """Command: open a wire to the endpoint. key: the one identity that is wanted there, None = anyone's."""

    endpoint: Endpoint
    key: bytes | None


@dataclass(slots=True)
class _Known:
    source: Source
    heard_at: float
    dial_at: float
    delays: Iterator[float]
    not_before: float
    tried_at: float = float("-inf")
    linked_at: float = 0.0
    dialling: bool = False
    links: int = 0
    own: bool = False
    useless: bool = False
    key: bytes | None = None

    @property
    def idle(self) -> bool:
        return not (self.dialling or self.links or self.own)


def control_infohash(room: str) -> bytes:
    """The swarm that nodes of a room meet in (docs/webtorrent.md). Never added as a torrent."""
    return hashlib.sha1(b"swarm-space:" + room.encode(), usedforsecurity=False).digest()


class Swarm:
    """See the module. allows: the address rule. Methods take `now` of one monotonic clock, in seconds."""

    def __init__(
        self,
        allows: Callable[[str], bool],
        now: float,
        delays: Callable[[], Iterator[float]] = lambda: delays_s(REDIAL_FIRST_S, REDIAL_CAP_S),
    ) -> None:
        self._allows = allows
        self._delays = delays
        self._known: dict[Endpoint, _Known] = {}
        self._ours: Endpoint | None = None
        self._bucket = TokenBucket(DIALS_PER_S, DIALS_PER_S, now)

    # ── discovery ───────────────────────────────────────────────────────────────────────────────────────

    def learn(self, endpoints: Iterable[Endpoint], source: Source, now: float, wait_s: float = 0.0) -> int:
        """Take one answer. wait_s: before a new endpoint is dialled. Returns: how many were refused.

        The DHT shows both ends to each other at about the same time: the lesser endpoint waits for the other's dial.
        """
        refused = 0
        for count, each in enumerate(endpoints):
            if count >= MAX_ENDPOINTS_PER_ANSWER or not self._allows(each.host):
                refused += 1
                continue
            # By the endpoints' own order, which both ends know: without it both would dial, and close one of the two.
            yields = source is Source.DHT and self._ours is not None and self._ours < each
            known = self._remember(each, source, now, max(wait_s, THEIR_TURN_S if yields else 0.0))
            if known is not None and source is Source.TRACKER:
                self._sooner(known, now + wait_s, NEWS_SPACING_S)
        return refused

    def hint(self, endpoints: Iterable[Endpoint], key: bytes, now: float) -> int:
        """Endpoints where the peer with this key may be: dialled soon, and for it alone. Returns: refused ones."""
        refused = 0
        for each in list(endpoints)[:MAX_ENDPOINTS_PER_ANSWER]:
            if not self._allows(each.host):
                refused += 1
            elif (known := self._remember(each, Source.HINT, now, 0.0)) is not None and known.idle:
                # Whatever it was before: somebody whom we want may listen there now.
                known.key, known.useless, known.not_before = key, False, now
                self._sooner(known, now, HURRY_SPACING_S)
        return refused

    def hurry(self, now: float) -> None:
        """Somebody wants a link: what waits is dialled soon, but for endpoints that proved useless."""
        for known in self._known.values():
            self._sooner(known, now, HURRY_SPACING_S)

    # ── dialling ────────────────────────────────────────────────────────────────────────────────────────

    def due(self, now: float, room: int) -> list[DialWanted]:
        """What to dial now, at most `room`; each is `dialling` until one of the calls below names it."""
        self._forget_old(now)
        waiting = sorted(
            (known.key is None, known.dial_at, endpoint)
            for endpoint, known in self._known.items()
            if known.idle and known.dial_at <= now
        )
        wanted: list[DialWanted] = []
        for learnt, _, each in waiting:
            # Marked as dialling only with a token: what has to wait stays due, and comes first next time.
            if not _has_room(learnt, room - len(wanted)) or not self._bucket.take(now):
                break
            known = self._known[each]
            known.dialling, known.tried_at = True, now
            wanted.append(DialWanted(each, known.key))
        return wanted

    def next_deadline(self, now: float, room: int = MAX_HALF_OPEN) -> float | None:
        """When `due` may next return something; None while nothing waits that has room."""
        waiting = (known for known in self._known.values() if known.idle and _has_room(known.key is None, room))
        soonest = min((known.dial_at for known in waiting), default=None)
        return None if soonest is None else max(soonest, now + self._bucket.wait_s(now))

    # ── what became of it ───────────────────────────────────────────────────────────────────────────────

    def dial_failed(self, endpoint: Endpoint, cause: Cause, now: float) -> None:
        """A dial ended without a link."""
        known = self._known.get(endpoint)
        if known is not None and known.dialling:
            known.dialling = False
            self._wait(known, cause, now)

    def linked(self, endpoint: Endpoint, now: float) -> None:
        """A link with the wire at this endpoint is up, whoever dialled."""
        known = self._known.get(endpoint)
        if known is None and self._allows(endpoint.host):
            known = self._remember(endpoint, Source.PEER, now, 0.0)
        if known is not None:
            known.dialling = False
            known.links += 1
            known.linked_at = now

    def unlinked(self, endpoint: Endpoint, cause: Cause, now: float, we_dialled: bool) -> None:
        """One link with it is down; the last one's end makes it wait for a dial, ours or first theirs."""
        known = self._known.get(endpoint)
        if known is None or not known.links:
            return
        known.links -= 1
        known.heard_at = now
        # A link that ended at once proves nothing: its back-off goes on where it was.
        if now - known.linked_at >= PROVEN_AFTER_S:
            known.delays = self._delays()
        self._wait(known, cause, now)
        # Whoever dialled the last one dials again: both at once would make two, of which one is closed.
        if not we_dialled:
            known.dial_at += THEIR_TURN_S

    def mark_own(self, endpoint: Endpoint, now: float) -> None:
        """It is our own wire: never dial it. The first one is how others know us."""
        # The first stays: `learn` compares with it, and both ends must see the same.
        self._ours = self._ours or endpoint
        known = self._remember(endpoint, Source.PEER, now, 0.0)
        if known is not None:
            known.own, known.dialling = True, False

    # ── counts ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def may_lead_somewhere(self) -> bool:
        """Whether an endpoint is being dialled, or will be."""
        return any(known.dialling or (known.idle and not known.useless) for known in self._known.values())

    def size_by_source(self) -> dict[str, int]:
        """Endpoints of others that we know, by who named them first."""
        return dict(Counter(known.source.value for known in self._known.values() if not known.own))

    # ── within ──────────────────────────────────────────────────────────────────────────────────────────

    def _remember(self, endpoint: Endpoint, source: Source, now: float, wait_s: float) -> _Known | None:
        known = self._known.get(endpoint)
        if known is None:
            if len(self._known) >= MAX_KNOWN and not self._forget_one():
                return None
            known = self._known[endpoint] = _Known(source, now, now + wait_s, self._delays(), not_before=now + wait_s)
        known.heard_at = now
        return known

    def _sooner(self, known: _Known, at: float, spacing_s: float) -> None:
        if known.idle and not known.useless:
            known.dial_at = min(known.dial_at, max(at, known.not_before, known.tried_at + spacing_s))

    def _wait(self, known: _Known, cause: Cause, now: float) -> None:
        # Somebody else than the one we wanted there is still somebody.
        another_peer = cause is Cause.UNAUTHENTICATED and known.key is not None
        known.useless = cause in USELESS and not another_peer
        known.key = None
        known.dial_at = now + (USELESS_PAUSE_S if known.useless else next(known.delays))

    def _forget_one(self) -> bool:
        idle = [(known.heard_at, endpoint) for endpoint, known in self._known.items() if known.idle]
        if not idle:
            return False
        # The one that nobody has named for longest.
        del self._known[min(idle)[1]]
        return True

    def _forget_old(self, now: float) -> None:
        for endpoint in [e for e, known in self._known.items() if known.idle and known.heard_at + FORGET_AFTER_S < now]:
            del self._known[endpoint]


def _has_room(learnt: bool, room: int) -> bool:
    return room > (RESERVED_HALF_OPEN if learnt else 0)
