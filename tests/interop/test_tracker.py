"""Our WebSocket tracker with the clients that the world uses: npm's `bittorrent-tracker`, webtorrent, libtorrent.

And two instances of it on one bus, which introduce their peers to each other.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from services.rendezvous.app import Rendezvous
from services.webtorrent.swarm import control_infohash
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until
from tests.interop.conftest import DEADLINE_S, HERE, our_rendezvous
from tests.interop.torrents import (
    NodeTorrent,
    Torrent,
    counts_until,
    do,
    node_script,
    node_torrent,
    page_torrent,
    torrent_site,
    worker,
)
from tests.services.webtorrent.swarm_parts import config, write_document

pytestmark = pytest.mark.timeout(600)
lt: Any = importlib.import_module("libtorrent")
INFOHASH = "5" * 40


@asynccontextmanager
async def ours(**wiring: Any) -> AsyncIterator[tuple[Rendezvous, str]]:
    async with our_rendezvous(**wiring) as (server, place):
        yield server, f"ws://{place.host}:{place.port}/announce"


@asynccontextmanager
async def npm_client(folder: Path, number: int, *announce: str) -> AsyncIterator[NodeTorrent]:
    """npm's tracker client, in the swarm of INFOHASH."""
    script = HERE / "tracker_client.mjs"
    (folder / script.name).write_bytes(script.read_bytes())
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(HERE / "node_modules")
    options = {"announce": list(announce), "infoHash": INFOHASH, "peerId": f"-XX0001-{number:012d}"}
    async with node_script(folder, script.name, options) as client:
        yield client


async def seen(client: Torrent, condition: Callable[[Any], bool]) -> Any:
    found: Any = {}
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(found := await do(client, "seen")):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"it never was so: {found}") from None
    return found


async def test_the_npm_client_announces_scrapes_meets_and_leaves(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(ours())
        one = await stack.enter_async_context(npm_client(tmp_path, 1, url))
        await do(one, "start")
        await seen(one, lambda heard: bool(heard["updates"]))
        async with npm_client(tmp_path, 2, url) as two:
            await do(two, "start")
            await seen(two, lambda heard: heard["connected"] == 1)
            await seen(one, lambda heard: heard["connected"] == 1)
            # A regular announce, one that says `completed`, and what a scrape then counts.
            await do(one, "update")
            await seen(one, lambda heard: heard["updates"][-1] == [0, 2])
            await do(two, "complete")
            await seen(two, lambda heard: heard["updates"][-1] == [1, 1])
            await do(one, "scrape")
            assert (await seen(one, lambda heard: bool(heard["scrapes"])))["scrapes"][0][:2] == [1, 1]
            await do(two, "stop")
            await seen(one, lambda heard: heard["updates"] is not None)
            await do(one, "update")
            heard = await seen(one, lambda heard: heard["updates"][-1] == [0, 1])
            assert (heard["errors"], heard["warnings"]) == ([], [])
            assert (await do(two, "seen"))["errors"] == []


async def test_a_dead_socket_is_no_peer_any_more(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(ours())
        one = await stack.enter_async_context(npm_client(tmp_path, 1, url))
        await do(one, "start")
        async with npm_client(tmp_path, 2, url) as two:
            await do(two, "start")
            await seen(one, lambda heard: heard["peers"] >= 1)
        # Killed: it said nothing.
        async with asyncio.timeout(DEADLINE_S):
            while (await do(one, "seen"))["updates"][-1:] != [[0, 1]]:
                await do(one, "update")
                await asyncio.sleep(0.2)


async def test_peers_of_two_instances_meet(tmp_path: Path) -> None:
    hub = MemoryHub()
    async with AsyncExitStack() as stack:
        _, first = await stack.enter_async_context(ours(bus=hub.bus("rv-1")))
        _, second = await stack.enter_async_context(ours(bus=hub.bus("rv-2")))
        one = await stack.enter_async_context(npm_client(tmp_path, 1, first))
        await do(one, "start")
        await seen(one, lambda heard: bool(heard["updates"]))
        two = await stack.enter_async_context(npm_client(tmp_path, 2, second))
        await do(two, "start")
        await seen(two, lambda heard: heard["connected"] == 1)
        await seen(one, lambda heard: heard["connected"] == 1)


async def test_a_worker_and_webtorrent_meet_across_instances(tmp_path: Path, browser: Browser) -> None:
    """A node at one instance; webtorrent in Node and in Chromium at the other."""
    hub = MemoryHub()
    async with AsyncExitStack() as stack:
        _, first = await stack.enter_async_context(ours(bus=hub.bus("rv-1")))
        _, second = await stack.enter_async_context(ours(bus=hub.bus("rv-2")))
        document = write_document(tmp_path / "document.json", trackers=[first])
        node = await stack.enter_async_context(worker(settings=config(document, trackers=True)))
        await until(lambda: node.status and node.status.state == "ready", 30.0)
        site = await stack.enter_async_context(torrent_site())
        page = await stack.enter_async_context(page_torrent(browser, site, announce=[second]))
        client = await stack.enter_async_context(node_torrent(tmp_path, announce=[second]))
        for torrent in (page, client):
            await counts_until(torrent, lambda counts: counts["open"] >= 1)
        await until(lambda: node.status and len(node.status.peers) == 2, 30.0)


async def test_libtorrent_meets_webtorrent_at_our_tracker(tmp_path: Path) -> None:
    """libtorrent's own WebTorrent: announce, offers, answers; both have the control infohash as a torrent here."""
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(ours())
        client = await stack.enter_async_context(node_torrent(tmp_path, announce=[url], plain=True))
        session: Any = lt.session(
            {
                "listen_interfaces": "127.0.0.1:0",
                "enable_dht": False,
                "enable_lsd": False,
                "enable_upnp": False,
                "enable_natpmp": False,
                "allow_multiple_connections_per_ip": True,
                "webtorrent_stun_server": "",
                "alert_mask": lt.alert.category_t.tracker_notification,
            }
        )
        params: Any = lt.add_torrent_params()
        params.info_hashes = lt.info_hash_t(lt.sha1_hash(control_infohash("public")))
        params.save_path = str(tmp_path)
        params.trackers = [url]
        session.add_torrent(params)
        kinds: set[str] = set()

        def announced() -> bool:
            kinds.update(type(alert).__name__ for alert in session.pop_alerts())
            return "tracker_reply_alert" in kinds

        await until(announced, DEADLINE_S)
        counts = await counts_until(client, lambda counts: counts["wires"] >= 1)
        assert counts["types"][0] == "webrtc"
        assert "tracker_error_alert" not in kinds
