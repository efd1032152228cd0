"""A page with the unmodified `peerjs` client dials a node that does not speak its dialect: it hears so at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from shared.settings.rendezvous import PeerServer
from shared.transports import TransportState
from tests.interop.conftest import DEADLINE_S, MeetingPlace, npm_peer, open_page, our_rendezvous, register
from tests.services.webrtc.node import Node

pytestmark = pytest.mark.timeout(300)
BEFORE_THE_SERVER_S = 4.0
"""Meant is within 1 s. A PeerServer's own EXPIRE, for a peer that is not there, comes after 5: it must not be that."""


@pytest_asyncio.fixture(params=["ours", "npm peer"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[MeetingPlace]:
    if request.param == "ours":
        async with our_rendezvous() as (_, meeting_place):
            yield meeting_place
    else:
        async with npm_peer() as meeting_place:
            yield meeting_place


async def test_a_page_that_is_turned_away_learns_it_at_once(
    browser: Browser, site: str, place: MeetingPlace, tmp_path: Path
) -> None:
    url = f"http://{place.host}:{place.port}{place.path}"
    node = await Node("node", tmp_path, [PeerServer(url)]).start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while (state := node.workers[0].state) is None or state.state is not TransportState.READY:
                await asyncio.sleep(0.05)
        page = await open_page(browser, site)
        await register(page, place, "page-one")
        failure = await page.evaluate(
            "(id) => new Promise((failure) => { const start = performance.now();"
            " state.peer.once('error', (error) => failure([error.type, performance.now() - start]));"
            " state.peer.connect(id, { reliable: true }) })",
            node.peer_id,
        )
        assert failure[0] == "peer-unavailable"
        assert failure[1] / 1000 < BEFORE_THE_SERVER_S
        assert node.workers[0].transport.refused.total() == 1, "counted, with its cause"
    finally:
        await node.stop()
