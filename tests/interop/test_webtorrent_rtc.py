"""`webtorrent` over WebRTC, in Node and in Chromium, met at a WebSocket tracker: npm's and ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from shared.bus import bodies
from shared.content.messages import ChunkData, ManifestData, RequestChunk, RequestManifest
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.interop.conftest import our_rendezvous
from tests.interop.test_webtorrent_tcp import SIZES, bytes_of, digest, guest_of, ref, send
from tests.interop.torrents import (
    Torrent,
    counts_until,
    do,
    node_torrent,
    npm_tracker,
    page_torrent,
    refused,
    torrent_site,
    worker,
)
from tests.services.webtorrent.swarm_parts import config, write_document

pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture(params=["ours", "npm"])
async def tracker(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "npm":
        async with npm_tracker() as url:
            yield url
    else:
        async with our_rendezvous() as (_, place):
            yield f"ws://{place.host}:{place.port}/announce"


@pytest_asyncio.fixture
async def node(tracker: str, tmp_path: Path) -> AsyncIterator[WorkerNode]:
    document = write_document(tmp_path / "document.json", trackers=[tracker])
    async with worker(settings=config(document, trackers=True)) as node:
        await until(lambda: node.status and node.status.state == "ready", 30.0)
        yield node


async def chunks_both_ways(node: WorkerNode, torrent: Torrent) -> None:
    """A guest asks, serves, fetches a manifest and announces, over one data channel."""
    counts = await counts_until(torrent, lambda counts: counts["open"] == 1)
    assert "webrtc" in counts["types"]
    peer = await guest_of(node, torrent)
    for number, length in enumerate(SIZES):
        node.bodies[ref(number)] = bytes_of(length)
        chunk = await do(torrent, "requestChunk", ref(number), 60_000)
        assert (chunk["length"], chunk["digest"]) == (length, digest(bytes_of(length)))
        await do(torrent, "hold", ref(100 + number), length)
        await send(node, peer, bytes([number]) * 16, RequestChunk(ref(100 + number)))
        await until(lambda count=number + 1: len(node.answers) == count, 60.0)  # type: ignore[misc]
        answer = node.answers[-1]
        assert isinstance(answer.answer, ChunkData)
        assert answer.body is not None
        assert await bodies.pull(node.puller, node.subjects, answer.body, timeout_s=10.0) == bytes_of(length)
    node.bodies["m" * 64] = b'{"fileId":"m"}'
    assert await do(torrent, "requestManifest", "m" * 64, 60_000) == {"fileId": "m"}
    await do(torrent, "holdManifest", "n" * 64, '{"fileId":"n"}')
    await do(torrent, "announce", ["n" * 64])
    await until(lambda: node.announced, 10.0)
    await send(node, peer, b"i" * 16, RequestManifest("n" * 64))
    await until(lambda: len(node.answers) == len(SIZES) + 1, 10.0)
    assert node.answers[-1].answer == ManifestData("n" * 64)
    assert {call.stamp.role for call in node.asked} == {"guest"}
    assert node.crashed == []


async def test_webtorrent_in_node(node: WorkerNode, tracker: str, tmp_path: Path) -> None:
    async with node_torrent(tmp_path, announce=[tracker]) as torrent:
        await chunks_both_ways(node, torrent)


async def test_webtorrent_in_chromium(node: WorkerNode, tracker: str, browser: Browser) -> None:
    async with torrent_site() as site, page_torrent(browser, site, announce=[tracker]) as page:
        await chunks_both_ways(node, page)


async def test_a_plain_page_gets_no_frame_and_is_left_alone(node: WorkerNode, tracker: str, browser: Browser) -> None:
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(torrent_site())
        page = await stack.enter_async_context(page_torrent(browser, site, announce=[tracker], plain=True))
        counts = await counts_until(page, lambda counts: counts["closed"] >= 1)
        assert counts["frames"] == []
        assert refused(node).get("no_extension", 0) >= 1
        assert node.status is not None
        assert (node.status.state, node.status.last_error, node.status.peers) == ("ready", None, [])
