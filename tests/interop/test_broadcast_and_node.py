"""A page that uses swarm-space's envelope on its BroadcastChannel: it fetches a chunk from the node and serves one to
it, as a guest; no page is known to the node by what it says of itself."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from services.broadcast.pages.service import Pages
from services.broadcast.transport import BroadcastTransport
from shared.bus import bodies
from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.clock import monotonic
from shared.content.messages import ChunkData, RequestChunk
from shared.content.refs import encode_base64
from shared.errors import Cause, RemoteFailure
from shared.ids import PeerToken, guest_token, peer_name, peerjs_id
from shared.settings.config import BroadcastSettings
from tests.e2e.test_up import Running, cli_json, running
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.worker_node import WorkerNode
from tests.interop.conftest import DEADLINE_S
from tests.interop.pages import profiles, site, tab
from tests.services.broadcast.pages.worker import until

pytestmark = pytest.mark.timeout(300)

CHANNEL = "swarm-space-webtorrent"
REF, PAGE_REF = f"chunk-{'a' * 64}", f"chunk-{'b' * 64}"
BODY = bytes(range(256)) * 4096
ADAPTER = """
window.adapter = (own) => {
  const pending = new Map();
  window.served = [];
  // What the application's own adapter does: its own messages, and those for others, are ignored.
  channel.addEventListener("message", ({ data }) => {
    if (data?.from === own || (data?.target && data.target !== own) || data?.type !== "chunk") return;
    const { payload } = data;
    if (payload.type === "request_manifest") {
      served.push(payload.hash);
      const manifest = window.manifests?.[payload.hash];
      const type = manifest ? "manifest_data" : "manifest_not_found";
      send(data.from, { type, requestId: payload.requestId, hash: payload.hash, manifest });
    } else if (payload.type === "request_chunk") {
      served.push(payload.hash);
      const chunk = window.chunks?.[payload.hash];
      const type = chunk ? "chunk_data" : "chunk_not_found";
      send(data.from, { type, requestId: payload.requestId, hash: payload.hash, chunk, error: "Chunk not found" });
    } else pending.get(payload.requestId)?.(payload);
  });
  const send = (target, payload) =>
    channel.postMessage({ type: "chunk", payload, from: own, target, transport: "webtorrent" });
  window.request = (target, hash, type = "request_chunk") => new Promise((done) => {
    const requestId = Math.random().toString(36).slice(2);
    pending.set(requestId, done);
    send(target, { type, requestId, hash });
  });
};
"""


async def test_a_page_fetches_from_the_node_and_serves_to_it(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(site())
        place.query = ""
        settings = BroadcastSettings(origins=[place.origin])
        mesh = MemoryHub().bus("broadcast-1")
        pages = Pages(mesh, settings, monotonic)
        node = WorkerNode(b"\x01" * 32)
        node.bodies[REF] = BODY
        await node.start(BroadcastTransport(mesh, settings.origin, settings.channel, pages=pages))
        stack.push_async_callback(node.stop)
        await until(lambda: pages.place.state == "open")
        place.worker_url = pages.url
        [browser] = await stack.enter_async_context(profiles(tmp_path, 1))
        page = await tab(browser, place.origin, CHANNEL)
        await page.evaluate(ADAPTER)
        await page.evaluate("adapter('peer-00000000000000aa')")

        own_id = peerjs_id(node.key)
        answer = await page.evaluate("([to, ref]) => request(to, ref)", [own_id, REF])
        assert answer["type"] == "chunk_data"
        assert answer["chunk"]["cipher"] == encode_base64(BODY)
        stamp = node.asked[0].stamp
        assert (stamp.transport, stamp.role) == ("broadcast", "guest")
        assert stamp.peer != guest_token("peer-00000000000000aa"), "what it calls itself proves nothing"
        missing = await page.evaluate("([to, ref]) => request(to, ref)", [own_id, f"chunk-{'c' * 64}"])
        assert missing["type"] == "chunk_not_found"

        chunk = {
            "ref": PAGE_REF,
            "seq": 0,
            "total": 1,
            "size": 5,
            "iv": encode_base64(bytes(12)),
            "cipher": encode_base64(b"y" * 21),
            "meta": {"mime": "text/plain", "originalName": "b.txt"},
        }
        await page.evaluate("(chunk) => { window.chunks = { [chunk.ref]: chunk } }", chunk)
        assert stamp.peer == guest_token(f"page-{(await page.evaluate('last(noted.state)'))['page']}")
        await until(lambda: node.status is not None and node.status.peers == [peer_name(stamp.peer)])
        subject = node.subjects.link("broadcast", stamp.peer)
        call = SendRequest(b"r" * 16, "manager-1", 1, RequestChunk(PAGE_REF))
        accepted = await node.caller.request(subject, call, Accepted, timeout_s=5.0)
        assert (accepted.acks, accepted.confirms) == (False, True)
        await until(lambda: node.answers)
        assert isinstance(node.answers[0].answer, ChunkData)
        assert node.answers[0].body is not None
        assert await bodies.pull(node.puller, node.subjects, node.answers[0].body, timeout_s=5.0) == b"y" * 21
        assert await page.evaluate("served") == [PAGE_REF]

        await page.close()
        await until(lambda: node.status is not None and not node.status.peers)
        with pytest.raises(RemoteFailure) as refusal:
            await node.dial(PeerToken(stamp.peer), "broadcast")
        assert refusal.value.cause is Cause.NO_LISTENER, "a manager goes on at once"


async def shim_page(context: BrowserContext, node: Running) -> tuple[Page, str]:
    """The node's own page with one more channel in it. Returns: it, and the guest token that it has at the node."""
    page = await context.new_page()
    page.set_default_timeout(DEADLINE_S * 1000)
    await page.goto(node.where["page"])
    await expect(page.locator("#dashboard")).to_be_visible(timeout=DEADLINE_S * 1000)
    await page.goto(f"{node.where['url']}/try")
    await expect(page.locator("#live")).to_have_text("live", timeout=DEADLINE_S * 1000)
    await page.evaluate(f"window.channel = new BroadcastChannel('{CHANNEL}')")
    await page.evaluate(ADAPTER)
    await page.evaluate("adapter('peer-00000000000000aa')")
    page_id = await page.evaluate(
        "async () => { const { url, channel } = await (await fetch('/api/pages')).json();"
        " return (await import(`${url}/broadcast.js?channel=${channel}`)).status().page }"
    )
    return page, guest_token(f"page-{page_id}")


