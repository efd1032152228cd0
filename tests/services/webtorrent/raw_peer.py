"""A peer made of bytes: nothing of our own machine in it, except the constants of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from services.webtorrent.swarm import control_infohash
from tests.services.webtorrent.swarm_parts import Node

PROTOCOL = b"\x13BitTorrent protocol"
EXTENSIONS = bytes.fromhex("0000000000100000")
INFOHASH = control_infohash("public")
PEER_ID = b"-XX0001-abcdefghijkl"


def handshake(peer_id: bytes = PEER_ID, reserved: bytes = EXTENSIONS, infohash: bytes = INFOHASH) -> bytes:
    return PROTOCOL + reserved + infohash + peer_id


def extended(body: bytes, extended_id: int = 0) -> bytes:
    return (len(body) + 2).to_bytes(4, "big") + bytes((20, extended_id)) + body


SWARM_SPACE = extended(b"d1:md11:swarm-spacei3eee")
NO_SWARM_SPACE = extended(b"d1:md6:ut_pexi1eee")


async def connect(node: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    endpoint = node.transport.endpoint
    assert endpoint is not None
    return await asyncio.open_connection(endpoint.host, endpoint.port)


async def connect_from(node: Node, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As another host would: from another address of loopback."""
    endpoint = node.transport.endpoint
    assert endpoint is not None
    return await asyncio.open_connection(endpoint.host, endpoint.port, local_addr=(address, 0))


@asynccontextmanager
async def raw_peer(
    node: Node, opening: bytes = handshake() + SWARM_SPACE
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await connect(node)
    writer.write(opening)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Everything until the remote peer closes."""
    data = b""
    with suppress(ConnectionError):
        while more := await asyncio.wait_for(reader.read(65536), 10.0):
            data += more
    return data
