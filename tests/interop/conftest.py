"""Real browsers, the pages that they open, and the PeerServers at which they meet."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright

from services.rendezvous.app import Rendezvous
from shared.settings.config import RendezvousSettings
from tests.fakes.ports import free_port

HERE = Path(__file__).parent
DEADLINE_S = 60.0
"""For one thing to happen in a browser on a machine four times slower than ours."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class MeetingPlace:
    """A PeerServer, as `peerjs` wants it described."""

    host: str
    port: int
    path: str = "/"

    @property
    def options(self) -> dict[str, Any]:
        return {"host": self.host, "port": self.port, "path": self.path, "secure": False, "config": {"iceServers": []}}


@asynccontextmanager
async def our_rendezvous(**wiring: Any) -> AsyncIterator[tuple[Rendezvous, MeetingPlace]]:
    server = Rendezvous(RendezvousSettings(), **wiring)
    await server.start()
    try:
        yield server, MeetingPlace("127.0.0.1", int(server.url.rpartition(":")[2].strip("/")))
    finally:
        await server.close()


@asynccontextmanager
async def npm_peer() -> AsyncIterator[MeetingPlace]:
    """npm's `peer`, the PeerServer that the `peerjs` client is made for."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "node",
        *(str(HERE / "node_modules/.bin/peerjs"), "--port", str(port), "--host", "127.0.0.1"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as http:
            while not await _answers(http, f"http://127.0.0.1:{port}/peerjs/id"):
                await asyncio.sleep(0.05)
        yield MeetingPlace("127.0.0.1", port)
    finally:
        process.kill()
        await process.wait()


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as chromium:
        yield chromium


@pytest_asyncio.fixture
async def site() -> AsyncIterator[str]:
    async with a_site() as url:
        yield url


@pytest_asyncio.fixture(params=["ours", "npm peer"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[MeetingPlace]:
    """A PeerServer: ours, and the one that the client is made for."""
    if request.param == "ours":
        async with our_rendezvous() as (_, meeting_place):
            yield meeting_place
    else:
        async with npm_peer() as meeting_place:
            yield meeting_place


@asynccontextmanager
async def a_site() -> AsyncIterator[str]:
    """The origin of an empty page that has the unmodified `peerjs` client, `peers.js` and `space.js`."""
    application = web.Application()

    async def page(request: web.Request) -> web.Response:
        scripts = "".join(
            f'<script src="/{name}"></script>' for name in ("peerjs/peerjs.min.js", "peers.js", "space.js")
        )
        return web.Response(text=f"<!doctype html><title>page</title>{scripts}", content_type="text/html")

    async def own(request: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / request.path.lstrip("/"))

    application.add_routes([web.get("/", page), web.get("/peers.js", own), web.get("/space.js", own)])
    application.router.add_static("/peerjs", HERE / "node_modules/peerjs/dist")
    runner = web.AppRunner(application)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def register(page: Page, place: MeetingPlace, peer_id: str) -> None:
    """The page takes this PeerJS id and is open."""
    await page.evaluate("([id, options]) => register(id, options)", [peer_id, place.options])


async def open_page(browser: Browser, site: str) -> Page:
    """A page in a browser context of its own: nothing is shared with another one's."""
    context = await browser.new_context()
    context.set_default_timeout(DEADLINE_S * 1000)
    page = await context.new_page()
    await page.goto(site)
    return page


async def page_has(page: Page, script: str, argument: Any = None) -> Any:
    """What `script` gives in the page, once it is something."""
    async with asyncio.timeout(DEADLINE_S):
        while not (found := await page.evaluate(script, argument)):
            await asyncio.sleep(0.05)
    return found
