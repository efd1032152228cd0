"""What the chunk service vouches for on the bus."""

from __future__ import annotations

import os

import pytest

from shared.bus.messages.envelopes import Certificate, Certify, PeerjsToken, PeerjsTokenRequest
from shared.clock import unix_ms
from shared.content.keys import peerjs_token
from shared.errors import Cause, RemoteFailure
from shared.ids import token_key
from shared.wire.sealed.certificate import verify_dates, verify_signature
from tests.services.chunk.conftest import World
from tests.services.chunk.nodes import BUS_TIMEOUT_S, SUBJECTS


async def test_a_workers_link_key_is_certified_by_the_nodes_identity(world: World) -> None:
    a = await world.chunk_a()
    bus, static_key = world.hub_a.bus("webrtc-1"), os.urandom(32)
    certificate = await bus.request(SUBJECTS.certify, Certify(static_key), Certificate, BUS_TIMEOUT_S)
    assert certificate.identity_key == token_key(a.token)
    verify_signature(certificate, static_key)
    verify_dates(certificate, unix_ms() / 1000)
    with pytest.raises(RemoteFailure) as raised:
        await bus.request(SUBJECTS.certify, Certify(b"short"), Certificate, BUS_TIMEOUT_S)
    assert raised.value.cause is Cause.INVALID


async def test_each_peerserver_gets_its_own_token(world: World) -> None:
    await world.chunk_a()
    bus = world.hub_a.bus("webrtc-1")
    root = (world.home_a / "root.key").read_bytes()
    for server in ("http://127.0.0.1:9000/", "http://127.0.0.1:9001/"):
        asked = await bus.request(SUBJECTS.peerjs_token, PeerjsTokenRequest(server), PeerjsToken, BUS_TIMEOUT_S)
        assert asked.token == peerjs_token(root, server)
    with pytest.raises(RemoteFailure):
        await bus.request(SUBJECTS.peerjs_token, PeerjsTokenRequest("nonsense"), PeerjsToken, BUS_TIMEOUT_S)
