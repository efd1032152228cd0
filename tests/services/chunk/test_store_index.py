"""The store checks what it reads; the index knows whose a fileId is and who may have a ref."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.chunk.index import ManifestIndex
from services.chunk.quota import Quota
from services.chunk.store import ChunkStore
from shared.content.chunks import encrypt_chunk
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
    index = ManifestIndex(await hub.bus(name).kv("manifests"), store)
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
    assert await store.stored_among([header.ref, "chunk-" + "0" * 64]) == {header.ref}
    await store.delete_chunks([header.ref, header.ref])
    assert not await store.has_chunk(header.ref)
    assert await store.used_bytes() == 0


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
    assert await store.manifest_digests() == [manifest.digest]
    assert await store.manifest_stored_ms(manifest.digest) > 0
    (tmp_path / "store" / "m" / manifest.digest).write_bytes(manifest.canonical + b" ")
    assert await store.get_manifest(manifest.digest) == manifest  # the same JSON
    (tmp_path / "store" / "m" / manifest.digest).write_bytes(manifest.canonical.replace(b"a/b", b"a/c"))
    assert await store.get_manifest(manifest.digest) is None


def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for location in (str(tmp_path / "file" / "x"), "nonsense://x"):
        with pytest.raises(ConfigError):
            ChunkStore.open(location, tmp_path)


async def test_two_signers_of_one_file_id_are_an_error_and_one_may_write_anew(store: ChunkStore) -> None:
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


async def test_the_stricter_class_of_two_manifests_wins(store: ChunkStore) -> None:
    header, _ = make_chunk()
    async with running_index(MemoryHub(), store) as index:
        assert await index.class_of(header.ref) is None
        await index.add(make_manifest(header, content_class=ContentClass.MESH), complete=True, stored_ms=1)
        await index.add(make_manifest(header, OTHER_SEED, file_id="file-2"), complete=True, stored_ms=1)
        assert await index.class_of(header.ref) is ContentClass.MESH


async def test_another_instance_learns_classes_by_itself(store: ChunkStore) -> None:
    hub = MemoryHub()
    header, _ = make_chunk()
    async with running_index(hub, store) as first, running_index(hub, store, "chunk-2") as second:
        manifest = make_manifest(header)
        await store.put_manifest(manifest)
        await first.add(manifest, complete=True, stored_ms=1)
        await until(lambda: second.files())
        assert await second.class_of(header.ref) is ContentClass.SHARED


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
    quota = Quota(store, 100_000)
    async with quota.room_for(60_000):
        with pytest.raises(SwarmbridgeError) as raised:
            async with quota.room_for(60_000):
                pass
        assert raised.value.cause is Cause.TOO_LARGE
    async with quota.room_for(60_000):
        pass
