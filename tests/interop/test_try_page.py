"""`/try` of a whole node in two browsers, at a phone's width: a message, a file of the other window and one of the
node, chunk by chunk over the BroadcastChannel; nothing that its policy forbids."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.e2e.test_up import Running, cli_json, running
from tests.interop.conftest import DEADLINE_S
from tests.interop.pages import profiles

pytestmark = pytest.mark.timeout(400)
PHONE = 390
WAIT_MS = DEADLINE_S * 1000


async def window(context: BrowserContext, node: Running, broken: list[str]) -> Page:
    page = await context.new_page()
    page.set_default_timeout(WAIT_MS)
    await page.set_viewport_size({"width": PHONE, "height": 844})
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda said: broken.append(said.text) if "Content Security Policy" in said.text else None)
    await page.goto(node.where["page"])
    await expect(page.locator("#dashboard")).to_be_visible(timeout=WAIT_MS)
    await page.goto(f"{node.where['url']}/try")
    await expect(page.locator("#live")).to_have_text("live", timeout=WAIT_MS)
    return page


async def saved(page: Page, name: str, folder: Path) -> bytes:
    row = page.locator("#offers li").filter(has_text=name)
    await row.get_by_role("button", name="Fetch").click()
    link = row.get_by_role("link", name="Save")
    await expect(link).to_be_visible(timeout=WAIT_MS)
    async with page.expect_download() as download:
        await link.click()
    target = folder / f"saved {name}"
    await (await download.value).save_as(target)
    return target.read_bytes()


async def test_two_windows_a_message_and_files_by_chunk(tmp_path: Path) -> None:
    stored, offered = tmp_path / "of the node.bin", tmp_path / "of a window.bin"
    stored.write_bytes(os.urandom(2 * 2**20 + 5))
    offered.write_bytes(os.urandom(3 * 2**20 + 7))
    broken: list[str] = []
    with running(tmp_path / "base", tmp_path / "home") as node:
        cli_json(node, "put", str(stored))
        async with profiles(tmp_path, 2) as browsers:
            one, two = [await window(browser, node, broken) for browser in browsers]
            for page in (one, two):
                await expect(page.locator("#present")).to_have_text(
                    "This window and 1 other are on the channel.", timeout=WAIT_MS
                )
            await one.locator("#say").fill("hello <b>there</b>")
            await one.locator("#say-form button").click()
            await expect(two.locator("#messages li")).to_have_count(1, timeout=WAIT_MS)
            await expect(two.locator("#messages .detail")).to_have_text("hello <b>there</b>")
            await expect(one.locator("#messages li")).to_have_count(1)

            await one.locator("#file").set_input_files(str(offered))
            await one.locator("#offer-form button").click()
            assert await saved(two, offered.name, tmp_path) == offered.read_bytes()
            assert await saved(two, stored.name, tmp_path) == stored.read_bytes()
            for page in (one, two):
                assert await page.evaluate("document.documentElement.scrollWidth") == PHONE
            await two.screenshot(path=str(tmp_path / "try.png"), full_page=True)
            keep = os.environ.get("SCREENSHOTS")
            if keep:
                await two.screenshot(path=f"{keep}/try.png", full_page=True)
    assert broken == []


async def test_who_is_not_logged_in_is_notified_where(tmp_path: Path) -> None:
    with running(tmp_path / "base", tmp_path / "home") as node:
        async with profiles(tmp_path, 1) as [browser]:
            page = await browser.new_page()
            await page.goto(f"{node.where['url']}/try")
            await expect(page.locator("#notice")).to_contain_text("Log in", timeout=WAIT_MS)
            await expect(page.locator("#try")).to_be_hidden()
