"""A worker's port for pages on real sockets: who is let in, what a page hears of it, who is cut off, and ends."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from services.broadcast.pages.endpoint import PAGE_SOCKETS
from services.broadcast.pages.limits import MAX_FRAME_BYTES, PAGE_PING_S, PRESENCE_EXPIRY_S, PRESENCE_INTERVAL_S
from shared.errors import Cause, TransportError
from shared.ids import guest_token
from shared.transports import TransportState
from shared.wire.pages.frames import PagePost, PageSlowed, encode_frame
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.ports import free_port
from tests.services.broadcast.pages.worker import CHANNEL, ORIGIN, PagesWorker, SocketPage, pages_on, until


def worker(name: str = "broadcast-1", hub: MemoryHub | None = None, **settings: object) -> PagesWorker:
    return PagesWorker((hub or MemoryHub()).bus(name), **settings)  # type: ignore[arg-type]


async def test_two_pages_hear_each_other_once_and_in_order() -> None:
    one, two = SocketPage(), SocketPage()
    async with pages_on(server := worker()) as http:
        await one.connect(http, server.url)
        await two.connect(http, server.url)
        await until(lambda: one.present == 2)
        for number in range(20):
            await one.send(one.post(b"%d" % number))
            await two.send(two.post(b"%d" % (100 + number)))
        await until(lambda: len(two.heard) == 20 and len(one.heard) == 20 and not one.outbox)
        assert two.values() == [b"%d" % number for number in range(20)]
        assert set(one.taken.values()) == {1}


async def test_without_origins_nothing_listens_and_the_status_says_so() -> None:
    server = worker(origins=[])
    await server.start()
    await until(lambda: server.pages.place.state == "off")
    assert server.url == ""
    assert [place.state for place in server.broadcast.meeting_places()] == ["off"]
    await server.stop()


async def test_off_loopback_a_token_is_needed(tmp_path: Path) -> None:
    server = worker(host="0.0.0.0")
    await server.start()
    await until(lambda: server.pages.place.state == "unusable")
    assert server.pages.place.cause is Cause.MISCONFIGURED
    assert server.url == ""
    await server.stop()
    (tmp_path / "token").write_text("secret\n")
    guarded = worker(host="0.0.0.0", token_file=str(tmp_path / "token"))
    page = SocketPage()
    async with pages_on(guarded) as http:
        for wrong in ("", "wrong"):
            await page.connect(http, guarded.url, token=wrong)
            await until(lambda: page.close_code is not None)
            assert (page.close_code, page.words.pop()) == (1008, "a token is needed, or this one is wrong")
        await page.connect(http, guarded.url, token="secret")
        await until(lambda: page.joined)
        assert guarded.broadcast.refused["token"] == 2
        await page.gone()


@pytest.mark.parametrize("content", ["", None], ids=["empty", "missing"])
async def test_a_token_that_cannot_be_read_is_said_and_nobody_comes_in(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    server = worker(token_file=str(tmp_path / "token"))
    await server.start()
    await until(lambda: server.pages.place.state == "unusable")
    await server.stop()


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "", "http://page.test.evil.test", "https://page.test"])
async def test_another_origin_is_refused_notified_and_counted(origin: str) -> None:
    page = SocketPage()
    async with pages_on(server := worker()) as http:
        await page.connect(http, server.url, origin=origin)
        await until(lambda: page.close_code is not None)
        assert (page.close_code, page.words) == (1008, ["pages of this origin are not served here"])
        assert not page.joined
        assert server.broadcast.refused["origin"] == 1


async def test_an_address_has_its_number_of_pages() -> None:
    pages = [SocketPage() for _ in range(9)]
    async with pages_on(server := worker()) as http:
        for page in pages[:8]:
            await page.connect(http, server.url)
            await until(lambda page=page: page.joined)  # type: ignore[misc]
        await pages[8].connect(http, server.url)
        await until(lambda: pages[8].close_code == 1013)
        assert "too many sockets from your address" in pages[8].words[0]
        assert server.broadcast.refused["sockets_of_address"] == 1
        for page in pages:
            await page.gone()


async def test_a_page_that_posts_too_fast_is_slowed_notified_and_loses_nothing() -> None:
    one, two = SocketPage(), SocketPage()
    server = PagesWorker(MemoryHub().bus("b-1"), limits=replace(PAGE_SOCKETS, messages_per_s=50.0, burst=10.0))
    async with pages_on(server) as http:
        await one.connect(http, server.url)
        await two.connect(http, server.url)
        await until(lambda: one.joined and two.joined)
        for number in range(40):
            await one.send(one.post(b"%d" % number))
        await until(lambda: len(two.heard) == 40)
        assert two.values() == [b"%d" % number for number in range(40)]
        assert PageSlowed() in one.others
        assert server.broadcast.refused["rate_limited"] >= 1
        await one.gone()
        await two.gone()


async def test_a_message_that_is_too_long_closes_its_socket_by_that_reason() -> None:
    page = SocketPage()
    async with pages_on(server := worker()) as http:
        await page.connect(http, server.url)
        await until(lambda: page.joined)
        await page.send(encode_frame(PagePost("c", 1, bytes(MAX_FRAME_BYTES))))
        await until(lambda: page.close_code is not None)
        assert page.close_code == 1009
        assert server.broadcast.refused["too_large"] == 1


async def test_a_page_that_does_not_read_is_cut_off_and_others_hear_on() -> None:
    """It upgrades, joins, and never reads a byte again; what is posted meanwhile is far beyond any buffer."""
    talker, reader = SocketPage(), SocketPage()
    async with pages_on(server := worker()) as http:
        deaf = await _deaf_page(server.url)
        await talker.connect(http, server.url)
        await reader.connect(http, server.url)
        await until(lambda: talker.present == 3)
        value = os.urandom(1_000_000)
        sent = 0
        while not server.broadcast.refused["busy"]:
            await talker.send(talker.post(value))
            sent += 1
            await until(lambda sent=sent: len(reader.heard) == sent)  # type: ignore[misc]
            assert sent < 60, "it is not buffered without end"
        await until(lambda: talker.present == 2)
        deaf.close()
        await talker.gone()
        await reader.gone()


async def _deaf_page(url: str) -> socket.socket:
    """A socket with the smallest of receive buffers that says hello by hand."""
    host, _, port = url.removeprefix("http://").partition(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((host, int(port)))
    raw.sendall(
        b"GET /pages HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Origin: " + ORIGIN.encode() + b"\r\n\r\n"
    )
    for frame in SocketPage().hello():
        # A client masks; with a mask of zeros the frame is as it is.
        raw.sendall(bytes([0x82, 0x80 | len(frame)]) + bytes(4) + frame)
    return raw


async def test_a_closed_tab_is_gone_at_once_and_a_cut_one_within_five_seconds() -> None:
    one, two = SocketPage(), SocketPage()
    async with pages_on(server := worker()) as http:
        await one.connect(http, server.url)
        await two.connect(http, server.url)
        silent = await _deaf_page(server.url)  # it never answers a ping: its machine is gone
        await until(lambda: one.present == 3)
        started = asyncio.get_running_loop().time()
        await two.gone()
        await until(lambda: one.present <= 2)
        assert asyncio.get_running_loop().time() - started < PAGE_PING_S, "by its close, not by a ping"
        await until(lambda: one.present == 1)
        assert asyncio.get_running_loop().time() - started < 2 * (1.5 * PAGE_PING_S), "meant is within 4.5 s"
        silent.close()
        await one.gone()


async def test_workers_of_one_port_share_its_pages_and_carry_posts_between_them() -> None:
    hub, port = MemoryHub(), free_port()
    # The kernel deals the sockets out as it likes: all twelve, of one address, may come to one worker.
    first, second = (worker(name, hub, port=port, max_sockets_per_address=12) for name in ("b-1", "b-2"))
    pages = [SocketPage() for _ in range(12)]
    async with pages_on(first, second) as http:
        for page in pages:
            await page.connect(http, first.url)
        await until(lambda: all(page.present == 12 for page in pages))
        for page in pages:
            await page.send(page.post(page.secret))
        await until(lambda: all(len(page.heard) == 11 and not page.outbox for page in pages))
        assert all(listeners == 11 for page in pages for listeners in page.taken.values())
        for page in pages:
            await page.gone()


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_worker_that_ends_loses_nothing_of_what_pages_say(how: str) -> None:
    hub = MemoryHub()
    first, second = worker("b-1", hub), worker("b-2", hub)
    one, two = SocketPage(), SocketPage()
    async with pages_on(first, second) as http:
        await one.connect(http, first.url)
        await two.connect(http, first.url)
        await until(lambda: one.present == 2)
        for number in range(10):
            await one.send(one.post(b"%d" % number))
        if how == "killed":
            hub.kill("b-1")
        await first.stop()
        await until(lambda: one.close_code is not None and two.close_code is not None)
        if how == "stopped":
            assert (one.close_code, two.close_code) == (1001, 1001), "going away: come again"
        for number in range(10, 20):
            one.post(b"%d" % number)
        await one.connect(http, second.url, since_ms=10_000)
        await two.connect(http, second.url, since_ms=10_000)
        await until(lambda: not one.outbox and len(two.heard) == 20)
        assert two.values() == [b"%d" % number for number in range(20)]
        assert two.gaps == 0
        await until(lambda: one.present == 2)
        await one.gone()
        await two.gone()


async def test_a_port_of_somebody_else_is_said_and_tried_again() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = worker(port=other.getsockname()[1])
        await server.start()
        await until(lambda: server.pages.place.state == "waiting")
        assert server.pages.place.cause is Cause.REFUSED
        assert server.pages.place.retry_ms
    await until(lambda: server.pages.place.state == "open")
    await server.stop()


async def test_the_script_is_served_to_pages_of_any_origin() -> None:
    async with pages_on(server := worker()) as http, http.get(f"{server.url}/broadcast.js") as response:
        assert response.status == 200
        assert response.content_type == "text/javascript"
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        async with http.get(f"{server.url}/broadcast.js", headers={"If-None-Match": response.headers["ETag"]}) as again:
            assert again.status == 304


async def test_a_page_is_a_link_of_the_node_on_its_channel() -> None:
    page = SocketPage(CHANNEL)
    async with pages_on(server := worker()) as http:
        await page.connect(http, server.url)
        await until(lambda: server.ups)
        up = server.ups[0]
        assert up.guest == f"page-{page.id.hex()}"
        assert guest_token(up.guest)
        await page.send(page.post(b"to the node"))
        await until(lambda: server.records.get(up.link) == [b"to the node"])
        for number in range(8):  # more than a queue: it waits for room, and the page is not cut off
            await server.broadcast.send(up.link, bytes([number]) * 1_400_000)
        await until(lambda: len(page.heard) == 8)
        assert [value[0] for value in page.values()] == list(range(8))
        await server.broadcast.close(up.link, Cause.BLOCKED)
        await until(lambda: page.close_code is not None)
        assert [(down.link, down.cause) for down in server.downs] == [(up.link, Cause.BLOCKED)]
        with pytest.raises(TransportError):
            await server.broadcast.send(up.link, b"x")


async def test_what_pages_cannot_have_makes_a_worker_degraded() -> None:
    server = worker(host="0.0.0.0")
    states: list[TransportState] = []
    task = asyncio.create_task(server.broadcast.run(lambda event: states.append(getattr(event, "state", None))))  # type: ignore[arg-type]
    await until(lambda: TransportState.DEGRADED in states)
    task.cancel()
    await asyncio.wait({task})


async def test_a_get_that_is_no_websocket_is_notified() -> None:
    async with pages_on(server := worker()) as http, http.get(f"{server.url}/pages") as response:
        assert response.status == 426
    assert isinstance(http, aiohttp.ClientSession)


@pytest.mark.parametrize("cut_off", [("broadcast-1", "broadcast-2"), ("broadcast-2",)], ids=["both", "one"])
async def test_what_is_said_while_the_bus_is_away_arrives_when_it_is_back(cut_off: tuple[str, ...]) -> None:
    hub = MemoryHub()
    near, far = worker("broadcast-1", hub), worker("broadcast-2", hub)
    one, two = SocketPage(), SocketPage()
    async with pages_on(near, far) as http:
        await one.connect(http, near.url)
        await two.connect(http, far.url)
        await until(lambda: one.present == two.present == 2)
        await one.send(one.post(b"before"))
        await until(lambda: two.values() == [b"before"])
        for name in cut_off:
            hub.disconnect(name)
        await one.send(one.post(b"near, at once"))
        await two.send(two.post(b"far, at once"))
        await asyncio.sleep(PRESENCE_EXPIRY_S + 2 * PRESENCE_INTERVAL_S)  # long enough to be given up
        await one.send(one.post(b"near, later"))
        await two.send(two.post(b"far, later"))
        assert two.outbox, "not accepted before other workers have it"
        for name in cut_off:
            hub.reconnect(name)
        await until(lambda: two.values() == [b"before", b"near, at once", b"near, later"])
        await until(lambda: one.values() == [b"far, at once", b"far, later"])
        await until(lambda: not one.outbox and not two.outbox)
        await until(lambda: one.present == two.present == 2)
