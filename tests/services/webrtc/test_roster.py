"""Who dials the pages of a worker that is gone: exactly one of the others, the same in the eyes of all."""

from __future__ import annotations

from itertools import product

import pytest

from services.webrtc import roster
from services.webrtc.roster import FORGET_AFTER_S, INHERITED_FOR_S, Roster

NAMES = ("webrtc-1", "webrtc-2", "webrtc-3", "webrtc-4")
PAGES = [f"page-{number}" for number in range(40)]


@pytest.fixture
def workers() -> dict[str, Roster]:
    """Four that know each other; the first has all pages."""
    rosters = {name: Roster(name) for name in NAMES}
    for each, name in product(rosters.values(), NAMES):
        each.heard(name, PAGES if name == NAMES[0] else (), leaving=False, now=0.0)
    return rosters


def heirs(workers: dict[str, Roster], now: float = 0.0) -> list[str]:
    return sorted(page for each in workers.values() for page in each.to_dial(now))


def test_each_page_of_a_killed_worker_has_one_heir(workers: dict[str, Roster]) -> None:
    del workers[NAMES[0]]
    assert heirs(workers) == []
    watcher = next(each for each in workers.values() if NAMES[0] in each.watched())
    pages = watcher.gone(NAMES[0], 0.0)
    assert pages == sorted(PAGES)
    assert watcher.gone(NAMES[0], 0.0) is None
    for each in workers.values():
        if each is not watcher:  # it hears it from the one that looks after it
            each.heard(NAMES[0], pages, leaving=True, now=0.0)
    assert heirs(workers) == sorted(PAGES)
    assert all(each.to_dial(0.0) for each in workers.values()), "they share the work"
    for each, name in product(workers.values(), NAMES[1:]):
        each.heard(name, (), leaving=False, now=INHERITED_FOR_S)
    assert heirs(workers, INHERITED_FOR_S) == []


def test_every_worker_is_looked_after_by_one_other(workers: dict[str, Roster]) -> None:
    watched = sorted(name for each in workers.values() for name in each.watched())
    assert watched == sorted(NAMES)
    assert all(name not in each.watched() for name, each in workers.items())


def test_a_page_that_somebody_has_is_not_dialled(workers: dict[str, Roster]) -> None:
    second = workers[NAMES[1]]
    second.gone(NAMES[0], 0.0)
    mine = second.to_dial(0.0)
    second.heard(NAMES[2], mine[:1], leaving=False, now=1.0)
    assert second.to_dial(1.0) == mine[1:]
    second.reached(mine[1])
    assert second.to_dial(1.0) == mine[2:]


def test_a_leaving_workers_pages_are_dialled_while_it_is_there_and_then_it_may_go(workers: dict[str, Roster]) -> None:
    for each in workers.values():
        each.heard(NAMES[0], PAGES, leaving=True, now=0.0)
    assert heirs(workers) == sorted(PAGES)
    first = workers[NAMES[0]]
    assert not first.handed_over(PAGES)
    first.heard(NAMES[1], PAGES[:20], leaving=False, now=0.0)
    first.heard(NAMES[2], PAGES[19:], leaving=False, now=0.0)
    assert first.handed_over(PAGES)


def test_a_worker_that_is_silent_for_long_is_gone(workers: dict[str, Roster]) -> None:
    del workers[NAMES[0]]
    for each, name in product(workers.values(), NAMES[1:]):
        each.heard(name, (), leaving=False, now=FORGET_AFTER_S)
    assert heirs(workers, FORGET_AFTER_S - 0.1) == []
    assert heirs(workers, FORGET_AFTER_S) == sorted(PAGES)


def test_the_last_worker_waits_for_nobody() -> None:
    alone = Roster(NAMES[0])
    alone.heard(NAMES[0], PAGES, leaving=True, now=0.0)
    assert alone.handed_over(PAGES)
    alone.heard(NAMES[1], (), leaving=True, now=0.0)
    assert alone.handed_over(PAGES)


def test_workers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "MAX_WORKERS", 2)
    one = Roster(NAMES[0])
    for name in NAMES[1:]:
        one.heard(name, (), leaving=False, now=0.0)
    assert set(one.watched()) == {NAMES[1]}
