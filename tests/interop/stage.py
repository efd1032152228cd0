"""Two whole nodes with several webrtc workers each, and pages written to swarm-space's protocol that talk to A."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from playwright.async_api import Browser, Page

from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.node import Node
from services.supervisor.machine.pair import Pair
from services.supervisor.machine.processes import Child
from shared.content.link import ContentLink, format_link
from shared.ids import guest_token, peer_name, peerjs_id, token_key
from shared.settings.config import BroadcastSettings
from tests.interop.conftest import DEADLINE_S, MeetingPlace, a_browser, a_site, open_page


@dataclass
class Stage:
    """A pair of nodes, its rendezvous, and the browser and the site of the pages."""

    pair: Pair
    place: MeetingPlace
    folder: Path
    browser: Browser
    site: str

    @property
    def a(self) -> Node:
        return self.pair.a

    async def peer_id(self) -> str:
        key = token_key((await self.a.api.node()).peer)
        assert key is not None
        return peerjs_id(key)


@asynccontextmanager
async def staged(folder: Path, workers: int, *, on_channel: bool = False) -> AsyncIterator[Stage]:
    """workers: webrtc workers of each node. on_channel: whether pages may join the nodes' BroadcastChannel."""
    async with a_browser() as browser, a_site() as site:
        broadcast = BroadcastSettings(origins=[site.rstrip("/")] if on_channel else [])
        pair = Pair(folder / "pair", {"webrtc": workers}, broadcast=broadcast)
        try:
            await pair.start(find_binary())
            document = msgspec.json.decode((folder / "pair" / "rendezvous.json").read_bytes())
            url = urlsplit(document["peerServers"][0]["url"])
            assert url.port is not None
            yield Stage(pair, MeetingPlace("127.0.0.1", url.port), folder, browser, site)
        finally:
            await pair.clear()


async def join(stage: Stage, dialect: str) -> tuple[Page, str]:
    """A page in its dialect, and its PeerJS id."""
    page_id = f"page-{os.urandom(4).hex()}"
    page = await open_page(stage.browser, stage.site)
    await page.evaluate(
        "([id, dialect, options]) => spaceJoin(id, dialect, options)", [page_id, dialect, stage.place.options]
    )
    return page, page_id


async def get(stage: Stage, link: ContentLink) -> str:
    """Fetch what is behind a link by node A. Returns: the SHA-256 of its content."""
    transfer = await stage.a.api.fetch(format_link(link))
    async with asyncio.timeout(DEADLINE_S * 2):
        while (now := await stage.a.api.transfer(transfer)).state not in ("done", "failed"):
            await asyncio.sleep(0.05)
    assert now.state == "done", now
    return await stage.a.api.content_sha256(link.digest)


def holder_of(stage: Stage, page_id: str) -> Child | None:
    """The worker of node A that says it has a link to the page."""
    for child in stage.a.processes("webrtc"):
        name = peer_name(guest_token(page_id))
        said = [line for line in child.program.log.read_text().splitlines() if f"link to {name} " in line]
        if said and " opened" in said[-1]:
            return child
    return None


async def kill_the_worker_of(stage: Stage, page_id: str) -> None:
    """SIGKILL; its supervisor starts it again."""
    async with asyncio.timeout(DEADLINE_S):
        while (child := holder_of(stage, page_id)) is None or child.pid is None:
            await asyncio.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
