"""The operator's page in a real browser, on a phone and on a desk: nothing is wider than the screen, mistakes are said
where they were made, and what is stored can be seen, copied and removed after every transfer is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from shared.bus.messages.envelopes import TransferUpdate
from shared.bus.messages.records import MeetingPlace, WorkerStatus
from shared.errors import Cause
from tests.services.gateway.node import TOKEN, GatewayNode, gateway_node

LONG = "n" * 251 + ".bin"
PHONE, DESK = 390, 1200


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[GatewayNode]:
    async with gateway_node(tmp_path) as running:
        yield running


@asynccontextmanager
async def opened(browser: Browser, node: GatewayNode, width: int, scheme: Any = "light") -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = await context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    await page.goto(f"{node.url}/#token={TOKEN}")
    await expect(page.locator("#dashboard")).to_be_visible()
    yield page
    await context.close()
    assert not broken


async def long_names_heard_of(node: GatewayNode) -> None:
    event = node.subjects.event("transfer")
    for number, (kind, state, cause) in enumerate(
        [("put", "done", None), ("get", "running", None), ("get", "failed", Cause.NO_LINK)]
    ):
        update = TransferUpdate(bytes([number]) * 16, kind, state, LONG, 1, 2, 5, 10, {}, cause, "", "ab" * 32, 1)
        await node.bus.publish(event, update)
    places = [MeetingPlace("peerServers", 0, "unusable", Cause.MISCONFIGURED, 1)]
    status = WorkerStatus("w" * 60, "webrtc", "degraded", Cause.MISCONFIGURED, [LONG], True, False, 1, places=places)
    await node.bus.publish(node.subjects.event("status"), status)


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (PHONE, "dark"), (DESK, "light")])
async def test_no_name_makes_the_page_wider_than_the_screen(
    browser: Browser, node: GatewayNode, width: int, scheme: str
) -> None:
    node.chunk.add(LONG, b"x")
    await long_names_heard_of(node)
    async with opened(browser, node, width, scheme) as page:
        await expect(page.locator("#files li")).to_have_count(1)
        await expect(page.locator("#transfers li")).to_have_count(3)
        await page.locator("details.more").first.locator("summary").click()
        await expect(page.locator("details.more li").first).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") == width


async def test_a_bad_link_is_an_error_at_its_field(browser: Browser, node: GatewayNode) -> None:
    async with opened(browser, node, PHONE) as page:
        link = page.locator("#link")
        await link.fill("http://example.org")
        await page.locator("#get-form button").click()
        await expect(page.locator("#link-error")).to_contain_text("does not start with swarmbridge:")
        await expect(link).to_have_attribute("aria-invalid", "true")
        await expect(link).to_be_focused()
        await link.fill("swarmbridge:")
        await expect(page.locator("#link-error")).to_be_empty()
        assert await link.get_attribute("aria-invalid") is None


async def test_a_fetch_that_fails_is_called_by_what_was_asked_for(browser: Browser, node: GatewayNode) -> None:
    async with opened(browser, node, PHONE) as page:
        await page.locator("#link").fill("swarmbridge:" + "cd" * 32)
        await page.locator("#get-form button").click()
        row = page.locator("#transfers li")
        await expect(row.locator(".badge")).to_have_text("failed")
        await expect(row.locator(".name")).to_have_text("file cdcdcdcdcdcd")


async def test_what_is_stored_is_seen_after_a_restart_and_can_be_removed(browser: Browser, node: GatewayNode) -> None:
    """The fake chunk service had the file before this gateway knew of any transfer."""
    kept, gone = node.chunk.add("kept.txt", b"x" * 1024), node.chunk.add("gone.txt", b"y" * 1024)
    async with opened(browser, node, PHONE) as page:
        await expect(page.locator("#no-transfers")).to_be_visible()
        await expect(page.locator("#usage")).to_contain_text("2.0 KiB of")
        page.on("dialog", lambda dialog: dialog.accept())
        await page.get_by_role("button", name="Remove: gone.txt").click()
        await expect(page.locator("#files li")).to_have_count(1)
        await expect(page.locator("#usage")).to_contain_text("1.0 KiB of")
        assert set(node.chunk.files) == {kept}
        assert gone not in node.chunk.files
