"""A DHT of 20 nodes on loopback: joining, finding each other, and the sealed record by which B finds A.

Prints the medians and the 95th percentiles that it measured (`-s` shows them).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median, quantiles

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.webtorrent.beacon import SignRecord
from services.webtorrent.dht import Dht
from services.webtorrent.endpoints import parse_endpoint
from services.webtorrent.transport import WebtorrentTransport
from shared.clock import monotonic
from shared.ids import peerjs_id
from shared.settings.config import Config, TrustSettings
from shared.transport.contract import PeerHint
from shared.wire.dhtrecord.record import record_keys, signed_message
from tests.services.webtorrent.swarm_parts import DhtNode, Node, config, write_document

NODES = 20
PEERS_A_NODE = 3
"""Neighbours that each is given: with a single bootstrap node tables stay empty (docs/webtorrent.md)."""
SECRET = bytes(range(32))
SEED_A = b"\x0a" * 32
KEY_A = Ed25519PrivateKey.from_private_bytes(SEED_A).public_key().public_bytes_raw()
ROUNDS = 8

pytestmark = pytest.mark.timeout(300)


def signer(seed: bytes) -> SignRecord:
    async def sign(body: bytes) -> bytes:
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return private.sign(signed_message(private.public_key().public_bytes_raw(), body))

    return sign


@pytest.fixture
def twenty() -> list[DhtNode]:
    nodes = [DhtNode(f"127.0.0.{100 + number}") for number in range(NODES)]
    ports = [node.session.listen_port() for node in nodes]
    for number, node in enumerate(nodes):
        for step in range(1, PEERS_A_NODE + 1):
            other = (number + step) % NODES
            node.session.add_dht_node((nodes[other].host, ports[other]))
    return nodes


def shown(what: str, seconds: list[float]) -> None:
    p95 = quantiles(seconds, n=20)[-1]
    print(f"{what}: median {1000 * median(seconds):.0f} ms, p95 {1000 * p95:.0f} ms, of {len(seconds)}")


class Place:
    """The mesh: its secret in a file, and the DHT's bootstrap nodes in a document. No tracker, no PeerServer."""

    def __init__(self, folder: Path, twenty: list[DhtNode]) -> None:
        secret = folder / "secret"
        secret.write_text(SECRET.hex())
        self.document = write_document(folder / "document.json", dht_nodes=[each.address() for each in twenty[:3]])
        self.trust = TrustSettings(mesh_secret_file=str(secret))

    def node(self, seed: bytes, host: str, *, room: str) -> Node:
        settings = config(self.document, host=host, dht=True, room=room)
        whole = Config(rendezvous=settings.rendezvous, webtorrent=settings.webtorrent, trust=self.trust)
        transport = WebtorrentTransport(whole, sign=signer(seed))
        key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        transport.set_identity(key)
        return Node(transport)


@pytest.fixture
def place(tmp_path: Path, twenty: list[DhtNode]) -> Place:
    return Place(tmp_path, twenty)


async def test_nodes_join_announce_and_find_each_other(place: Place) -> None:
    """All stay until the end: who has gone would be asked, and waited for, by everybody's next lookup."""
    joined: list[float] = []
    found: list[float] = []
    async with AsyncExitStack() as stack:
        for number in range(ROUNDS):
            begun = monotonic()
            hosts = (f"127.0.0.{20 + number}", f"127.0.0.{40 + number}")
            nodes = [place.node(host.encode().ljust(32), host, room=f"room-{number}") for host in hosts]
            for node in nodes:
                stack.push_async_callback(node.stop)
                await node.start()
            await nodes[0].up()
            found.append(monotonic() - begun)
            for node in nodes:
                await node.until(lambda node=node: "dht_join_s" in node.transport.measures())  # type: ignore[misc]
                measures = node.transport.measures()
                assert measures["dht_nodes"] > 0
                joined.append(measures["dht_join_s"])
    shown("joined", joined)
    shown("time to peer, from the start of both", found)


async def test_b_finds_a_by_its_key_and_the_mesh_secret_alone(place: Place) -> None:
    """Rooms differ, so that the record is the only way; dialling it is for the owner of the key alone."""
    a = place.node(SEED_A, "127.0.0.60", room="where A is")
    b = place.node(b"\x0b" * 32, "127.0.0.61", room="where A is")
    async with AsyncExitStack() as stack:
        for node in (a, b):
            stack.push_async_callback(node.stop)
        await a.start()
        await a.until(lambda: a.transport.measures()["dht_records_published"] == 1)
        # B knows of no announce: the record alone leads there.
        await b.start()
        worker = b.transport._worker
        assert worker is not None
        worker._found_by_dht = lambda endpoints: None  # type: ignore[method-assign]
        worker._dht._found = lambda endpoints: None  # type: ignore[union-attr]
        await b.until(lambda: "dht_join_s" in b.transport.measures())
        begun = monotonic()
        hint = PeerHint(KEY_A, peerjs_id(KEY_A))

        async def ask() -> None:
            while True:
                await b.transport.dial(hint, 5.0)
                await asyncio.sleep(0.5)

        asking = asyncio.create_task(ask())
        stack.callback(asking.cancel)
        up = await b.up()
        print(f"B found A by its record in {1000 * (monotonic() - begun):.0f} ms")
        assert up.dialer
        assert up.expected_key == KEY_A


async def test_put_and_get_take_milliseconds(place: Place, twenty: list[DhtNode]) -> None:
    puts, gets = [], []
    answers: dict[bytes, asyncio.Future[bytes]] = {}

    def dht(host: str) -> Dht:
        made = Dht(
            host=host,
            port=0,
            loopback=True,
            infohash=bytes(20),
            wire_port=1,
            found=lambda endpoints: None,
            alone=lambda: True,
            changed=lambda: None,
            clock=monotonic,
        )
        for each in twenty[:3]:
            node = parse_endpoint(each.address())
            assert node is not None
            made.use_node(node)
        return made

    def came(public: bytes, value: bytes) -> None:
        if public in answers and not answers[public].done():
            answers[public].set_result(value)

    putter, getter = dht("127.0.0.70"), dht("127.0.0.71")
    getter.on_item = putter.on_item = came
    running = [asyncio.create_task(each.run()) for each in (putter, getter)]
    async with asyncio.timeout(120.0):
        while not (putter.joined and getter.joined):
            await asyncio.sleep(0.01)
        for number in range(ROUNDS):
            keys = record_keys(SECRET, bytes([number]) * 32)
            begun = time.perf_counter()
            putter.put_item(keys.private, keys.public, b"value %d" % number)
            answers[keys.public] = asyncio.get_running_loop().create_future()
            while not answers[keys.public].done():
                asked = time.perf_counter()
                getter.get_item(keys.public)
                await asyncio.wait({answers[keys.public]}, timeout=0.2)
            gets.append(time.perf_counter() - asked)
            puts.append(time.perf_counter() - begun)
            assert answers[keys.public].result() == b"value %d" % number
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    shown("put until it is found", puts)
    shown("get", gets)
