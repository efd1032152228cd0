"""Pages of two real browsers on one origin, joined to the bus by `broadcast.js`: once each, in order, never back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from tests.fakes.memory_bus import MemoryHub
from tests.fakes.ports import free_port
from tests.interop.pages import Site, heard_all, profiles, site, tab, together
from tests.services.broadcast.pages.worker import PagesWorker, SocketPage, until

pytestmark = pytest.mark.timeout(300)


class Stage:
    """A site, a worker on its origin, and two browsers."""

    def __init__(self, site: Site, hub: MemoryHub, browsers: list[BrowserContext]) -> None:
        self.site, self.hub, self.browsers = site, hub, browsers
        self.port = free_port()
        self.workers: list[PagesWorker] = []

    async def worker(self) -> PagesWorker:
        name = f"broadcast-{len(self.workers)}"
        worker = PagesWorker(self.hub.bus(name), origins=[self.site.origin], port=self.port, max_sockets_per_address=64)
        self.workers.append(await worker.serving())
        self.site.worker_url = worker.url
        return worker

    async def tab(self, browser: int) -> Page:
        return await tab(self.browsers[browser], self.site.origin)


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(site())
        browsers = await stack.enter_async_context(profiles(tmp_path))
        made = Stage(place, MemoryHub(), browsers)
        await made.worker()
        yield made
        for worker in made.workers:
            await worker.stop()


async def test_tabs_of_two_browsers_hear_each_post_once_and_in_order(stage: Stage) -> None:
    """Two tabs in one browser, which hear each other natively, and two in another."""
    pages = [await stage.tab(0), await stage.tab(0), await stage.tab(1), await stage.tab(1)]
    await together(pages)
    for number, page in enumerate(pages):
        await page.evaluate("(n) => { for (let i = 0; i < 25; i++) channel.postMessage([n, i]) }", number)
    for number, page in enumerate(pages):
        heard = await heard_all(page, 75)
        assert len(heard) == 75, "none twice"
        for sender in range(4):
            mine = [value for value in heard if value[0] == sender]  # type: ignore[index]
            assert mine == ([] if sender == number else [[sender, i] for i in range(25)])
        await page.wait_for_function("noted.taken.length === 25")
        assert await page.evaluate("noted.taken.every((one) => one.listeners === 3)")
        assert await page.evaluate("noted.error") == []


async def test_tabs_that_start_at_once_and_lose_their_storage_find_one_name_for_their_browser(stage: Stage) -> None:
    """Each makes up what the browser is called; until they agree everything between them would be heard twice."""
    other = await stage.tab(1)
    pages = await asyncio.gather(*(stage.tab(0) for _ in range(3)))
    await together([*pages, other])
    await pages[0].evaluate("localStorage.clear()")
    seats = stage.workers[0].pages.seats
    await until(lambda: len({seat.browser for seat in seats("c")}) == 2 and len(seats("c")) == 4)
    await together([*pages, other])
    for number, page in enumerate(pages):
        await page.evaluate("(n) => channel.postMessage(n)", number)
    assert sorted(await heard_all(other, 3)) == [0, 1, 2]  # type: ignore[type-var]
    for number, page in enumerate(pages):
        assert sorted(await heard_all(page, 2)) == [each for each in range(3) if each != number]  # type: ignore[type-var]


VALUES = """[
  "text", "", "caf\\u00e9 \\ud83d\\ude00", "half \\ud83d", 0, -0, 1, -1, 127, 128, -32, -33, 2 ** 31, 2 ** 53 - 1, -1.5,
  NaN, Infinity, -Infinity, true, false, null, undefined, [], [1, [2, [3]]], {}, { a: 1, "": 2, nested: { b: [null] } },
  { ["__proto__"]: 1 }, new Uint8Array([1, 2, 255]).buffer, new ArrayBuffer(0), new Uint8Array([1, 2, 3]),
  new Int16Array([-1, 2]), new Float64Array([1.5, -2.5]), new BigInt64Array([-5n]), new Uint8ClampedArray([9]),
  new DataView(new Uint8Array([1, 2, 3, 4]).buffer, 1, 2), new Uint8Array([0, 1, 2, 3, 4]).subarray(2, 4),
  new Date(0), new Date(1234567890123.0), new Date(NaN), new Map([["a", 1], [2, new Map([[null, []]])]]), new Map(),
  new Set(["a", 1, null, new Set([2])]), new Set(), { deep: [new Map([["k", new Set([new Date(5)])]])] },
]"""
SHOW = """function show(v) {
  if (v === undefined) return "undefined";
  if (typeof v === "number") return Object.is(v, -0) ? "-0" : "n" + v;
  if (typeof v === "bigint") return "b" + v;
  if (typeof v !== "object" || v === null) return JSON.stringify(v);
  const kind = Object.prototype.toString.call(v);
  if (v instanceof Date) return "Date " + v.getTime();
  if (v instanceof ArrayBuffer) return "buffer " + [...new Uint8Array(v)];
  if (ArrayBuffer.isView(v)) return kind + [...new Uint8Array(v.buffer, v.byteOffset, v.byteLength)];
  if (v instanceof Map) return "Map(" + [...v].map(([k, e]) => show(k) + ":" + show(e)) + ")";
  if (v instanceof Set) return "Set(" + [...v].map(show) + ")";
  if (Array.isArray(v)) return "[" + v.map(show) + "]";
  return "{" + Object.entries(v).map(([k, e]) => k + ":" + show(e)) + "}" + Object.hasOwn(v, "__proto__");
}"""


async def test_values_arrive_as_they_were_sent(stage: Stage) -> None:
    """What a tab of another browser gets from the bus is what a tab of the same browser gets natively."""
    sender, native, carried = await stage.tab(0), await stage.tab(0), await stage.tab(1)
    await together([sender, native, carried])
    for page in (native, carried):
        await page.evaluate("([show]) => { window.show = (0, eval)(`(${show})`) }", [SHOW])
    count = await sender.evaluate(
        f"() => {{ const values = {VALUES}; for (const v of values) channel.postMessage(v); return values.length }}"
    )
    shown = []
    for page in (native, carried):
        await page.wait_for_function("(count) => heard.length === count", arg=count)
        shown.append(await page.evaluate("heard.map(show)"))
    assert shown[0] == shown[1]
    assert len(shown[0]) == count
    assert await sender.evaluate("noted.error") == []


UNSENDABLE = {
    "/a/": "RegExp",
    "new Error('x')": "Error",
    "5n": "bigint",
    "new Blob(['x'])": "Blob",
    "(() => { const o = {}; o.self = o; return o })()": "holds itself",
    "new Uint8Array(2000000)": "1992294",
    "(() => { let v = 1; for (let i = 0; i < 40; i++) v = [v]; return v })()": "deep",
}


async def test_a_value_that_cannot_leave_the_browser_is_an_error_of_the_page(stage: Stage) -> None:
    sender, native, carried = await stage.tab(0), await stage.tab(0), await stage.tab(1)
    await together([sender, native, carried])
    for value in UNSENDABLE:
        await sender.evaluate(f"channel.postMessage({value})")
    await sender.evaluate("channel.postMessage('after')")
    assert len(await heard_all(native, len(UNSENDABLE) + 1)) == len(UNSENDABLE) + 1, "natively they go as ever"
    assert await heard_all(carried, 1) == ["after"]
    errors = await sender.evaluate("noted.error")
    assert len(errors) == len(UNSENDABLE)
    for error, word in zip(errors, UNSENDABLE.values(), strict=True):
        assert word in error["message"]
        assert error["channel"] == "c"
        assert error["cause"] in ("invalid", "too_large")


async def test_what_the_browser_itself_refuses_goes_nowhere(stage: Stage) -> None:
    sender, other = await stage.tab(0), await stage.tab(1)
    await together([sender, other])
    thrown = await sender.evaluate(
        "() => { try { channel.postMessage(() => 1) } catch (e) { return e.name } finally { channel.postMessage(1) } }"
    )
    assert thrown == "DataCloneError"
    assert await heard_all(other, 1) == [1]
    assert await sender.evaluate("noted.error") == []


async def test_a_post_that_nobody_hears_is_notified(stage: Stage) -> None:
    page = await stage.tab(0)
    await page.evaluate("channel.postMessage(1)")
    await page.wait_for_function("noted.error.length > 0")
    assert (await page.evaluate("noted.error[0]"))["cause"] == "no_listener"
    assert await page.evaluate("noted.taken[0].listeners") == 0
    assert stage.workers[0].broadcast.refused["no_listener"] == 1


async def test_a_page_of_another_origin_is_refused_and_notified(stage: Stage) -> None:
    elsewhere = await stage.site.serve()
    page = await stage.browsers[0].new_page()
    await page.goto(elsewhere)
    await page.wait_for_function("noted.error.length > 0")
    assert "pages of this origin are not served here" in (await page.evaluate("noted.error[0]"))["message"]
    await page.wait_for_function("last(noted.state).state === 'waiting'")
    assert stage.workers[0].broadcast.refused["origin"] == 1


async def test_a_channel_that_is_not_configured_stays_in_its_browser(stage: Stage) -> None:
    stage.site.query = "channel=another"
    page = await stage.browsers[0].new_page()
    await page.goto(stage.site.origin)
    await page.wait_for_function("isOpen()")
    await page.evaluate("openChannel('another')")
    await page.wait_for_function("noted.error.length > 0")
    error = await page.evaluate("noted.error[0]")
    assert (error["cause"], error["channel"]) == ("forbidden", "another")


async def test_a_closed_tab_and_a_killed_browser_are_gone(stage: Stage, tmp_path: Path) -> None:
    stays, closes = await stage.tab(0), await stage.tab(0)
    killed = await stage.tab(1)
    await together([stays, closes, killed])
    await closes.close()
    await together([stays, killed], 2)
    kill_browser(tmp_path / "profile-1")
    await together([stays], 1)


def kill_browser(profile: Path) -> None:
    """SIGKILL every process of the browser with this profile: nobody says goodbye."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(profile).encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


