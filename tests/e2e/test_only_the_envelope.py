"""What moves through two nodes is kept in their chunk stores and nowhere else: a marker is in every byte of it.

A chunk's cipher is the marker over and over (its plaintext is chosen so), and another file's plaintext is. So any 64
bytes of either that anybody keeps are found, as bytes or as text. What a seal has made of them cannot be found by
its bytes; it would show in the size of what is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from services.chunk.store import ChunkStore
from services.supervisor.machine.home_secrets import ensure_identity
from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.pair import Pair
from shared.bus.messages.subjects import Subjects
from shared.bus.nats.connection import ConnectionOptions, NatsConnection
from shared.bus.serving import BusCounts
from shared.clock import unix_ms
from shared.content.chunks import encrypt_chunk
from shared.content.keys import publish_seed
from shared.content.link import ContentLink, format_link
from shared.content.manifest import (
    CHUNK_BYTES,
    IV_BYTES,
    KEY_BYTES,
    ContentClass,
    Manifest,
    ManifestDraft,
    new_file_id,
    sign_manifest,
)
from shared.gateway_api.async_client import AsyncGatewayClient
from shared.gateway_api.structs import Transfer
from shared.process.root_key import load_or_create_root
from shared.transports import ORDER
from tests.e2e.leftovers import processes_of
from tests.e2e.remains import MARKER_BYTES, SHARED_MEMORY, files_with, forms_of, memory_with, size_bytes

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

CHUNKS = 6
CIPHER_MARKER, PLAIN_MARKER = os.urandom(MARKER_BYTES), os.urandom(MARKER_BYTES)
PLAIN = PLAIN_MARKER * (CHUNKS * CHUNK_BYTES // MARKER_BYTES)
CIPHER_NEEDLES, PLAIN_NEEDLES = forms_of(CIPHER_MARKER), forms_of(PLAIN_MARKER)
NEEDLES = [*CIPHER_NEEDLES, *PLAIN_NEEDLES]
TRANSPORTS = [name.value for name in ORDER]
FLAGS = {"webrtc": "webrtcTransport", "webtorrent": "webTorrentTransport", "broadcast": "broadcastTransport"}
DEADLINE_S = 60.0
POLL_S = 0.05


@dataclass
class Stage:
    """folder: everything that the nodes may write to, temporary files too. links: of what A has, by transport."""

    pair: Pair
    folder: Path
    links: dict[str, list[str]]

    @property
    def stores(self) -> list[Path]:
        return [node.plan.config.home / "store" for node in (self.pair.a, self.pair.b)]

    @property
    def places(self) -> list[Path]:
        return [self.folder, SHARED_MEMORY]

    def kept_bytes(self) -> int:
        return size_bytes([self.folder], processes_of(self.folder), without=self.stores)

    def found(self) -> list[str]:
        """Where a marker is outside the chunk stores."""
        inside = tuple(self.stores)
        files = [
            str(path)
            for path in files_with(self.places, NEEDLES)
            if not any(path.is_relative_to(store) for store in inside)
        ]
        return [*files, *memory_with(processes_of(self.folder), NEEDLES)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder, outside = tmp_path_factory.mktemp("nodes"), tmp_path_factory.mktemp("outside")
    (folder / "tmp").mkdir()
    pair = Pair(folder / "pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder / "tmp"))
        try:
            made = await stored_before_it_starts(folder / "pair" / "node-a")
            await pair.start(find_binary())
            source = outside / "plain.bin"
            links = {name: [made[name], await put(pair.a.api, source, name)] for name in TRANSPORTS}
            yield Stage(pair, folder, links)
        finally:
            await pair.clear()


async def stored_before_it_starts(home: Path) -> dict[str, str]:
    """A file for each transport in the chunk store of a node that has never run. Returns: their links."""
    holder = ensure_identity(home)
    store = ChunkStore.open("", home / "store")
    seed = publish_seed(load_or_create_root(home))
    links = {}
    for name in TRANSPORTS:
        manifest = await marked(store, seed, name)
        links[name] = format_link(ContentLink(manifest.digest, (holder,)))
    return links


async def marked(store: ChunkStore, seed: bytes, name: str) -> Manifest:
    """Store a file whose ciphers are the marker over and over. Returns: its manifest."""
    key, refs, ivs = os.urandom(KEY_BYTES), [], []
    cipher_wanted = CIPHER_MARKER * (CHUNK_BYTES // MARKER_BYTES)
    for seq in range(CHUNKS):
        iv = os.urandom(IV_BYTES)
        made = {"key": key, "iv": iv}
        about = {"seq": seq, "total": CHUNKS, "mime": "application/octet-stream", "original_name": name}
        # AES-GCM is a counter mode: what nothing is made into is what everything is XORed with.
        _, stream = encrypt_chunk(bytes(CHUNK_BYTES), **made, **about)  # type: ignore[arg-type]
        plain = _xor(stream[:CHUNK_BYTES], cipher_wanted)
        header, cipher = encrypt_chunk(plain, **made, **about)  # type: ignore[arg-type]
        assert cipher[:CHUNK_BYTES] == cipher_wanted
        await store.put_chunk(header, cipher)
        refs.append(header.ref)
        ivs.append(iv)
    now_ms = unix_ms()
    file_id = new_file_id(now_ms, os.urandom(8))
    draft = ManifestDraft(
        file_id, refs, ivs, CHUNKS * CHUNK_BYTES, "application/octet-stream", name, key, ContentClass.SHARED, now_ms
    )
    manifest = sign_manifest(draft, seed, now_ms)
    await store.put_manifest(manifest)
    return manifest


async def put(api: AsyncGatewayClient, source: Path, name: str) -> str:
    """Have a node store a file whose plaintext is the marker over and over. Returns: its link."""
    await asyncio.to_thread(source.write_bytes, PLAIN)
    link = (await ended(api, await api.put(source, f"{name}.bin"))).link
    assert link
    return link


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_after_a_transfer_a_marker_is_in_the_chunk_stores_alone(stage: Stage, transport: str) -> None:
    for node in (stage.pair.a, stage.pair.b):
        for name in TRANSPORTS:
            await node.api.set_flag(FLAGS[name], name == transport)
    workers = {worker.pid for node in (stage.pair.a, stage.pair.b) for worker in node.processes(transport)}
    assert workers <= set(processes_of(stage.folder)), "the search looks at them"
    before = stage.kept_bytes()
    api, stored = stage.pair.b.api, len(files_with([stage.stores[1]], CIPHER_NEEDLES))
    sums = []
    for link in stage.links[transport]:
        transfer = await api.fetch(link)
        done = await ended(api, transfer)
        hops = await api.hops(transfer, 1000)
        assert {hop.transport for hop in hops if hop.outcome == "confirmed"} == {transport}
        assert done.manifest
        sums.append(await api.content_sha256(done.manifest))  # opened, and read through the gateway
    assert sums[1] == hashlib.sha256(PLAIN).hexdigest()
    assert len(files_with([stage.stores[1]], CIPHER_NEEDLES)) == stored + CHUNKS, "it is where it must be"
    assert files_with(stage.stores, PLAIN_NEEDLES) == [], "what is stored is encrypted"
    grown = stage.kept_bytes() - before
    print(f"{transport}: {grown} bytes of {2 * CHUNKS * CHUNK_BYTES} more are kept outside the stores")
    assert grown < CHUNK_BYTES
    assert stage.found() == []


async def test_the_search_would_find_it_in_the_jetstream_store_and_in_logs(stage: Stage) -> None:
    """Last: put where it must not be, by hand."""
    pair = stage.pair
    url, seed_file = pair.admin["a"]
    connection = NatsConnection(
        ConnectionOptions(url, "admin-envelope", seed_file.read_text().strip(), service="admin"), BusCounts()
    )
    await connection.open()
    await connection.publish(Subjects("a").hop("marker"), CIPHER_MARKER)
    async with asyncio.timeout(DEADLINE_S):
        while not [path for path in stage.found() if "/nats/store/" in path]:
            await asyncio.sleep(POLL_S)
    await connection.close()
    log = pair.a.plan.config.home / "logs" / "webtorrent.log"
    with log.open("ab") as file:
        file.write(PLAIN_NEEDLES[2])
    assert str(log) in stage.found()


async def test_the_search_would_find_it_in_memory_that_is_a_file(tmp_path: Path) -> None:
    ours = [os.getpid()]
    assert memory_with(ours, NEEDLES) == []
    kept = bytes(3 * mmap.PAGESIZE) + CIPHER_MARKER * 4
    with tempfile.TemporaryFile(dir=tmp_path) as unnamed:
        unnamed.write(kept)
        unnamed.flush()
        (in_file,) = memory_with(ours, NEEDLES)
        assert "(deleted)" in in_file
        assert size_bytes([tmp_path], ours, without=[]) >= len(kept)
    memory = os.memfd_create("marked")
    os.write(memory, kept)
    (in_memory,) = memory_with(ours, NEEDLES)
    assert "/memfd:marked" in in_memory
    with mmap.mmap(memory, len(kept)) as mapped:
        os.close(memory)
        # Once as a mapping, once as the descriptor that Python keeps of it.
        assert memory_with(ours, NEEDLES) == [in_memory, in_memory]
        assert mapped[-MARKER_BYTES:] == CIPHER_MARKER
    assert memory_with(ours, NEEDLES) == []


async def ended(api: AsyncGatewayClient, transfer: str) -> Transfer:
    async with asyncio.timeout(DEADLINE_S):
        while (now := await api.transfer(transfer)).state == "running":
            await asyncio.sleep(POLL_S)
    assert now.state == "done", now.cause
    return now


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))
