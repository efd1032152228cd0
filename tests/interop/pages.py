"""A site of pages that include `broadcast.js`, and browsers with a profile each."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from playwright.async_api import BrowserContext, Error, Page, async_playwright

from tests.interop.conftest import DEADLINE_S, FLAGS, HERE

CHANNEL = "c"


@dataclass
class Site:
    """A page with the script of `worker_url`. head: what stands before the script."""

    origin: str = ""
    worker_url: str = ""
    query: str = f"channel={CHANNEL}"
    head: str = '<script src="/channels.js"></script>'
    runners: list[web.AppRunner] = field(default_factory=list)

    async def serve(self) -> str:
        """Serve the same page on one more origin. Returns: that origin."""
        application = web.Application()

        async def page(request: web.Request) -> web.Response:
            script = f'<script type="module" src="{self.worker_url}/broadcast.js?{self.query}"></script>'
            html = f"<!doctype html><title>page</title>{self.head}{script}"
            return web.Response(text=html, content_type="text/html", headers={"Cache-Control": "no-store"})

        async def script(request: web.Request) -> web.FileResponse:
            return web.FileResponse(HERE / "channels.js")

        application.add_routes([web.get("/", page), web.get("/channels.js", script)])
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def close(self) -> None:
        for runner in self.runners:
            await runner.cleanup()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    made = Site()
    made.origin = await made.serve()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def profiles(folder: Path, count: int = 2) -> AsyncIterator[list[BrowserContext]]:
    """Browsers of their own: processes, profiles and storage."""
    async with AsyncExitStack() as stack:
        driver = await stack.enter_async_context(async_playwright())
        contexts = []
        for number in range(count):
            context = await driver.chromium.launch_persistent_context(
                str(folder / f"profile-{number}"), executable_path=shutil.which("chromium"), args=list(FLAGS)
            )
            context.set_default_timeout(DEADLINE_S * 1000)
            stack.push_async_callback(_close, context)
            contexts.append(context)
        yield contexts


async def _close(context: BrowserContext) -> None:
    with suppress(Error):  # a test may have killed it
        await context.close()


async def tab(context: BrowserContext, url: str, channel: str = CHANNEL) -> Page:
    """A page that has joined, with its channel open."""
    page = await context.new_page()
    await page.goto(url)
    await page.wait_for_function("isOpen()")
    await page.evaluate("(name) => openChannel(name)", channel)
    await page.wait_for_function("present() > 0")
    return page


async def together(pages: Sequence[Page], count: int | None = None) -> None:
    """Every page knows that all are there."""
    wanted = len(pages) if count is None else count
    for page in pages:
        await page.wait_for_function("(count) => present() === count", arg=wanted)


async def heard_all(page: Page, count: int) -> list[object]:
    await page.wait_for_function("(count) => heard.length >= count", arg=count)
    # What would be too much comes after what was awaited: a round through the page's own queue of tasks.
    await page.evaluate("() => new Promise((done) => setTimeout(done, 50))")
    found: list[object] = await page.evaluate("heard")
    return found


async def until_open(page: Page) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await page.wait_for_function("isOpen()")
