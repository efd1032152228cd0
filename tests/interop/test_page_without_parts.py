"""The operator's page of a real node, in a real browser, while its webtorrent worker lacks what it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from services.supervisor.machine.node import Node
from tests.e2e import parts
from tests.e2e.why_scene import Scene, scene_of_two_nodes
from tests.interop.conftest import DEADLINE_S

ADVICE = {
    "import_failed": "A package it needs is missing. Install swarmbridge[node]",
    "signalling_unavailable": "No signalling server or tracker answers.",
    "worker_lost": "No worker has been heard of for three seconds.",
}


@pytest.fixture
async def scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Scene]:
    async with scene_of_two_nodes(tmp_path, capsys) as scene:
        yield scene


@asynccontextmanager
async def opened(browser: Browser, node: Node) -> AsyncIterator[Page]:
    page = await (await browser.new_context()).new_page()
    await page.goto(f"{node.api.url}/#token={node.token()}")
    await expect(page.locator("#dashboard")).to_be_visible()
    yield page
    await page.context.close()


async def test_the_page_shows_what_is_missing_and_what_to_do(browser: Browser, scene: Scene) -> None:
    async with opened(browser, scene.nodes.b) as page:

        async def seen(node: Node, state: str, cause: str) -> None:
            """What the API has, and B's page beside it."""
            await parts.shown(node, state, cause)
            if node is scene.nodes.b:
                await card_says(page, state, cause)

        await parts.without_libtorrent(scene, seen)
        await parts.without_aiortc(scene, seen)
        await parts.everything_is_back(scene)
        await expect(page.locator(CARD).locator(".warning")).to_be_hidden(timeout=DEADLINE_S * 1000)
        await parts.without_the_worker(scene, seen)
        await parts.without_tracker_and_dht(scene, seen)


CARD = '[data-transport="webtorrent"]'


async def card_says(page: Page, state: str, cause: str) -> None:
    card = page.locator(CARD)
    patience_ms = DEADLINE_S * 1000
    await expect(card.locator(".card-head .badge")).to_have_text(state, timeout=patience_ms)
    warning = card.locator(".warning")
    title = {"degraded": "Degraded", "error": "Down"}[state]
    await expect(warning).to_contain_text(f"{title}: {cause.replace('_', ' ')}. ", timeout=patience_ms)
    await expect(warning).to_contain_text(ADVICE[cause])
    await expect(warning).to_be_visible()
