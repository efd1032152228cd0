"""The suite against webtorrent: our wire over TCP, the remote peer known by its endpoint alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.webtorrent.transport import WebtorrentTransport
from shared.ids import peerjs_id
from shared.settings.config import Config, WebtorrentSettings
from shared.transport.contract import PeerHint
from tests.conformance.suite import CHECKS, Check, End, Pair
from tests.fakes.ports import free_port

HOST = "127.0.0.1"


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    near, far = (_end(bytes([number]) * 32, free_port(HOST)) for number in (1, 2))
    await near.start()
    await far.start()
    yield Pair(near, far)
    await near.stop()
    await far.stop()


def _end(key: bytes, port: int) -> End:
    settings = WebtorrentSettings(host=HOST, port=port, dht=False, trackers=False)
    transport = WebtorrentTransport(Config(webtorrent=settings))
    transport.set_identity(key)
    return End(transport, PeerHint(key, peerjs_id(key), (f"{HOST}:{port}",)))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_webtorrent(pair: Pair, check: Check) -> None:
    await check(pair)
