"""Which worker of the node has a link to which page, as each worker knows it. Pure: `now` is an argument.

A page cannot know that one id of ours is many workers: its client goes on believing in a link whose worker was killed.
So another worker dials it again. Each worker says whom it has; one that is gone, or is leaving, has an heir for each of
its pages, the same in every worker's eyes, who dials that page unless somebody has it already. One worker looks after
each other one, and says for it that it leaves when it cannot say so itself.

Members are left out: a node notices by itself, and dials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field

INHERITED_FOR_S = 30.0
"""How long an heir goes on trying; then the page is gone, or has come back by itself."""
FORGET_AFTER_S = 10.0
"""A worker that has said nothing for so long is gone, whatever its subject does."""
MAX_WORKERS = 256
"""Of one node; more are not listened to."""


@dataclass(slots=True)
class _Worker:
    pages: frozenset[str] = field(default_factory=frozenset)
    leaving: bool = False
    heard_at: float = 0.0


class Roster:
    """As worker `me` sees it. Driven by: `heard` for each worker's word, `gone` for one that is not there any more."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._workers: dict[str, _Worker] = {me: _Worker()}
        self._inherited: dict[str, float] = {}

    def heard(self, worker: str, pages: Collection[str], *, leaving: bool, now: float) -> None:
        # Those that are known go on being heard.
        if worker not in self._workers and len(self._workers) >= MAX_WORKERS:
            return
        self._workers[worker] = _Worker(frozenset(pages), leaving, now)
        if leaving:
            self._inherit(self._workers[worker], now)

    def gone(self, worker: str, now: float) -> list[str] | None:
        """Nobody serves that worker's subject any more. Returns: its pages, which the others are to hear of; None
        where it had been known to leave."""
        gone = self._workers.pop(worker, None) if worker != self._me else None
        if gone is None:
            return None
        self._inherit(gone, now)
        return None if gone.leaving else sorted(gone.pages)

    def watched(self) -> list[str]:
        """The workers that we have to look after: whose heir we are, as a whole."""
        others = [worker for worker in self._workers if worker != self._me]
        return [worker for worker in others if self._heir(worker, without=worker) == self._me]

    def to_dial(self, now: float) -> list[str]:
        """Pages that were left to us, and that nobody has."""
        for worker, each in list(self._workers.items()):
            if worker != self._me and now - each.heard_at >= FORGET_AFTER_S:
                self.gone(worker, now)
        held = {page for each in self._workers.values() if not each.leaving for page in each.pages}
        self._inherited = {page: since for page, since in self._inherited.items() if now - since < INHERITED_FOR_S}
        return [page for page in self._inherited if page not in held]

    def reached(self, page: str) -> None:
        """It has a link again, or never will."""
        self._inherited.pop(page, None)

    def handed_over(self, pages: Collection[str]) -> bool:
        """Whether every one of these pages has another worker, or there is no other who could have it."""
        others = [each for worker, each in self._workers.items() if worker != self._me and not each.leaving]
        held = {page for each in others for page in each.pages}
        # Without another worker nobody can take them: waiting would only cost the drain its time.
        return not others or held.issuperset(pages)

    def _inherit(self, left: _Worker, now: float) -> None:
        for page in left.pages:
            # Everybody finds the same heir, so one dials and nobody has to agree on it.
            if self._heir(page) == self._me:
                # The first time counts: each repetition of "leaving" would begin the thirty seconds again.
                self._inherited.setdefault(page, now)

    def _heir(self, name: str, without: str = "") -> str | None:
        """The live worker with the highest hash for this name: the same for all who know the same workers."""
        live = [worker for worker, each in self._workers.items() if worker != without and not each.leaving]
        return max(live, key=lambda worker: hashlib.sha256(f"{worker} {name}".encode()).digest(), default=None)
