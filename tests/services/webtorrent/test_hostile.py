"""Hostile wires: what each is closed for."""

from __future__ import annotations

import pytest

from shared.wire.peerwire.wire import USELESS_BURST
from tests.services.webtorrent.raw_peer import extended, handshake, raw_peer, read_all
from tests.services.webtorrent.swarm_parts import config, running

REQUEST = (13).to_bytes(4, "big") + b"\x06" + bytes(12)


async def test_requests_for_pieces_are_ignored_and_a_flood_of_them_ends_the_wire() -> None:
    async with running(config()) as (node,), raw_peer(node) as (reader, writer):
        up = await node.up()
        writer.write(REQUEST * 500 + extended(b"still heard", extended_id=1))
        await node.until(lambda: node.records.get(up.link) == [b"still heard"])
        writer.write(REQUEST * int(USELESS_BURST))
        said = await read_all(reader)
        await node.until(lambda: len(node.downs) == 1)
        assert node.downs[0].cause.value == "rate_limited"
        assert b"\x07" * 9 not in said, "no piece was ever sent"


@pytest.mark.parametrize(
    ("bomb", "counted"),
    [
        (b"l" * 4_000 + b"e" * 4_000, "invalid"),
        (b"d1:m" + b"l" * 2_000, "invalid"),
        (b"d1:md11:swarm-spacei" + b"9" * 4_000 + b"eee", "invalid"),
        (b"d1:m" + b"d1:a" * 9 + b"e" * 11, "invalid"),
        (b"d1:v9999999999:x", "invalid"),
        (b"d1:v8200:" + b"x" * 8_200 + b"e", "too_large"),
    ],
)
async def test_bencode_bombs(bomb: bytes, counted: str) -> None:
    async with running(config()) as (node,), raw_peer(node, handshake() + extended(bomb)) as (reader, _):
        await read_all(reader)
        await node.until(lambda: node.transport.refused == {counted: 1})
        assert not node.ups
