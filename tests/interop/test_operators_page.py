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
from shared.bus.messages.records import Diagnostic, MeetingPlace, WorkerStatus
from shared.errors import Cause
from tests.fakes.memory_bus import MemoryBus
from tests.services.gateway.node import TOKEN, GatewayNode, gateway_node

LONG = "n" * 251 + ".bin"
PHONE, DESK = 390, 1200
WIDTHS = (320, 390, 600, 768, 1200, 1920)
READABLE = 4.5
"""WCAG 2, success criterion 1.4.3: the least contrast of text with its ground."""
CONTRASTS = """() => {
  const channels = (text) => (text.match(/[0-9.]+/g) || []).map(Number);
  const parsed = (text) => {
    if (text.startsWith('color(')) {
      const [r, g, b, a] = channels(text);
      return [r * 255, g * 255, b * 255, a ?? 1];
    }
    const [r, g, b, a] = channels(text);
    return [r, g, b, a ?? 1];
  };
  const over = (top, ground) => top.slice(0, 3).map((c, i) => c * top[3] + ground[i] * (1 - top[3]));
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    return over(parsed(getComputedStyle(element).backgroundColor), ground(element.parentElement));
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.disabled) continue;
    const behind = ground(element);
    const [a, b] = [light(over(parsed(getComputedStyle(element).color), behind)), light(behind)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, `${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 30)}`]);
  }
  return found;
}"""


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
    lost = Diagnostic(LONG, "error", "n" * 255, "c" * 255, LONG, 1, {"name": LONG, LONG: "x"})
    await node.bus.publish(node.subjects.event("diagnostic"), lost)


async def test_no_name_makes_the_page_wider_than_the_screen(browser: Browser, node: GatewayNode) -> None:
    node.chunk.add(LONG, b"x")
    await long_names_heard_of(node)
    async with opened(browser, node, PHONE) as page:
        await expect(page.locator("#files li")).to_have_count(1)
        await expect(page.locator("#transfers li")).to_have_count(3)
        await expect(page.locator("#diagnostics .diagnostic")).to_have_count(1)
        await page.locator("details.more").first.locator("summary").click()
        await expect(page.locator("details.more li").first).to_be_visible()
        for width in WIDTHS:
            await page.set_viewport_size({"width": width, "height": 844})
            assert await page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read_on_its_ground(browser: Browser, node: GatewayNode, scheme: str) -> None:
    bus = node.process.bus
    assert isinstance(bus, MemoryBus)
    node.chunk.add("kept.txt", b"x")
    await long_names_heard_of(node)
    async with opened(browser, node, DESK, scheme) as page:
        await page.locator("#link").fill("nothing")
        await page.locator("#get-form button").click()
        await expect(page.locator("#link-error")).not_to_be_empty()
        await expect(page.locator("#transfers li")).to_have_count(3)
        await page.locator("details.more").first.locator("summary").click()
        bus.reachable = False
        await expect(page.locator("#bus-away")).to_be_visible()
        shown = await page.evaluate(CONTRASTS)
    assert len(shown) > 20
    assert [text for ratio, text in shown if ratio < READABLE] == []


async def test_a_bus_that_is_away_is_said_above_all_and_no_longer_once_it_is_back(
    browser: Browser, node: GatewayNode
) -> None:
    bus = node.process.bus
    assert isinstance(bus, MemoryBus)
    async with opened(browser, node, PHONE) as page:
        await expect(page.locator("#bus-away")).to_be_hidden()
        bus.reachable = False
        await expect(page.locator("#bus-away")).to_be_visible()
        await expect(page.locator("#transports")).to_contain_text("bus unavailable")
        await page.reload()
        await expect(page.locator("#bus-away")).to_contain_text("NATS server")
        bus.reachable = True
        await expect(page.locator("#bus-away")).to_be_hidden()


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
