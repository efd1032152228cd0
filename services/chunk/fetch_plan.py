"""Which chunk to ask of whom, and when: the pure part of a fetch.

Each holder has a window of requests, grown by one for every chunk it delivers and halved when it is busy; a
holder that fails rests for a growing while. A chunk that one holder does not have is asked of the others
first. When nothing is left to ask for, a chunk that is slow is asked once more, elsewhere.

Driven by:   `assign` for what to ask now, then exactly one of `delivered`, `absent` and `failed` for each
             assignment, and `slowed` while it lasts; `next_wake_s` says when `assign` may have more to say without
             any of these.
Invariants:  at most one assignment of a chunk at a time, two at the end; a chunk delivered is never assigned
             again; all that is open at once is bounded by MAX_OPEN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.errors import Cause

START_WINDOW = 2
MAX_OPEN = 32
"""Requests of one transfer at a time, over all holders: each may end as 1 MiB in memory."""
REST_FIRST_S = 0.25
REST_CAP_S = 5.0
BUSY_REST_S = 0.1
"""A busy holder is healthy: the smaller window does most, the rest lets it breathe."""
ABSENT_AGAIN_AFTER_S = 2.0
"""A holder that lacks a chunk may be fetching it itself."""
SLOW_AFTER_S = 2.0
"""Age at which a request is re-asked elsewhere near the end: several times a slow link's second for 1 MiB."""


@dataclass
class _Holder:
    window: float = START_WINDOW
    open_count: int = 0
    slow_until_s: float = 0.0
    rest_until_s: float = 0.0
    next_rest_s: float = REST_FIRST_S
    absent_until_s: dict[int, float] = field(default_factory=dict)


@dataclass
class _Open:
    """One assignment in flight."""

    peer: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """Ask `peer` for the chunk at `seq`."""

    peer: str
    seq: int


class FetchPlan:
    """missing: positions still to fetch. peers: holders, the preferred one first. max_window: for each."""

    def __init__(self, missing: Iterable[int], peers: Iterable[str], max_window: int) -> None:
        self._missing = dict.fromkeys(missing)
        self._holders = {peer: _Holder() for peer in peers}
        self._max_window = max_window
        self._open: dict[int, list[_Open]] = {}

    @property
    def finished(self) -> bool:
        return not self._missing

    def window(self, peer: str) -> int:
        return int(self._holders[peer].window)

    def assign(self, now_s: float) -> list[Assignment]:
        """Everything to ask for now; the caller starts each of them."""
        wanted: list[Assignment] = []
        while self._open_count() < MAX_OPEN:
            assignment = self._next_fresh(now_s) or self._next_slow(now_s)
            if assignment is None:
                break
            self._holders[assignment.peer].open_count += 1
            self._open.setdefault(assignment.seq, []).append(_Open(assignment.peer, now_s))
            wanted.append(assignment)
        return wanted

    def delivered(self, assignment: Assignment) -> bool:
        """The chunk is verified and stored. False where it already was, by another holder."""
        holder = self._close(assignment)
        holder.window = min(holder.window + 1, self._max_window)
        # One good chunk, and its next failure is a first one again.
        holder.next_rest_s = REST_FIRST_S
        if assignment.seq not in self._missing:
            return False
        del self._missing[assignment.seq]
        return True

    def absent(self, assignment: Assignment, now_s: float) -> None:
        """The holder has not got this chunk; that says nothing about its others."""
        self._close(assignment).absent_until_s[assignment.seq] = now_s + ABSENT_AGAIN_AFTER_S

    def failed(self, assignment: Assignment, cause: Cause, now_s: float) -> None:
        """The delivery failed, over every transport."""
        holder = self._close(assignment)
        # Never 0: a holder that is asked nothing could not show that it is well.
        holder.window = max(1.0, holder.window / 2)
        if cause is Cause.BUSY:
            holder.rest_until_s = max(holder.rest_until_s, now_s + BUSY_REST_S)
        elif now_s >= holder.rest_until_s:  # failures of one moment are one failure
            holder.rest_until_s = now_s + holder.next_rest_s
            holder.next_rest_s = min(holder.next_rest_s * 2, REST_CAP_S)

    def slowed(self, peer: str, retry_after_s: float, now_s: float) -> None:
        """A link to the holder, or the holder, has no room: less at a time from here; what is open goes on.

        Each request that meets the same shortage tells of it: it halves the window once.
        """
        holder = self._holders[peer]
        if now_s >= holder.slow_until_s:
            holder.slow_until_s = now_s + max(BUSY_REST_S, retry_after_s)
            holder.window = max(1.0, holder.window / 2)

    def next_wake_s(self, now_s: float) -> float | None:
        """When time alone may allow more; None where only an answer can."""
        # An earlier moment than needed only costs a look: so all of them, whether or not they matter now.
        times = [holder.rest_until_s for holder in self._holders.values()]
        times += [until_s for holder in self._holders.values() for until_s in holder.absent_until_s.values()]
        times += [opened[0].since_s + SLOW_AFTER_S for opened in self._open.values() if len(opened) == 1]
        return min((time_s for time_s in times if time_s > now_s), default=None)

    def _next_fresh(self, now_s: float) -> Assignment | None:
        free = self._free(now_s)
        if not free:
            return None
        for seq in self._missing:
            # Once each while any chunk has not been asked for; `_next_slow` asks twice.
            if seq in self._open:
                continue
            for peer in free:
                if self._holders[peer].absent_until_s.get(seq, 0.0) <= now_s:
                    return Assignment(peer, seq)
        return None

    def _next_slow(self, now_s: float) -> Assignment | None:
        """Only when every missing chunk has been asked for: a second request costs a whole chunk."""
        if any(seq not in self._open for seq in self._missing):
            return None
        for seq, opened in self._open.items():
            if seq not in self._missing or len(opened) > 1 or opened[0].since_s + SLOW_AFTER_S > now_s:
                continue
            for peer in self._free(now_s):
                if peer != opened[0].peer and self._holders[peer].absent_until_s.get(seq, 0.0) <= now_s:
                    return Assignment(peer, seq)
        return None

    def _free(self, now_s: float) -> list[str]:
        """Holders with room, the emptiest first; among equals in the caller's order."""
        free = [
            peer
            for peer, holder in self._holders.items()
            if holder.open_count < int(holder.window) and holder.rest_until_s <= now_s
        ]
        # By share of its window: a fast holder is filled in proportion.
        return sorted(free, key=lambda peer: self._holders[peer].open_count / self._holders[peer].window)

    def _open_count(self) -> int:
        return sum(len(opened) for opened in self._open.values())

    def _close(self, assignment: Assignment) -> _Holder:
        opened = self._open[assignment.seq]
        # By its peer: of two requests for one chunk the other goes on.
        opened.remove(next(entry for entry in opened if entry.peer == assignment.peer))
        if not opened:
            del self._open[assignment.seq]
        holder = self._holders[assignment.peer]
        holder.open_count -= 1
        return holder
