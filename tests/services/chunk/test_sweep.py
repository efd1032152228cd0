"""Chunks that no manifest names: what is removed, and what is left alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.chunk.index import ManifestIndex
from services.chunk.store import DRAFT_AGE_S, ChunkStore
from services.chunk.sweep import MARK_STALE_S, ORPHAN_AGE_S, PutsInFlight, Sweep
from shared.bus.chunk_api import Usage, UsageQuery
from shared.content.keys import public_key
from tests.fakes.memory_bus import MemoryHub
from tests.fakes.waiting import until
from tests.services.chunk.conftest import World
from tests.services.chunk.nodes import BUS_TIMEOUT_S, SUBJECTS, stored_files
from tests.services.chunk.test_store_index import SEED, make_chunk, make_manifest

MIB = 2**20


@dataclass
class Desk:
    """One instance's sweep over a folder whose files have the times that a test gives them."""

    folder: Path
    store: ChunkStore
    index: ManifestIndex
    puts: PutsInFlight
    sweep: Sweep

    async def chunk(self, age_s: float = 10.0) -> str:
        header, cipher = make_chunk(os.urandom(10))
        await self.store.put_chunk(header, cipher)
        self.age(f"c/{header.ref[6:8]}/{header.ref[6:]}", age_s)
        return header.ref

    async def mark_of_another(self, age_s: float) -> None:
        await self.store.put_mark("chunk-9")
        self.age("p/chunk-9", age_s)

    def age(self, path: str, age_s: float) -> None:
        file = self.folder / path
        then = file.stat().st_mtime - age_s
        os.utime(file, (then, then))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = ChunkStore.open(str(tmp_path / "store"), tmp_path)
    index = ManifestIndex(await MemoryHub().bus("chunk-1").kv("manifests"), store, public_key(SEED))
    await index.start()
    puts = PutsInFlight()
    yield Desk(tmp_path / "store", store, index, puts, Sweep(store, index, puts, "chunk-1"))
    await index.close()


async def test_what_a_killed_put_left_is_removed_and_given_back(desk: Desk) -> None:
    await desk.chunk()
    await desk.chunk()
    assert await desk.sweep.round()
    assert desk.store.holdings.used_bytes == len(desk.store.holdings) == 0
    assert not [path for path in desk.folder.rglob("*") if path.is_file()]


async def test_what_any_manifest_names_is_kept(desk: Desk) -> None:
    header, cipher = make_chunk()
    await desk.store.put_chunk(header, cipher)
    manifest = make_manifest(header)
    await desk.store.put_manifest(manifest)
    desk.age(f"c/{header.ref[6:8]}/{header.ref[6:]}", 2 * ORPHAN_AGE_S)
    # Not in the index: another instance has just stored it, or the bucket was lost.
    assert desk.index.known(manifest.digest) is None
    assert await desk.sweep.round()
    assert header.ref in desk.store.holdings
    assert desk.index.known(manifest.digest) is not None


async def test_what_a_damaged_manifest_names_is_kept_too(desk: Desk) -> None:
    ref = await desk.chunk(2 * ORPHAN_AGE_S)
    (desk.folder / "m").mkdir()
    (desk.folder / "m" / ("0" * 64)).write_bytes(b"{" + ref.encode() + b", and no JSON")
    await desk.sweep.round()
    assert await desk.store.get_chunk(ref) is not None


async def test_chunks_of_puts_in_flight_are_left_alone(desk: Desk) -> None:
    with desk.puts.begin() as unnamed:
        await desk.sweep.mark()
        mine, orphan = await desk.chunk(), await desk.chunk()
        unnamed.add(mine)
        assert not await desk.sweep.round()
        assert await desk.store.get_chunk(mine) is not None
        assert await desk.store.get_chunk(orphan) is None
        assert "chunk-1" in (await desk.store.list_all()).marks
    assert await desk.sweep.round()
    assert await desk.store.get_chunk(mine) is None
    assert (await desk.store.list_all()).marks == {}


async def test_another_instances_mark_protects_what_it_may_have_stored(desk: Desk) -> None:
    young, old = await desk.chunk(), await desk.chunk(ORPHAN_AGE_S + 60)
    await desk.mark_of_another(MARK_STALE_S / 2)
    assert not await desk.sweep.round()
    assert await desk.store.get_chunk(young) is not None
    assert await desk.store.get_chunk(old) is None
    # It was killed: its mark grows stale, and goes with what it left.
    desk.age("p/chunk-9", 2 * MARK_STALE_S)
    assert await desk.sweep.round()
    assert await desk.store.get_chunk(young) is None
    assert (await desk.store.list_all()).marks == {}


async def test_what_was_stored_after_the_round_began_is_left_for_the_next(desk: Desk) -> None:
    ref = await desk.chunk(-60.0)
    assert not await desk.sweep.round()
    assert await desk.store.get_chunk(ref) is not None


async def test_a_put_that_is_stopped_leaves_nothing_and_one_that_is_killed_is_swept(world: World) -> None:
    async with AsyncExitStack() as stack:
        caller = await world.caller_a()
        reached, gates = asyncio.Event(), [asyncio.Event()]

        async def read(offset: int, length: int) -> bytes:
            if offset >= 3 * MIB:
                reached.set()
                await gates[-1].wait()
            return bytes(length)

        caller.bodies.hold = lambda data, puller: caller.bodies.hold_reader(4 * MIB, read, puller)  # type: ignore[method-assign]
        first = await world.chunk_a()
        putting = asyncio.create_task(caller.put(b""))
        stack.callback(putting.cancel)
        await reached.wait()
        await until(lambda: len(stored_files(world.home_a)) == 3)
        await first.close()  # as on SIGTERM
        assert stored_files(world.home_a) == []

        reached.clear()
        await world.chunk_a("chunk-a2")
        await reached.wait()
        await until(lambda: len(stored_files(world.home_a)) == 3)
        world.hub_a.kill("chunk-a2")  # its put never ends: it waits for a gate that stays shut
        gates.append(asyncio.Event())
        for mark in (world.home_a / "store" / "p").iterdir():
            os.utime(mark, (0, 0))
        for path in stored_files(world.home_a):
            os.utime(path, (1, 1))
        await world.chunk_a("chunk-a3")
        await until(lambda: not [path for path in stored_files(world.home_a) if path.stat().st_mtime < 2])
        gates[-1].set()
        assert (await putting).state == "done"
        usage = await caller.bus.request(SUBJECTS.chunk("usage"), UsageQuery(), Usage, BUS_TIMEOUT_S)
        assert usage.used_bytes == sum(path.stat().st_size for path in stored_files(world.home_a))


async def test_half_written_files_go_too(desk: Desk) -> None:
    ref = await desk.chunk()
    folder = desk.folder / "c" / ref[6:8]
    for name, age_s in (("old#1", 2 * DRAFT_AGE_S), ("new#1", 1.0)):
        (folder / name).write_bytes(b"half")
        desk.age(f"c/{ref[6:8]}/{name}", age_s)
    await desk.sweep.round()
    assert [path.name for path in folder.iterdir()] == ["new#1"]


async def test_listings_see_manifests_last(desk: Desk) -> None:
    """Whoever made a listed chunk is then seen by its mark, or has ended and is seen by its manifest."""
    await desk.chunk()
    await desk.store.put_mark("chunk-1")
    listing = await desk.store.list_all()
    assert list(vars(listing)) == ["chunks", "marks", "manifests"]
