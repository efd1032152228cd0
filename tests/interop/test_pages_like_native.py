"""A joined BroadcastChannel behaves as HTML says, also for what comes from another browser: the cases that Web Platform
Tests have for it, written for a sender elsewhere. docs/broadcast.md lists them with their results."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.fakes.memory_bus import MemoryHub
from tests.interop.pages import profiles, site, tab, together
from tests.services.broadcast.pages.worker import PagesWorker

pytestmark = pytest.mark.timeout(300)

DELIVERED: dict[str, tuple[str, str, Any]] = {
    # case: (what the receiving page does before, what it says afterwards, what is expected)
    "an event of the right kind": (
        "kept = []; channel.onmessage = (e) => kept.push(e)",
        "channel.onmessage = null, kept.map((e) => [e.constructor.name, e.type, e.data, e.origin === location.origin,"
        " e.source, e.ports.length, e.target === channel, e.lastEventId])",
        [
            ["MessageEvent", "message", "one", True, None, 0, True, ""],
            ["MessageEvent", "message", "two", True, None, 0, True, ""],
        ],
    ),
    "channels hear in the order of their creation": (
        "kept = []; more = [0, 1, 2].map((n) => { const c = new BroadcastChannel('c');"
        " c.onmessage = (e) => kept.push([n, e.data]); return c })",
        "more.map((c) => c.close()), kept",
        [[n, word] for word in ("one", "two") for n in range(3)],
    ),
    "a closed channel hears nothing": (
        "kept = []; more = new BroadcastChannel('c'); more.onmessage = (e) => kept.push(e.data); more.close()",
        "kept",
        [],
    ),
    "a channel that is closed while messages come hears no more": (
        "kept = []; more = new BroadcastChannel('c'); more.onmessage = (e) => { kept.push(e.data); more.close() }",
        "kept",
        ["one"],
    ),
    "closing and creating channels while a message is delivered": (
        "kept = []; first = new BroadcastChannel('c'); second = new BroadcastChannel('c'); third = null;"
        " first.onmessage = (e) => { kept.push(['first', e.data]); if (third) return; second.close();"
        " third = new BroadcastChannel('c'); third.onmessage = (e) => kept.push(['third', e.data]) };"
        " second.onmessage = (e) => kept.push(['second', e.data])",
        "[first, third].map((c) => c.close()), kept",
        [["first", "one"], ["first", "two"], ["third", "two"]],
    ),
    "addEventListener and once": (
        "kept = []; more = new BroadcastChannel('c');"
        " more.addEventListener('message', (e) => kept.push(e.data), { once: true })",
        "more.close(), kept",
        ["one"],
    ),
    "a channel of another name hears nothing": (
        "kept = []; more = new BroadcastChannel('C'); more.onmessage = (e) => kept.push(e.data)",
        "more.close(), kept",
        [],
    ),
    "values are each channel's own": (
        "kept = []; more = [0, 1].map(() => { const c = new BroadcastChannel('c');"
        " c.onmessage = (e) => kept.push(e.data); return c })",
        "more.map((c) => c.close()), [kept.length, typeof kept[0]]",
        [4, "string"],
    ),
}

LOCAL: dict[str, tuple[str, Any]] = {
    "it needs a name": ("caught(() => new BroadcastChannel())", "TypeError"),
    "it needs new": ("caught(() => BroadcastChannel('c'))", "TypeError"),
    "null and undefined are names": (
        "[null, undefined].map((name) => { const c = new BroadcastChannel(name); c.close(); return c.name })",
        ["null", "undefined"],
    ),
    "its name is kept": ("channel.name", "c"),
    "it is what it was": (
        "[channel instanceof BroadcastChannel, channel instanceof EventTarget, BroadcastChannel.name,"
        " BroadcastChannel.length, Object.prototype.toString.call(channel), channel.constructor.name]",
        [True, True, "BroadcastChannel", 1, "[object BroadcastChannel]", "BroadcastChannel"],
    ),
    "it can be extended": (
        "(() => { class Mine extends BroadcastChannel { twice() { return 2 } } const c = new Mine('c'); c.close();"
        " return [c instanceof Mine, c instanceof BroadcastChannel, c.twice(), c.name] })()",
        [True, True, 2, "c"],
    ),
    "a value that cannot be cloned throws": ("caught(() => channel.postMessage(Symbol()))", "DataCloneError"),
    "postMessage needs a value": ("caught(() => channel.postMessage())", "TypeError"),
    "a closed channel throws, whatever the value": (
        "(() => { const c = new BroadcastChannel('c'); c.close();"
        " return [caught(() => c.postMessage('')), caught(() => c.postMessage(Symbol()))] })()",
        ["InvalidStateError", "InvalidStateError"],
    ),
    "it can be closed twice": (
        "(() => { const c = new BroadcastChannel('c'); c.close(); return caught(() => c.close()) })()",
        "",
    ),
    "onmessage is an attribute of its own": (
        "(() => { const c = new BroadcastChannel('c'); const was = c.onmessage; c.onmessage = 1;"
        " const is = c.onmessage; c.close(); return [was, is] })()",
        [None, None],
    ),
}
CAUGHT = "window.caught = (run) => { try { run(); return '' } catch (error) { return error.name } }"


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Page, Page]]:
    """A sender in one browser and a receiver in another."""
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(site())
        worker = PagesWorker(MemoryHub().bus("broadcast-1"), origins=[place.origin])
        stack.push_async_callback(worker.stop)
        place.worker_url = (await worker.serving()).url
        browsers = await stack.enter_async_context(profiles(tmp_path))
        pages = [await tab(browser, place.origin) for browser in browsers]
        await together(pages)
        yield pages[0], pages[1]


async def test_what_comes_from_another_browser_is_heard_as_html_says(pair: tuple[Page, Page]) -> None:
    sender, receiver = pair
    found: dict[str, Any] = {}
    await receiver.evaluate("window.after = new BroadcastChannel('c')")
    for case, (before, after, _) in DELIVERED.items():
        # The channel that is asked last was made last for each case: when it has heard all, so have the others.
        await receiver.evaluate(
            "(before) => { (0, eval)(before); heardAll = new Promise((done) => {"
            " const last = new BroadcastChannel('c');"
            " last.onmessage = (e) => { if (e.data === 'two') { last.close(); done() } } }) }",
            before,
        )
        await sender.evaluate("channel.postMessage('one'), channel.postMessage('two')")
        await receiver.evaluate("heardAll")
        found[case] = await receiver.evaluate(after)
    assert found == {case: expected for case, (_, _, expected) in DELIVERED.items()}


async def test_the_interface_is_the_browsers_own(pair: tuple[Page, Page]) -> None:
    page = pair[0]
    await page.evaluate(CAUGHT)
    found = {case: await page.evaluate(script) for case, (script, _) in LOCAL.items()}
    assert found == {case: expected for case, (_, expected) in LOCAL.items()}


async def test_a_sandboxed_frame_has_no_origin_and_stays_out(pair: tuple[Page, Page]) -> None:
    """Its origin is opaque: to HTML it is another one than the page's, and here it is nobody's."""
    page, other = pair
    await page.evaluate(
        "() => { const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts';"
        " frame.src = location.href; document.body.append(frame) }"
    )
    frame = page.frames[-1]
    await frame.wait_for_function("noted.error.length > 0")
    assert (await frame.evaluate("noted.error[0]"))["cause"] in ("forbidden", "refused")
    await page.evaluate("channel.postMessage('from the page')")
    await other.wait_for_function("heard.length === 1")
