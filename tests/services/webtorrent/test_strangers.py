"""Peers that are not ours: raw bytes, and libtorrent itself."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from services.webtorrent.limits import MAX_LINKS_PER_ADDRESS
from shared.transport.contract import PeerHint
from tests.services.webtorrent.raw_peer import (
    EXTENSIONS,
    INFOHASH,
    NO_SWARM_SPACE,
    PEER_ID,
    PROTOCOL,
    SWARM_SPACE,
    connect,
    extended,
    handshake,
    raw_peer,
    read_all,
)
from tests.services.webtorrent.swarm_parts import config, lt, running


def frames_in(data: bytes) -> list[bytes]:
    """Messages after the handshake of what our node said."""
    assert data.startswith(PROTOCOL)
    rest, messages = data[68:], []
    while rest:
        length = int.from_bytes(rest[:4], "big")
        messages.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return messages


async def test_a_raw_peer_becomes_a_link_and_exchanges_records() -> None:
    async with running(config()) as (node,), raw_peer(node) as (reader, writer):
        up = await node.up()
        assert not up.dialer
        ours = await reader.readexactly(68)
        assert ours[:28] == PROTOCOL + EXTENSIONS
        assert ours[28:48] == INFOHASH
        assert ours[48:56] == b"-sb0100-"
        assert up.binding == INFOHASH + PEER_ID + ours[48:]
        writer.write(extended(b"from the peer", extended_id=1))
        await node.until(lambda: node.records.get(up.link) == [b"from the peer"])
        await node.transport.send(up.link, b"to the peer")
        head = int.from_bytes(await reader.readexactly(4), "big")
        assert (await reader.readexactly(head)).startswith(b"\x14\x00d1:md11:swarm-spacei1ee1:pi")
        assert await reader.readexactly(4 + 2 + 11) == extended(b"to the peer", extended_id=3)


@pytest.mark.parametrize(
    ("opening", "counted"),
    [
        (handshake(reserved=bytes(8)), "no_extension"),
        (handshake() + NO_SWARM_SPACE, "no_extension"),
        (handshake(infohash=bytes(20)), "refused"),
        (handshake() + b"\xff\xff\xff\xff", "too_large"),
        (handshake() + extended(b"not bencode"), "invalid"),
        (b"\x99" * 700, "refused"),
    ],
)
async def test_who_is_turned_away_is_closed_counted_and_never_sent_a_frame(opening: bytes, counted: str) -> None:
    async with running(config()) as (node,), raw_peer(node, opening) as (reader, _):
        said = await read_all(reader)
        await node.until(lambda: node.transport.refused == {counted: 1})
        assert not node.ups
        assert not node.downs
        assert all(each[:2] == b"\x14\x00" for each in (frames_in(said) if said else []))


async def test_an_encrypted_start_goes_on_in_plaintext() -> None:
    async with running(config()) as (node,), raw_peer(node, b"\x99" * 150) as (reader, writer):
        answer = await reader.readexactly(68)
        assert answer.startswith(PROTOCOL)
        assert answer[28:48] == INFOHASH
        writer.write(handshake() + SWARM_SPACE)
        await node.up()


async def test_the_same_peer_twice_in_one_direction_keeps_the_first() -> None:
    async with running(config()) as (node,), raw_peer(node) as (_, first):
        up = await node.up()
        async with raw_peer(node) as (reader, _):
            await read_all(reader)
        assert node.transport.refused == {"duplicate": 1}
        first.write(extended(b"still here", extended_id=1))
        await node.until(lambda: node.records.get(up.link) == [b"still here"])


async def test_a_dial_to_ourselves_is_dropped_and_not_tried_again() -> None:
    async with running(config(host="0.0.0.0")) as (node,):
        assert node.transport.endpoint is not None
        hint = PeerHint(bytes(32), "peer-0000000000000000", (f"127.0.0.1:{node.transport.endpoint.port}",))
        swarm: Any = node.transport._worker._swarm  # type: ignore[union-attr]
        swarm._allows = lambda host: True
        await node.transport.dial(hint, 1.0)
        await node.until(lambda: any(known.own for known in swarm._known.values()))
        assert not node.ups
        assert not node.transport.refused


async def test_limits_of_one_address() -> None:
    async with running(config()) as (node,), AsyncExitStack() as stack:
        for number in range(MAX_LINKS_PER_ADDRESS):
            await stack.enter_async_context(raw_peer(node, handshake(b"%020d" % number) + SWARM_SPACE))
        await node.up(MAX_LINKS_PER_ADDRESS)
        async with raw_peer(node, handshake(b"%020d" % 99) + SWARM_SPACE) as (reader, _):
            assert await read_all(reader) == b""
        assert node.transport.refused == {"links_of_address": 1}
    # ...and a link that ends makes room.
    async with running(config()) as (node,):
        for _ in range(MAX_LINKS_PER_ADDRESS + 2):
            async with raw_peer(node):
                await node.up(len(node.downs) + 1)
            downs = len(node.downs) + 1
            await node.until(lambda wanted=downs: len(node.downs) == wanted)  # type: ignore[misc]
        assert not node.transport.refused


async def test_a_peer_may_send_byte_by_byte() -> None:
    async with running(config()) as (node,):
        _, writer = await connect(node)
        for byte in handshake() + SWARM_SPACE + extended(b"slow", extended_id=1):
            writer.write(bytes((byte,)))
            await writer.drain()
        up = await node.up()
        await node.until(lambda: node.records.get(up.link) == [b"slow"])
        writer.transport.abort()


def torrent_peer(folder: Path, infohash: bytes) -> tuple[Any, Any]:
    """A libtorrent session that wants a torrent with this infohash."""
    session: Any = lt.session(
        {
            "listen_interfaces": "127.0.0.5:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "allow_multiple_connections_per_ip": True,
            "min_reconnect_time": 1,
            "alert_mask": lt.alert.category_t.peer_notification | lt.alert.category_t.connect_notification,
        }
    )
    params: Any = lt.add_torrent_params()
    params.info_hashes = lt.info_hash_t(lt.sha1_hash(infohash))
    params.save_path = str(folder)
    return session, session.add_torrent(params)


async def test_libtorrent_gets_through_both_handshakes_and_is_refused_without_a_frame(tmp_path: Path) -> None:
    """libtorrent disconnects from a peer that sends an extended message that it did not name (docs/webtorrent.md)."""
    async with running(config()) as (node,):
        assert node.transport.endpoint is not None
        session, torrent = torrent_peer(tmp_path, INFOHASH)
        try:
            torrent.connect_peer(tuple(node.transport.endpoint))
            await node.until(lambda: node.transport.refused["no_extension"] >= 1)
            assert not node.ups
        finally:
            held = [session, torrent]
            del session, torrent
            await asyncio.to_thread(held.clear)


async def test_we_dial_libtorrent_and_leave_it_alone(tmp_path: Path) -> None:
    async with running(config()) as (node,):
        session, torrent = torrent_peer(tmp_path, INFOHASH)
        try:
            port = await asyncio.to_thread(session.listen_port)
            await node.transport.dial(PeerHint(bytes(32), "peer-0000000000000000", (f"127.0.0.5:{port}",)), 5.0)
            await node.until(lambda: node.transport.refused["no_extension"] == 1)
            assert not node.ups
        finally:
            held = [session, torrent]
            del session, torrent
            await asyncio.to_thread(held.clear)


async def test_links_work_under_uvloop() -> None:
    """The loop of the real process: another implementation of every socket call."""

    def both() -> None:
        import uvloop

        uvloop.run(_link_and_bulk())

    await asyncio.to_thread(both)


async def _link_and_bulk() -> None:
    async with running(config(), config()) as (first, second):
        await first.transport.dial(second.hint(), 5.0)
        up, other = await first.up(), await second.up()
        record = bytes(65_535)
        for _ in range(256):
            await first.transport.send(up.link, record)
        await second.until(lambda: len(second.records.get(other.link, [])) == 256)
