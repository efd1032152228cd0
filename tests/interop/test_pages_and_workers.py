"""One PeerJS id, four workers, twelve pages: one worker is killed, one asked to stop, and no page misses an answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page

from services.supervisor.machine.processes import Child
from shared.speech.peerjs import MANAGER, MESH
from tests.chaos.watch import put, watching
from tests.interop.conftest import DEADLINE_S
from tests.interop.stage import Stage, holder_of, join, staged

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

WORKERS, PAGES, ANSWERS = 4, 12, 200
ALL_WITHIN_S = 300.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("workers"), WORKERS) as stage:
        yield stage


async def test_pages_go_on_across_a_kill_and_a_drain(stage: Stage, tmp_path: Path) -> None:
    link = await put(stage.a.api, tmp_path / "small.bin", os.urandom(5_000))
    peer = await stage.peer_id()
    pages: dict[str, Page] = {}
    for number in range(PAGES):
        page, page_id = await join(stage, (MANAGER, MESH)[number % 2])
        pages[page_id] = page
    manifest = await page.evaluate("([peer, id]) => patiently(peer, 'manifest', id)", [peer, link.digest])
    ask = "([peer, ref, count]) => askAgain(peer, ref, 0, count)"
    arguments = [peer, manifest["chunks"][0], ANSWERS]
    asking = [asyncio.create_task(page.evaluate(ask, arguments)) for page in pages.values()]
    try:
        async with asyncio.timeout(ALL_WITHIN_S), watching(stage.a):
            await all_have(pages, ANSWERS // 8)
            killed, its_pages = busiest(stage, pages)
            assert killed.pid is not None
            os.kill(killed.pid, signal.SIGKILL)
            await all_have(pages, ANSWERS // 2)
            # Of those that are left; the one that was killed has been started again meanwhile.
            drained, moved = busiest(stage, pages, other_than=killed)
            before = {page_id: await counts(pages[page_id]) for page_id in moved}
            assert drained.pid is not None
            starts = drained.start_count
            os.kill(drained.pid, signal.SIGTERM)
            answered = await asyncio.gather(*asking)
            while drained.start_count == starts:  # it has ended, and its supervisor starts it again
                await asyncio.sleep(0.05)
        after = {page_id: await counts(pages[page_id]) for page_id in moved}
    finally:
        for task in asking:
            task.cancel()
    assert answered == [ANSWERS] * PAGES
    print(f"{len(its_pages)} pages of the killed worker and {len(moved)} of the drained one went on; {after}")
    assert its_pages
    assert moved
    for page_id in moved:
        assert after[page_id]["bare"] == before[page_id]["bare"], "another link before this one closed"


async def counts(page: Page) -> dict[str, int]:
    found: dict[str, int] = await page.evaluate(
        "() => Object.fromEntries(['overlaps', 'bare', 'moved', 'silent'].map((name) => [name, space[name]]))"
    )
    return found


async def all_have(pages: dict[str, Page], count: int) -> None:
    async with asyncio.timeout(DEADLINE_S * 2):
        for page in pages.values():
            while await page.evaluate("() => space.answered") < count:
                await asyncio.sleep(0.1)


def busiest(stage: Stage, pages: dict[str, Page], other_than: Child | None = None) -> tuple[Child, list[str]]:
    """The worker with most of the pages, and which."""
    held: dict[str, list[str]] = {}
    workers = {child.program.name: child for child in stage.a.processes("webrtc") if child is not other_than}
    for page_id in pages:
        holder = holder_of(stage, page_id)
        if holder is not None and holder.program.name in workers:
            held.setdefault(holder.program.name, []).append(page_id)
    name = max(held, key=lambda each: len(held[each]))
    return workers[name], held[name]
