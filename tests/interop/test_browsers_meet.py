"""Two Chromium pages with the unmodified `peerjs` client meet through our rendezvous, and through npm's `peer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from shared.bus.nats import bus as nats_bus
from tests.fakes.nats_server import nats_server
from tests.interop.conftest import MeetingPlace, open_page, our_rendezvous, page_has, register

pytestmark = pytest.mark.timeout(300)


async def _dial(page: Page, peer_id: str, **options: Any) -> None:
    await page.evaluate("([id, options]) => dial(id, options)", [peer_id, options])


async def _exchange(sender: Page, to: str, receiver: Page, kind: str, length: int, count: int) -> None:
    sent = await sender.evaluate("([to, kind, length]) => send(to, kind, length)", [to, kind, length])
    assert await page_has(receiver, "(count) => lastReceived(count)", count) == sent, (kind, length)


@pytest.mark.parametrize(
    ("serialization", "reliable", "messages"),
    [
        ("binary", True, [("bytes", 100), ("bytes", 16_300), ("bytes", 1_000_000), ("object", 5_000)]),
        ("binary", False, [("bytes", 100), ("bytes", 1_000_000)]),
        ("json", True, [("object", 10)]),
        ("raw", True, [("bytes", 100), ("bytes", 65_536)]),
    ],
)
async def test_two_pages_exchange_messages_and_close(
    browser: Browser,
    site: str,
    place: MeetingPlace,
    serialization: str,
    reliable: bool,
    messages: list[tuple[str, int]],
) -> None:
    one, two = await open_page(browser, site), await open_page(browser, site)
    await register(one, place, "page-one")
    await register(two, place, "page-two")
    await _dial(one, "page-two", serialization=serialization, reliable=reliable)
    await page_has(two, "() => state.connections['page-one']?.open")
    for count, (kind, length) in enumerate(messages, 1):
        await _exchange(one, "page-two", two, kind, length, count)
        await _exchange(two, "page-one", one, kind, length, count)
    await one.evaluate("() => state.connections['page-two'].close()")
    assert await page_has(two, "() => state.closed.length && state.closed") == ["page-one"]


async def test_a_reloaded_page_is_back_under_its_id(browser: Browser, site: str, place: MeetingPlace) -> None:
    one, two = await open_page(browser, site), await open_page(browser, site)
    await register(one, place, "page-one")
    await register(two, place, "page-two")
    await one.reload()
    await register(one, place, "page-one")
    await _dial(two, "page-one", reliable=True)
    await _exchange(two, "page-one", one, "bytes", 1_000, 1)


async def test_a_page_that_dials_nobody_is_notified(browser: Browser, site: str, place: MeetingPlace) -> None:
    page = await open_page(browser, site)
    await register(page, place, "page-one")
    await page.evaluate("() => { state.peer.connect('nobody-there') }")
    assert await page_has(page, "() => state.errors.length && state.errors") == ["peer-unavailable"]


async def test_pages_of_two_instances_meet_and_outlive_one(browser: Browser, site: str, tmp_path: Path) -> None:
    """Registered at different instances on one NATS server; when one instance is gone, its page comes back by
    `reconnect()` at the other, under its id."""
    async with nats_server(tmp_path) as server:
        buses = [await nats_bus.connect(server.url, name) for name in ("rv-1", "rv-2")]
        try:
            async with our_rendezvous(bus=buses[1]) as (_, second):
                one, two = await open_page(browser, site), await open_page(browser, site)
                await register(two, second, "page-two")
                async with our_rendezvous(bus=buses[0]) as (_, first):
                    await register(one, first, "page-one")
                    await _dial(one, "page-two", reliable=True)
                    await _exchange(one, "page-two", two, "bytes", 1_000, 1)
                # Its instance is gone: the link that is open lives on, and the page's `reconnect()` leads elsewhere.
                await page_has(one, "() => state.peer.disconnected")
                await _exchange(one, "page-two", two, "bytes", 2_000, 2)
                await one.evaluate(
                    "(port) => new Promise((done) => { const { socket } = state.peer; state.peer.options.port = port;"
                    " socket._baseUrl = socket._baseUrl.replace(/:\\d+/, ':' + port);"
                    " state.peer.once('open', done); state.peer.reconnect() })",
                    second.port,
                )
                three = await open_page(browser, site)
                await register(three, second, "page-three")
                await _dial(three, "page-one", reliable=True)
                await _exchange(three, "page-one", one, "bytes", 3_000, 1)
        finally:
            for bus in buses:
                await bus.close()
