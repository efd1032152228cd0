"""The store checks what it reads; the index knows whose a fileId is and who may have a ref."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import obstore
import pytest

from services.chunk.holdings import Holdings
from services.chunk.index import FileSummary, ManifestIndex
from services.chunk.quota import STORED_OVERHEAD_BYTES, Quota
from services.chunk.store import ChunkStore
from shared.bus.contract import KvEntry
from shared.content.chunks import encrypt_chunk
from shared.content.keys import public_key
from shared.content.manifest import ContentClass, Manifest, ManifestDraft, sign_manifest
from shared.content.messages import ChunkData
from shared.errors import Cause, ConfigError, SwarmbridgeError
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until

KEY, SEED, OTHER_SEED = bytes(32), b"s" * 32, b"o" * 32


def make_chunk(plain: bytes = b"plain") -> tuple[ChunkData, bytes]:
    return encrypt_chunk(plain, key=KEY, iv=os.urandom(12), seq=0, total=1, mime="a/b", original_name="n")


def make_manifest(
    chunk: ChunkData,
    seed: bytes = SEED,
    content_class: ContentClass = ContentClass.SHARED,
    file_id: str = "file-1-abc",
    signed_ms: int = 0,
) -> Manifest:
    draft = ManifestDraft(file_id, [chunk.ref], [chunk.iv], chunk.size, "a/b", "n", KEY, content_class, 0)
    return sign_manifest(draft, seed, signed_ms)


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore.open(str(tmp_path / "store"), tmp_path)


@asynccontextmanager
async def running_index(hub: MemoryHub, store: ChunkStore, name: str = "chunk-1") -> AsyncIterator[ManifestIndex]:
    index = ManifestIndex(await hub.bus(name).kv("manifests"), store, public_key(SEED))
    task = asyncio.create_task(index.run())
    await index.start()
    try:
        yield index
    finally:
        await index.close()
        task.cancel()
        await asyncio.wait([task])


async def test_chunks_come_back_as_they_were_put(store: ChunkStore) -> None:
    header, cipher = make_chunk()
    assert await store.get_chunk(header.ref) is None
    await store.put_chunk(header, memoryview(cipher))
    got = await store.get_chunk(header.ref)
    assert got is not None
    assert (got[0], bytes(got[1])) == (header, cipher)
    assert store.holdings.among([header.ref, "chunk-" + "0" * 64]) == {header.ref}
    await store.delete_chunks([header.ref, header.ref])
    assert await store.get_chunk(header.ref) is None
    assert store.holdings.used_bytes == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"\xff" * len(data),
        lambda data: data.replace(b"a/b", b"a/\xff"),
    ],
)
async def test_a_damaged_chunk_is_as_good_as_absent_and_goes(store: ChunkStore, tmp_path: Path, damage: object) -> None:
    header, cipher = make_chunk()
    await store.put_chunk(header, cipher)
    [path] = [path for path in (tmp_path / "store" / "c").rglob("*") if path.is_file()]
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    assert await store.get_chunk(header.ref) is None
    assert not path.exists()


async def test_a_damaged_manifest_is_as_good_as_absent(store: ChunkStore, tmp_path: Path) -> None:
    manifest = make_manifest(make_chunk()[0])
    await store.put_manifest(manifest)
    assert await store.get_manifest(manifest.digest) == manifest
    assert list((await store.list_all()).manifests) == [manifest.digest]
    assert await store.manifest_stored_ms(manifest.digest) > 0
    (tmp_path / "store" / "m" / manifest.digest).write_bytes(manifest.canonical + b" ")
    assert await store.get_manifest(manifest.digest) == manifest  # the same JSON
    (tmp_path / "store" / "m" / manifest.digest).write_bytes(manifest.canonical.replace(b"a/b", b"a/c"))
    assert await store.get_manifest(manifest.digest) is None


def test_a_store_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for location in (str(tmp_path / "file" / "x"), "nonsense://x"):
        with pytest.raises(ConfigError):
            ChunkStore.open(location, tmp_path)


async def test_two_signers_of_one_file_id_are_an_error_and_one_may_write_again(store: ChunkStore) -> None:
    header, _ = make_chunk()
    async with running_index(MemoryHub(), store) as index:
        mine, newer = make_manifest(header), make_manifest(header, signed_ms=5)
        await index.add(mine, complete=True, stored_ms=1)
        with pytest.raises(SwarmbridgeError) as raised:
            await index.add(make_manifest(header, OTHER_SEED), complete=True, stored_ms=2)
        assert raised.value.cause is Cause.REFUSED
        await index.add(newer, complete=False, stored_ms=3)
        await until(lambda: [file.digest for file in index.files()] == [newer.digest, mine.digest])
        found = await index.find("file-1-abc")
        assert found is not None
        assert found.digest == newer.digest
        assert await index.find("file-2") is None


CLASSES = [ContentClass.SHARED, ContentClass.MESH, ContentClass.PRIVATE]


@pytest.mark.parametrize("strangers", CLASSES)
@pytest.mark.parametrize("ours", CLASSES)
async def test_a_strangers_manifest_neither_opens_nor_closes_our_refs(
    store: ChunkStore, ours: ContentClass, strangers: ContentClass
) -> None:
    header, _ = make_chunk()
    async with running_index(MemoryHub(), store) as index:
        assert await index.class_of(header.ref) is None
        stranger = make_manifest(header, OTHER_SEED, strangers, "file-2")
        await index.add(stranger, complete=True, stored_ms=1)
        assert await index.class_of(header.ref) is strangers
        mine = make_manifest(header, content_class=ours)
        await index.add(mine, complete=True, stored_ms=2)
        assert await index.class_of(header.ref) is ours
        # Of two strangers the first decides, whatever the second says.
        third = make_manifest(header, b"t" * 32, ours, "file-3")
        await index.add(third, complete=True, stored_ms=3)
        found = index.known(mine.digest)
        assert found is not None
        assert await index.remove(found) == []
        assert await index.class_of(header.ref) is strangers


async def test_what_a_manifest_said_is_unlearnt_when_it_goes(store: ChunkStore) -> None:
    hub = MemoryHub()
    header, cipher = make_chunk()
    async with running_index(hub, store) as first, running_index(hub, store, "chunk-2") as second:
        manifest = make_manifest(header)
        await store.put_chunk(header, cipher)
        await store.put_manifest(manifest)
        await first.add(manifest, complete=True, stored_ms=1)
        await until(lambda: second.is_named(header.ref))
        found = first.known("file-1-abc")
        assert found is not None
        assert await first.remove(found) == [header.ref]
        await until(lambda: not second.is_named(header.ref))
        assert await first.class_of(header.ref) is await second.class_of(header.ref) is None
        assert await first.find("file-1-abc") is await second.find("file-1-abc") is None


async def test_a_bus_that_is_away_for_a_while_does_not_end_an_add(store: ChunkStore) -> None:
    hub = MemoryHub()
    async with running_index(hub, store) as index:
        hub.disconnect("chunk-1")
        manifest = make_manifest(make_chunk()[0])
        adding = asyncio.create_task(index.add(manifest, complete=True, stored_ms=1))
        assert await index.find("file-1-abc") is None  # not known, and no error
        hub.reconnect("chunk-1")
        await adding
        assert index.known("file-1-abc") is not None


async def test_another_instance_learns_classes_by_itself(store: ChunkStore) -> None:
    hub = MemoryHub()
    header, _ = make_chunk()
    async with running_index(hub, store) as first, running_index(hub, store, "chunk-2") as second:
        manifest = make_manifest(header)
        await store.put_manifest(manifest)
        await first.add(manifest, complete=True, stored_ms=1)
        await until(lambda: second.files())
        assert await second.class_of(header.ref) is ContentClass.SHARED


async def test_what_another_instance_completes_is_here_too(store: ChunkStore, tmp_path: Path) -> None:
    hub, header = MemoryHub(), make_chunk()[0]
    manifest, beside = make_manifest(header), ChunkStore.open(str(tmp_path / "store"), tmp_path)
    async with running_index(hub, store) as one, running_index(hub, beside, "chunk-2") as two:
        await store.put_manifest(manifest)
        await one.add(manifest, complete=False, stored_ms=1)
        await until(lambda: two.is_loaded(manifest.digest))
        assert header.ref not in beside.holdings
        await one.add(manifest, complete=True, stored_ms=1)
        await until(lambda: header.ref in beside.holdings)


async def test_our_user_hears_of_a_completed_file_before_the_watch_does(store: ChunkStore, tmp_path: Path) -> None:
    hub, header = MemoryHub(), make_chunk()[0]
    manifest, beside = make_manifest(header), ChunkStore.open(str(tmp_path / "store"), tmp_path)
    async with running_index(hub, store) as one, running_index(hub, beside, "chunk-2") as two:
        await store.put_manifest(manifest)
        await one.add(manifest, complete=False, stored_ms=1)
        await until(lambda: two.is_loaded(manifest.digest))
        await two.close()  # a watch that lags
        await one.add(manifest, complete=True, stored_ms=1)
        found = await two.find(manifest.digest)
        assert found is not None
        assert found.complete


async def test_entries_that_do_not_decode_are_left_out(store: ChunkStore) -> None:
    hub = MemoryHub()
    bucket = await hub.bus("other").kv("manifests")
    await bucket.put("m." + "a" * 64, b"\xff")
    async with running_index(hub, store) as index:
        assert index.files() == []
        header, _ = make_chunk()
        manifest = make_manifest(header)
        await index.add(manifest, complete=True, stored_ms=1)
        await bucket.delete(f"m.{manifest.digest}")
        await until(lambda: not index.files())


async def test_promised_room_counts_until_it_is_given_back(store: ChunkStore) -> None:
    quota = Quota(store.holdings, 100_000)
    async with quota.room_for(60_000):
        with pytest.raises(SwarmbridgeError) as raised:
            async with quota.room_for(60_000):
                pass
        assert raised.value.cause is Cause.STORE_FULL
    async with quota.room_for(60_000):
        pass


async def test_a_promise_shrinks_as_its_chunks_are_stored(store: ChunkStore) -> None:
    quota = Quota(store.holdings, 10_000)
    async with quota.room_for(5_000) as room:
        before = quota.promised_bytes
        store.holdings.add("chunk", 5_016)
        room.stored(5_000)
        assert (quota.used_bytes, quota.promised_bytes) == (5_016, 0)
        assert before == 5_000 + STORED_OVERHEAD_BYTES
        async with quota.room_for(10_000 - 5_016 - STORED_OVERHEAD_BYTES):
            pass


async def test_the_counter_and_the_index_are_what_a_listing_says(store: ChunkStore, tmp_path: Path) -> None:
    chunks = [make_chunk(os.urandom(100)) for _ in range(5)]
    for header, cipher in chunks:
        await store.put_chunk(header, cipher)
    manifest = make_manifest(chunks[0][0])
    await store.put_manifest(manifest)
    other = ChunkStore.open(str(tmp_path / "store"), tmp_path)
    assert other.holdings.used_bytes == 0
    listing = await other.list_all()
    assert listing.chunks.keys() == {header.ref for header, _ in chunks}
    assert other.holdings.used_bytes == store.holdings.used_bytes
    assert other.holdings.among([manifest.digest, chunks[1][0].ref, "x"]) == {manifest.digest, chunks[1][0].ref}
    await other.delete_chunks([header.ref for header, _ in chunks[1:]])
    await store.list_all()
    assert len(store.holdings) == len(other.holdings) == 2
    # One that vanished behind our back is unlearnt by whoever reads it.
    await other.delete_chunks([chunks[0][0].ref])
    assert await store.get_chunk(chunks[0][0].ref) is None
    assert chunks[0][0].ref not in store.holdings


def test_what_changes_while_a_listing_runs_survives_it() -> None:
    holdings = Holdings()
    holdings.add("kept", 1)
    holdings.add("gone", 2)
    holdings.listing_begins()
    holdings.add("new", 4)
    holdings.remove("gone")
    holdings.listed({"kept": 1, "gone": 2, "theirs": 8})
    assert holdings.among(["kept", "gone", "new", "theirs"]) == {"kept", "new", "theirs"}
    assert holdings.used_bytes == 13
    holdings.expect("theirs", 100)
    holdings.expect("more", 100)
    assert (holdings.used_bytes, holdings.size("theirs"), holdings.size("gone")) == (113, 8, 0)


async def test_listings_are_shared_by_those_that_wait(store: ChunkStore, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[object] = []
    real = obstore.list

    def count(*args: Any, **options: Any) -> Any:
        listed.append(args)
        return real(*args, **options)

    monkeypatch.setattr(obstore, "list", count)
    await asyncio.gather(*(store.list_all() for _ in range(50)))
    assert len(listed) <= 2 * 3  # one that ran, and one for all who came meanwhile; three folders each


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small disk")
async def test_a_full_disk_has_its_own_cause(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk))
    if await mount.wait():
        pytest.skip("no right to mount")
    try:
        store = ChunkStore.open(str(disk / "store"), tmp_path)
        header, cipher = make_chunk(bytes(2**20))
        with pytest.raises(SwarmbridgeError) as raised:
            await store.put_chunk(header, cipher)
        assert raised.value.cause is Cause.DISK_FULL
        assert store.holdings.used_bytes == 0
    finally:
        await (await asyncio.create_subprocess_exec("umount", str(disk))).wait()


async def test_a_store_that_cannot_be_used_has_its_own_cause(tmp_path: Path) -> None:
    store = ChunkStore.open(str(tmp_path / "store"), tmp_path)
    (tmp_path / "store" / "c").write_bytes(b"a file where a folder should be")
    with pytest.raises(SwarmbridgeError) as raised:
        await store.put_chunk(*make_chunk())
    assert raised.value.cause is Cause.STORE_FAILED


async def test_a_file_that_is_removed_in_the_moment_it_came_ends_no_loading(store: ChunkStore) -> None:
    header = make_chunk()[0]
    manifest = make_manifest(header)
    async with running_index(MemoryHub(), store) as index:
        await asyncio.sleep(0)  # it waits for something to load
        index._on_entry(KvEntry("m.gone", msgspec.msgpack.encode(_summary("gone")), 1))
        index._on_entry(KvEntry("m.gone", None, 2))
        await asyncio.sleep(0)
        await store.put_manifest(manifest)
        index._on_entry(KvEntry(f"m.{manifest.digest}", msgspec.msgpack.encode(_summary(manifest.digest)), 3))
        await until(lambda: index.is_loaded(manifest.digest))


def _summary(digest: str) -> FileSummary:
    return FileSummary(digest, "file", "a", "text/plain", 1, 1, "shared", 1, False, bytes(32))
