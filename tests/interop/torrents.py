"""Real `webtorrent` clients, in Node and in a page, as a test drives them; and trackers that they meet at."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from playwright.async_api import Browser, Page

from services.webtorrent.transport import WebtorrentTransport
from shared.settings.config import Config
from tests.fakes.ports import free_port
from tests.fakes.worker_node import WorkerNode
from tests.interop.conftest import DEADLINE_S, HERE, open_page
from tests.services.webtorrent.swarm_parts import config

MACHINE = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
NODE = HERE / f"node_modules/node-linux-{MACHINE}/bin/node"
EXTENSION = HERE.parent.parent / "services/webtorrent/extension/swarm-space.js"
LINE_BYTES = 2**20


class Torrent(Protocol):
    """A `webtorrent` client that answers commands of torrents.js."""

    async def ask(self, command: str, *parameters: Any) -> dict[str, Any]:
        """The raw answer: `result`, or `error`."""


async def do(torrent: Torrent, command: str, *parameters: Any) -> Any:
    answer = await torrent.ask(command, *parameters)
    assert "error" not in answer, answer
    return answer["result"]


async def counts_until(torrent: Torrent, condition: Any, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
    """Wait until what the client has seen is so. Returns: it."""
    counts: dict[str, Any] = {}
    try:
        async with asyncio.timeout(timeout_s):
            while not condition(counts := await do(torrent, "counts")):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"it never was so: {counts}") from None
    return counts


class NodeTorrent:
    """`webtorrent` in a process of Node 22's."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._turn = asyncio.Lock()

    async def ask(self, command: str, *parameters: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self._turn:
            self.process.stdin.write(json.dumps([command, parameters]).encode() + b"\n")
            async with asyncio.timeout(DEADLINE_S):
                line = await self.process.stdout.readline()
        assert line, "the client has died"
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def node_torrent(folder: Path, **options: Any) -> AsyncIterator[NodeTorrent]:
    """A client in Node. options: of torrents.js and of WebTorrent."""
    for name in ("torrents.js", "torrent_node.mjs"):
        (folder / name).write_bytes((HERE / name).read_bytes())
    (folder / "swarm-space.js").write_bytes(EXTENSION.read_bytes())
    (folder / "package.json").write_text('{"type": "module"}')
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(HERE / "node_modules")
    async with node_script(folder, "torrent_node.mjs", {"utp": False, **options}) as torrent:
        yield torrent


@asynccontextmanager
async def node_script(folder: Path, script: str, options: dict[str, Any]) -> AsyncIterator[NodeTorrent]:
    """A script of this folder's in Node 22, which says `{}` when it listens to commands."""
    with (folder / "client.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            str(NODE),
            str(folder / script),
            json.dumps(options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=LINE_BYTES,
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            first = await process.stdout.readline()
        assert first == b"{}\n", (folder / "client.log").read_text()[-2000:]
        yield NodeTorrent(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class PageTorrent:
    """`webtorrent` in a page of a real browser."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def ask(self, command: str, *parameters: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.page.evaluate("(call) => window.ask(...call)", [command, list(parameters)])
        return answer


@asynccontextmanager
async def torrent_site() -> AsyncIterator[str]:
    """The origin of an empty page that has the unmodified `webtorrent` client, the extension, and torrents.js."""
    application = web.Application()
    page = (
        '<!doctype html><title>page</title><script type="module">'
        'import WebTorrent from "/webtorrent.min.js"; import { join } from "/torrents.js";'
        "window.join = async (options) => { window.ask = await join(WebTorrent, options) }; window.ready = true"
        "</script>"
    )

    async def index(request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    def file(path: Path) -> Any:
        async def serve(request: web.Request) -> web.FileResponse:
            return web.FileResponse(path, headers={"Content-Type": "text/javascript"})

        return serve

    application.add_routes(
        [
            web.get("/", index),
            web.get("/torrents.js", file(HERE / "torrents.js")),
            web.get("/swarm-space.js", file(EXTENSION)),
            web.get("/webtorrent.min.js", file(HERE / "node_modules/webtorrent/dist/webtorrent.min.js")),
        ]
    )
    runner = web.AppRunner(application)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def page_torrent(browser: Browser, site: str, **options: Any) -> AsyncIterator[PageTorrent]:
    page = await open_page(browser, site)
    await page.wait_for_function("window.ready")
    await page.evaluate("(options) => window.join(options)", options)
    yield PageTorrent(page)
    await page.close()


@asynccontextmanager
async def npm_tracker() -> AsyncIterator[str]:
    """npm's `bittorrent-tracker` server, WebSocket only. Yields: its URL."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        *(str(HERE / "node_modules/.bin/bittorrent-tracker"), "--ws", "--port", str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=HERE,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield f"ws://127.0.0.1:{port}/announce"
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def worker(*, seed: bytes = b"\x01" * 32, settings: Config | None = None) -> AsyncIterator[WorkerNode]:
    """A webtorrent worker as it runs in a node, on the bus in memory; `endpoint(it)` is its wire."""
    node = WorkerNode(seed)
    transport = WebtorrentTransport(settings or config())
    await node.start(transport)
    node.transport = transport  # type: ignore[attr-defined]
    try:
        async with asyncio.timeout(DEADLINE_S):
            while transport.endpoint is None:
                await asyncio.sleep(0.01)
        yield node
    finally:
        await node.stop()


def endpoint(node: WorkerNode) -> str:
    return str(node.transport.endpoint)  # type: ignore[attr-defined]


def refused(node: WorkerNode) -> dict[str, int]:
    return dict(node.transport.refused)  # type: ignore[attr-defined]
