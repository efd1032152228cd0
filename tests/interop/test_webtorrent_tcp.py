"""The unmodified `webtorrent` client of npm in Node over TCP: with the extension it is a guest, without it nobody."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from services.webtorrent.endpoints import Endpoint
from services.webtorrent.swarm import Source
from shared.bus import bodies
from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.content.messages import ChunkData, NotFound, RequestChunk, RequestManifest
from shared.ids import PeerToken, guest_token
from shared.transports import TransportName
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.interop.torrents import counts_until, do, endpoint, node_torrent, refused, worker
from tests.services.webtorrent.swarm_parts import config, tracker_server, write_document

pytestmark = pytest.mark.timeout(300)
SIZES = (100, 16_384, 65_536, 1_048_592, 4 * 2**20)
"""Bytes of a chunk: one frame, its edges, a whole chunk of swarm-space's with its tag, the most that is allowed."""


def ref(number: int) -> str:
    return f"chunk-{number:064x}"


def bytes_of(length: int) -> bytes:
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def send(node: WorkerNode, peer: PeerToken, request_id: bytes, request: Any) -> Accepted:
    subject = node.subjects.link(TransportName.WEBTORRENT, peer)
    call = SendRequest(request_id, node.caller.instance, 1, request)
    return await node.caller.request(subject, call, Accepted, timeout_s=10.0)


async def guest_of(node: WorkerNode, torrent: Any) -> PeerToken:
    return guest_token("bt-" + await do(torrent, "peerId"))


async def test_a_guest_asks_and_serves_chunks_of_every_size(tmp_path: Path) -> None:
    async with worker() as node, node_torrent(tmp_path, peers=[endpoint(node)]) as torrent:
        await counts_until(torrent, lambda counts: counts["open"] == 1)
        peer = await guest_of(node, torrent)
        for number, length in enumerate(SIZES):
            node.bodies[ref(number)] = bytes_of(length)
            chunk = await do(torrent, "requestChunk", ref(number), 30_000)
            assert (chunk["length"], chunk["digest"]) == (length, digest(bytes_of(length)))
            assert chunk["ref"] == ref(number)
            await do(torrent, "hold", ref(100 + number), length)
            accepted = await send(node, peer, bytes([number]) * 16, RequestChunk(ref(100 + number)))
            assert (accepted.acks, accepted.confirms) == (True, True)
            await until(lambda count=number + 1: len(node.answers) == count, 30.0)  # type: ignore[misc]
            answer = node.answers[-1]
            assert isinstance(answer.answer, ChunkData)
            assert answer.body is not None
            assert await bodies.pull(node.puller, node.subjects, answer.body, timeout_s=10.0) == bytes_of(length)
        assert await do(torrent, "requestChunk", ref(999), 30_000) is None
        assert {(call.stamp.role, call.stamp.peer) for call in node.asked} == {("guest", peer)}
        counts = await do(torrent, "counts")
        assert counts["errors"] == []
        assert counts["types"] == ["tcpOutgoing"], "one wire, though it began encrypted"


async def test_on_tcp_nothing_but_chunks_leaves(tmp_path: Path) -> None:
    async with worker() as node, node_torrent(tmp_path, peers=[endpoint(node)]) as torrent:
        await counts_until(torrent, lambda counts: counts["open"] == 1)
        node.bodies["m" * 64] = b'{"fileId":"m"}'
        assert await do(torrent, "requestManifest", "m" * 64, 30_000) is None
        assert node.asked == [], "the chunk service is not even asked"
        await do(torrent, "holdManifest", "n" * 64, "{}")
        await do(torrent, "announce", ["n" * 64])
        await send(node, await guest_of(node, torrent), b"i" * 16, RequestManifest("n" * 64))
        await until(lambda: node.answers, 10.0)
        assert node.answers[0].answer == NotFound("n" * 64)
        assert node.announced == []


async def test_we_dial_a_guest_and_it_answers(tmp_path: Path) -> None:
    async with worker() as node, node_torrent(tmp_path) as torrent:
        port = await do(torrent, "port")
        transport = node.transport  # type: ignore[attr-defined]
        swarm, now = transport._worker._swarm, transport._worker._clock()
        swarm.learn([Endpoint("127.0.0.1", port)], Source.DHT, now)
        transport._worker._dial_wake.set()
        await counts_until(torrent, lambda counts: counts["open"] == 1)
        node.bodies[ref(1)] = bytes_of(70_000)
        assert (await do(torrent, "requestChunk", ref(1), 30_000))["digest"] == digest(bytes_of(70_000))
        assert (await do(torrent, "counts"))["types"] == ["tcpIncoming"]


async def test_a_plain_client_gets_no_frame_and_stops_dialling(tmp_path: Path) -> None:
    """webtorrent dials again after 1, 5 and 15 s without a handshake, and then no more."""
    async with AsyncExitStack() as stack:
        tracker = await stack.enter_async_context(tracker_server())  # where nobody else is: the worker is ready
        document = write_document(tmp_path / "document.json", trackers=[tracker.url])
        node = await stack.enter_async_context(worker(settings=config(document, trackers=True)))
        torrent = await stack.enter_async_context(node_torrent(tmp_path, peers=[endpoint(node)], plain=True))
        await until(lambda: refused(node).get("refused", 0) == 3, 60.0)
        counts = await do(torrent, "counts")
        assert counts["wires"] == counts["closed"] == 1, "one handshake, of the first dial"
        assert counts["frames"] == []
        assert refused(node) == {"no_extension": 1, "refused": 3}
        await asyncio.sleep(16.0)  # longer than its longest pause: nothing is left to wait for
        assert refused(node) == {"no_extension": 1, "refused": 3}
        assert node.status is not None
        assert (node.status.state, node.status.last_error) == ("ready", None)
        assert node.status.peers == []
