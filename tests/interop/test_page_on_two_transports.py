"""A page that has a PeerJS link and a BroadcastChannel: when the link dies, what the node wants of the page goes over
the channel: the same delivery, one trace, explained by `why`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page

from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.bus.messages.subjects import Subjects
from shared.content.link import ContentLink, format_link
from shared.content.messages import RequestChunk
from shared.errors import NoResponders
from shared.gateway_api import calls
from shared.gateway_api.structs import HopView
from shared.ids import guest_token
from shared.speech.peerjs import MANAGER, MESH
from tests.chaos.watch import watching
from tests.interop.conftest import DEADLINE_S, page_has
from tests.interop.stage import Stage, get, join, kill_the_worker_of, staged

pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

FILE_BYTES = 24 * 2**20
ON_CHANNEL = """
async ([script, channel, node]) => {
  const { alsoHere, status } = await import(`${script}/broadcast.js?channel=${channel}`);
  const posts = new BroadcastChannel(channel);
  // To the application its channel is one more connection, with the adapter's envelope around what it says.
  const connection = { peer: node, open: true, send: (message) => posts.postMessage(
    { type: message.type, payload: message.payload, from: space.id, target: node, transport: "webtorrent" }) };
  window.onChannel = 0;
  posts.onmessage = ({ data }) => {
    if (data.from === space.id || (data.target && data.target !== space.id)) return;
    onChannel += data.payload?.type === "request_chunk" ? 1 : 0;
    const spoken = space.dialect;
    space.dialect = "peerjs_manager"; // what envelopes hold, whatever the page speaks elsewhere
    try { hear(connection, data); } finally { space.dialect = spoken; }
  };
  while (status().state !== "open") await new Promise((after) => setTimeout(after, 20));
  const sayBoth = () => {
    connection.send({ type: "ping", payload: { sentAt: Date.now() } });
    const also = alsoHere(), link = space.links[node];
    if (link?.open) link.send(space.dialect === "peerjs_mesh" ? JSON.stringify(also) : also);
  };
  sayBoth();
  setInterval(sayBoth, 500); // either may have been opened again, and knows nothing of what was said before
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("two"), workers=1, on_channel=True) as stage:
        yield stage


async def on_both(stage: Stage, dialect: str) -> tuple[Page, str]:
    """A page with a link and a channel, known to be one. Returns: it, and its PeerJS id."""
    page, page_id = await join(stage, dialect)
    node = await stage.peer_id()
    await page.evaluate("(peer) => linkTo(peer).then(() => null)", node)
    await page.evaluate(ON_CHANNEL, [*await where_pages_join(stage), node])
    return page, page_id


async def where_pages_join(stage: Stage) -> tuple[str, str]:
    """Returns: the origin of the script, and the channel's name."""
    async with asyncio.timeout(DEADLINE_S):
        while not (pages := await stage.a.api.ask(calls.pages())).url:
            await asyncio.sleep(0.05)  # the worker has not said yet where it listens
    return pages.url, pages.channel


async def known_to_be_one(stage: Stage, page_id: str) -> None:
    """Wait until requests for the peer of the link reach the channel's worker."""
    subject = Subjects(stage.a.name).link("broadcast", guest_token(page_id))
    call = SendRequest(os.urandom(16), "manager-test", 1, RequestChunk(f"chunk-{'0' * 64}"))
    async with watching(stage.a) as watch, asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(NoResponders):
                await watch.bus.request(subject, call, Accepted, timeout_s=5.0)
                return
            await asyncio.sleep(0.05)


async def hops_of(stage: Stage, transfer: str) -> list[HopView]:
    return await stage.a.api.ask(calls.hops(transfer, 1000))


@pytest.mark.parametrize("dialect", [MANAGER, MESH])
async def test_a_page_whose_link_dies_serves_on_over_its_channel(stage: Stage, dialect: str) -> None:
    page, page_id = await on_both(stage, dialect)
    await known_to_be_one(stage, page_id)
    shared = await page.evaluate("([name, length]) => share(name, length)", ["of a page.bin", FILE_BYTES])
    link = ContentLink(shared["digest"], (guest_token(page_id),))
    transfer = await stage.a.api.fetch(format_link(link))
    await page_has(page, "() => space.served > 3")
    await kill_the_worker_of(stage, page_id)
    async with asyncio.timeout(DEADLINE_S * 2):
        while (now := await stage.a.api.transfer(transfer)).state not in ("done", "failed"):
            await asyncio.sleep(0.05)
    assert now.state == "done", now
    assert await stage.a.api.content_sha256(link.digest) == shared["sha256"]
    assert await page.evaluate("onChannel") > 0
    # The delivery that was in flight is one, whose next hop the channel was.
    hops = await hops_of(stage, transfer)
    fallbacks = [hop for hop in hops if hop.transport == "broadcast" and hop.fallback_from is not None]
    assert any(hop.outcome == "confirmed" for hop in fallbacks), hops
    for hop in fallbacks:
        before = [one for one in hops if one.delivery == hop.delivery and one.number < hop.number]
        assert before, "the same delivery"
        assert {one.trace_id for one in before} == {hop.trace_id}, "in one trace"
    said = await stage.a.api.ask(calls.why_of(transfer, 0))
    assert said.transport == "broadcast"
    assert "webrtc" in {reason.transport for reason in said.reasons}, said
    print(said.headline)
    await page.context.close()


async def test_a_page_that_names_itself_after_another_gets_nothing_of_its(stage: Stage) -> None:
    """The one named has never said so: what is meant for it is asked of it alone."""
    honest, honest_id = await join(stage, MANAGER)
    node = await stage.peer_id()
    await honest.evaluate("(peer) => linkTo(peer).then(() => null)", node)
    thief, _ = await on_both(stage, MANAGER)
    await thief.evaluate("(id) => { space.id = id }", honest_id)
    await thief.evaluate(ON_CHANNEL, [*await where_pages_join(stage), node])
    shared = await honest.evaluate("([name, length]) => share(name, length)", ["honest.bin", 3 * 2**20])
    assert await get(stage, ContentLink(shared["digest"], (guest_token(honest_id),))) == shared["sha256"]
    assert await thief.evaluate("onChannel") == 0
    await honest.context.close()
    await thief.context.close()