async def test_a_page_carries_a_shared_file_from_one_whole_node_to_another(tmp_path: Path) -> None:
    """It asks the first for the manifest and each chunk; the second asks it, through chunk service and manager."""
    source = tmp_path / "a file.bin"
    source.write_bytes(os.urandom(2 * 2**20 + 11))
    async with AsyncExitStack() as stack:
        first = stack.enter_context(running(tmp_path / "a", tmp_path / "home-a", "--name", "a"))
        second = stack.enter_context(running(tmp_path / "b", tmp_path / "home-b", "--name", "b"))
        link = cli_json(first, "put", str(source))["files"][0]["link"]
        digest = link.removeprefix("swarmbridge:").partition("?")[0]
        [browser] = await stack.enter_async_context(profiles(tmp_path, 1))
        page, _ = await shim_page(browser, first)
        own_id = await page.evaluate("async () => (await (await fetch('/api/node')).json()).name")
        got = await page.evaluate("([to, id]) => request(to, id, 'request_manifest')", [own_id, digest])
        assert got["type"] == "manifest_data"
        chunks = {}
        for ref in got["manifest"]["chunks"]:
            chunks[ref] = (await page.evaluate("([to, ref]) => request(to, ref)", [own_id, ref]))["chunk"]
        await page.close()

        carrier, guest = await shim_page(browser, second)
        await carrier.evaluate(
            "([chunks, manifest, digest]) => { window.chunks = chunks; window.manifests = { [digest]: manifest } }",
            [chunks, got["manifest"], digest],
        )
        target = tmp_path / "got.bin"
        cli_json(second, "get", f"swarmbridge:{digest}?h={guest}", "-o", str(target))
        assert target.read_bytes() == source.read_bytes()
        assert set(await carrier.evaluate("served")) == {digest, *chunks}