async def test_pages_go_on_at_another_worker_and_lose_nothing(stage: Stage) -> None:
    """Two workers on one port; each in turn is ended while pages post. No page is reloaded."""
    await stage.worker()
    pages = [await stage.tab(0), await stage.tab(0), await stage.tab(1), await stage.tab(1)]
    await together(pages)
    for number, page in enumerate(pages):
        await page.evaluate(
            "(n) => { window.posted = 0; window.posting = setInterval(() => channel.postMessage([n, posted++]), 40) }",
            number,
        )
    for round_number in range(2):
        await pages[0].wait_for_function("(count) => noted.taken.length > count", arg=30 * (round_number + 1))
        dead = stage.workers[round_number]
        stage.hub.kill(f"broadcast-{round_number}")
        await dead.stop()
        await together(pages)
        await stage.worker()
    counts = []
    for page in pages:
        await page.evaluate("clearInterval(window.posting)")
    for page in pages:
        # Numbers count from 1. A worker that does not answer is waited for until it counts as gone.
        await page.wait_for_function("Math.max(...noted.taken.map((one) => one.number)) === posted")
        counts.append(await page.evaluate("posted"))
    for number, page in enumerate(pages):
        await heard_all(page, sum(counts) - counts[number])
        heard = await page.evaluate("heard")
        for sender in range(4):
            mine = [value[1] for value in heard if value[0] == sender]
            assert mine == ([] if sender == number else list(range(counts[sender])))
        assert [one for one in await page.evaluate("noted.error") if one["cause"] == "lost"] == []


async def test_a_page_and_the_bus_speak_both_ways(stage: Stage) -> None:
    """What a tab posts is at the worker, whatever is said there in its turn."""
    page = await stage.tab(0)
    peer = SocketPage("c")
    async with aiohttp.ClientSession() as http:
        await peer.connect(http, stage.workers[0].url, origin=stage.site.origin)
        await together([page], 2)
        await page.evaluate("channel.postMessage({ hello: [1, 2] })")
        await until(lambda: peer.heard)
        await peer.send(peer.post(peer.values()[0]))
        assert await heard_all(page, 1) == [{"hello": [1, 2]}]
        await peer.gone()
