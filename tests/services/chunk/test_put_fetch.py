"""Put on one node, get on the other: what arrives, what is refused, what survives."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import msgspec
import obstore
import pytest
from obstore.exceptions import GenericError

from services.chunk.fetch import DEFINITE_ROUNDS
from services.chunk.quota import STORED_OVERHEAD_BYTES
from services.chunk.store import ChunkStore
from shared.bus.bodies import pull, release
from shared.bus.chunk_api import (
    CancelCall,
    FileList,
    FileQuery,
    GetChunk,
    GotChunk,
    Removed,
    RemoveFile,
    Usage,
    UsageQuery,
)
from shared.bus.messages.envelopes import Deliver, Done, InboundAnswer, TransferUpdate
from shared.content.link import parse_link
from shared.content.messages import ChunkData, NotFound, RequestChunk, RequestManifest
from shared.errors import Cause, RemoteFailure
from shared.settings.config import ChunkSettings
from tests.fakes.waiting import until
from tests.services.chunk.conftest import World
from tests.services.chunk.nodes import BUS_TIMEOUT_S, SUBJECTS, Caller, FarNode, cause_of, stored_files

MIB = 2**20
DATA = os.urandom(3 * MIB + 12_345)


async def read_back(caller: Caller, manifest: str, chunks: int, key: bytes = b"") -> bytes:
    parts = []
    for seq in range(chunks):
        got = await caller.bus.request(SUBJECTS.chunk("get"), GetChunk(manifest, seq, key), GotChunk, BUS_TIMEOUT_S)
        parts.append(await pull(caller.bus, SUBJECTS, got.body, timeout_s=BUS_TIMEOUT_S))
        await release(caller.bus, SUBJECTS, got.body)
    return b"".join(parts)


def fill_disks(monkeypatch: pytest.MonkeyPatch, at_least: int = MIB // 2) -> None:
    """From here on nothing of so many bytes can be written, by any node; the default lets a manifest through."""
    put_async = obstore.put_async

    async def refuse(store: Any, path: str, data: bytes, **options: Any) -> Any:
        if len(data) >= at_least:
            raise GenericError("Unable to copy data to file: No space left on device (os error 28)")
        return await put_async(store, path, data, **options)

    monkeypatch.setattr(obstore, "put_async", refuse)


async def files(caller: Caller, manifest: str = "") -> FileList:
    return await caller.bus.request(SUBJECTS.chunk("status"), FileQuery(manifest), FileList, BUS_TIMEOUT_S)


@pytest.mark.parametrize("content_class", ["shared", "mesh", "private"])
async def test_what_is_put_on_one_node_is_read_on_the_other(world: World, content_class: str) -> None:
    a, caller_a = await world.chunk_a(), await world.caller_a()
    put = await caller_a.put(DATA, "name.bin", content_class)
    assert (put.state, put.kind, put.chunks_done, put.bytes_done) == ("done", "put", 4, len(DATA))
    link = parse_link(put.link)
    assert link.holders == (a.token,)
    assert link.digest == put.manifest
    assert bool(link.key) is (content_class == "private")

    await world.chunk_b()
    manager, caller_b = await world.manager_b(), await world.caller_b()
    got = await caller_b.fetch(put.link)
    assert (got.state, got.kind, got.chunks_done, got.bytes_done) == ("done", "get", 4, len(DATA))
    assert got.by_transport == {"webrtc": len(DATA) + 4 * 16}
    assert all(verdict.cause is None for verdict in manager.verdicts)
    assert len(manager.verdicts) == 5
    assert await read_back(caller_b, put.manifest, 4, link.key) == DATA
    [status] = (await files(caller_b)).files
    assert (status.chunks_stored, status.chunks_total, status.content_class) == (4, 4, content_class)
    assert status.name == ("" if content_class == "private" else "name.bin")
    if content_class == "private":
        with pytest.raises(RemoteFailure) as raised:
            await read_back(caller_b, put.manifest, 1, os.urandom(32))
        assert raised.value.cause is Cause.UNAUTHENTICATED


async def test_no_event_says_what_is_moved(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    put = await caller.put(b"secret", "n", "private")
    await until(lambda: [event for event in caller.events if event.state == "done"])
    assert "#" in put.link
    assert not [event for event in caller.events if event.link or event.manifest]


async def test_an_empty_file(world: World) -> None:
    await world.chunk_a()
    caller_a = await world.caller_a()
    put = await caller_a.put(b"")
    await world.chunk_b()
    await world.manager_b()
    caller_b = await world.caller_b()
    assert (await caller_b.fetch(put.link)).state == "done"
    [status] = (await files(caller_b, put.manifest)).files
    assert (status.size, status.chunks_total) == (0, 0)


async def test_a_fetch_by_file_id_and_a_second_one_asks_nobody(world: World) -> None:
    a, caller_a = await world.chunk_a(), await world.caller_a()
    put = await caller_a.put(DATA)
    [status] = (await files(caller_a)).files
    await world.chunk_b()
    manager, caller_b = await world.manager_b(), await world.caller_b()
    assert (await caller_b.fetch_named(status.file_id, [a.token])).state == "done"
    asked = len(manager.delivered)
    again = await caller_b.fetch(put.link, [])
    assert (again.state, again.chunks_done, again.by_transport) == ("done", 4, {})
    assert len(manager.delivered) == asked


@pytest.mark.parametrize("what", ["bytes", "iv", "header", "other", "cut"])
async def test_a_tampered_chunk_is_refused_and_not_stored(world: World, what: str) -> None:
    await world.chunk_a()
    put = await (await world.caller_a()).put(b"x" * 1000)
    b = await world.chunk_b()
    manager, caller_b = await world.manager_b(), await world.caller_b()
    honest = manager.forward
    lies = 2
    refs: list[str] = []

    async def forward(deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        nonlocal lies
        answer, body = await honest(deliver)
        if not isinstance(deliver.request, RequestChunk) or not lies:
            return answer, body
        lies -= 1
        refs.append(deliver.request.ref)
        assert isinstance(answer.answer, ChunkData)
        assert await store.get_chunk(deliver.request.ref) is None
        if what == "bytes":
            return answer, bytes([body[0] ^ 1]) + body[1:]
        if what == "cut":
            return answer, body[:-1]
        lied: dict[str, dict[str, Any]] = {
            "iv": {"iv": bytes(12)},
            "header": {"seq": 7},
            "other": {"ref": "chunk-" + "0" * 64},
        }
        changes = lied[what]
        return InboundAnswer(msgspec.structs.replace(answer.answer, **changes), answer.body), body

    manager.forward = forward
    store = ChunkStore.open("", world.home_b / "store")
    got = await caller_b.fetch(put.link)
    assert got.state == "done"
    assert [verdict.cause for verdict in manager.verdicts if verdict.cause] == [Cause.INTEGRITY_MISMATCH] * 2
    assert await store.get_chunk(refs[0]) is not None
    assert await read_back(caller_b, put.manifest, 1) == b"x" * 1000
    assert b.token != put.link


async def test_a_chunk_that_is_asked_for_again_is_looked_at(world: World) -> None:
    """The first time its receiver checks it; whoever asks again has found that it does not fit."""
    await world.chunk_a()
    caller = await world.caller_a()
    put = await caller.put(DATA)
    manifest = await ChunkStore.open("", world.home_a / "store").get_manifest(put.manifest)
    assert manifest is not None
    ref = manifest.chunks[0]
    path = world.home_a / "store" / "c" / ref[6:8] / ref[6:]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    far = FarNode(world.hub_a)
    assert isinstance((await far.ask(RequestChunk(ref)))[0].answer, ChunkData)
    assert isinstance((await far.ask(RequestChunk(ref)))[0].answer, NotFound)
    assert not path.exists()
    # Our own reader learns that it is not here, not that the key is wrong.
    with pytest.raises(RemoteFailure) as raised:
        await read_back(caller, put.manifest, 1)
    assert raised.value.cause is Cause.NO_LINK
    other = world.home_a / "store" / "c" / manifest.chunks[1][6:8] / manifest.chunks[1][6:]
    other.write_bytes(other.read_bytes()[:-1] + b"!")
    with pytest.raises(RemoteFailure) as raised:
        await caller.bus.request(SUBJECTS.chunk("get"), GetChunk(put.manifest, 1), GotChunk, BUS_TIMEOUT_S)
    assert raised.value.cause is Cause.NO_LINK


async def test_another_manifest_than_asked_for_is_refused(world: World) -> None:
    await world.chunk_a()
    caller_a = await world.caller_a()
    put, other = await caller_a.put(b"wanted"), await caller_a.put(b"other")
    await world.chunk_b()
    manager, caller_b = await world.manager_b(), await world.caller_b()
    far = FarNode(world.hub_a)

    async def forward(deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        _, body = await far.ask(RequestManifest(other.manifest))
        answer, _ = await far.ask(deliver.request)
        return answer, body

    manager.forward = forward
    got = await caller_b.fetch(put.link)
    assert cause_of(got) is Cause.INTEGRITY_MISMATCH
    assert (await files(caller_b)).files == []


async def test_guests_cannot_distinguish_mesh_content_from_nothing_and_get_private_content_by_its_digest_alone(
    world: World,
) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    guest, member = FarNode(world.hub_a, "guest"), FarNode(world.hub_a, "member")
    nobody = FarNode(world.hub_a, "operator?")
    store = ChunkStore.open("", world.home_a / "store")
    guests_get = {"shared": (True, True, True), "mesh": (False, False, False), "private": (True, False, True)}
    members_get = {"shared": (True, True, True), "mesh": (True, True, True), "private": (True, False, True)}
    for content_class in ("shared", "mesh", "private"):
        put = await caller.put(b"content", "n", content_class)
        manifest = await store.get_manifest(put.manifest)
        assert manifest is not None
        requests: tuple[RequestManifest | RequestChunk, ...] = (
            RequestManifest(put.manifest),
            RequestManifest(manifest.file_id),
            RequestChunk(manifest.chunks[0]),
        )
        for place, request in enumerate(requests):
            asked = request.ref if isinstance(request, RequestChunk) else request.id
            nothing = InboundAnswer(NotFound(asked), None)
            assert ((await guest.ask(request))[0] != nothing) is guests_get[content_class][place]
            assert ((await member.ask(request))[0] != nothing) is members_get[content_class][place]
            assert (await nobody.ask(request))[0] == nothing


@pytest.mark.parametrize("role", ["guest", "member"])
async def test_odd_ids_are_refused_at_once_and_no_peer_makes_us_ask_the_bus(world: World, role: str) -> None:
    a = await world.chunk_a()
    peer = FarNode(world.hub_a, role)
    asked: list[str] = []
    bucket = world.hub_a.buckets["manifests"]
    stored = bucket.stored
    bucket.stored = lambda key: asked.append(key) or stored(key)  # type: ignore[method-assign, func-returns-value]
    odd = ["", "x" * 1000, "a\nb", "\u202e", "..", "0" * 64, "file-1-abc"]
    for request in [RequestManifest(text) for text in odd] + [RequestChunk(text) for text in odd]:
        answer, _ = await peer.ask(request)
        assert isinstance(answer.answer, NotFound)
    assert asked == []
    assert cause_of(await (await world.caller_a()).fetch_named("\u202e", [a.token])) is Cause.INVALID


async def test_who_has_the_link_of_private_content_can_read_it_and_no_one_hears_of_it(world: World) -> None:
    await world.chunk_a()
    put = await (await world.caller_a()).put(DATA, "n", "private")
    await world.chunk_b()
    await world.manager_b("guest")
    caller_b = await world.caller_b()
    assert (await caller_b.fetch(put.link)).state == "done"
    assert await read_back(caller_b, put.manifest, 4, parse_link(put.link).key) == DATA


async def test_two_instances_share_one_store_one_identity_and_one_index(world: World) -> None:
    first, second = await world.chunk_a("chunk-a1"), await world.chunk_a("chunk-a2")
    assert first.token == second.token
    caller = await world.caller_a()
    puts = await asyncio.gather(*(caller.put(os.urandom(1000), f"f{number}") for number in range(6)))
    assert {put.state for put in puts} == {"done"}
    far = FarNode(world.hub_a)
    store = ChunkStore.open("", world.home_a / "store")
    for put in puts:
        manifest = await store.get_manifest(put.manifest)
        assert manifest is not None
        for _ in range(6):  # by either instance
            answer, body = await far.ask(RequestChunk(manifest.chunks[0]))
            assert isinstance(answer.answer, ChunkData)
            assert len(body) == 1016
    world.hub_a.kill("chunk-a1")
    assert len((await files(caller)).files) == 6


async def test_a_killed_instances_fetch_goes_on_at_another(world: World) -> None:
    await world.chunk_a()
    put = await (await world.caller_a()).put(DATA)
    settings = ChunkSettings(request_window=1)
    first = await world.chunk_b("chunk-b1", settings)
    manager, caller_b = await world.manager_b(), await world.caller_b()
    gate, honest = asyncio.Event(), manager.forward
    asked: list[str] = []

    async def forward(deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        if isinstance(deliver.request, RequestChunk):
            if len(asked) >= 2:
                await gate.wait()
            asked.append(deliver.request.ref)
        return await honest(deliver)

    manager.forward = forward
    fetching = asyncio.create_task(caller_b.fetch(put.link))
    await until(lambda: [update for update in caller_b.updates if update.chunks_done == 2])
    await world.chunk_b("chunk-b2", settings)
    world.hub_b.kill("chunk-b1")
    await first.tasks.close()
    gate.set()
    got = await fetching
    assert (got.state, got.chunks_done) == ("done", 4)
    assert await read_back(caller_b, put.manifest, 4) == DATA
    # The two chunks that the first had stored were not asked for again.
    assert asked.count(asked[0]) == asked.count(asked[1]) == 1


async def test_a_cancelled_transfer_ends_as_closed_and_can_be_resumed(world: World) -> None:
    await world.chunk_a()
    put = await (await world.caller_a()).put(DATA)
    b = await world.chunk_b()
    manager, caller_b = await world.manager_b(), await world.caller_b()
    gate, honest = asyncio.Event(), manager.forward

    async def forward(deliver: Deliver) -> tuple[InboundAnswer, bytes]:
        if isinstance(deliver.request, RequestChunk):
            await gate.wait()
        return await honest(deliver)

    manager.forward = forward
    call_id = os.urandom(16)
    fetching = asyncio.create_task(caller_b.fetch(put.link, call_id=call_id))
    await until(lambda: len(manager.delivered) >= 3)
    await caller_b.bus.request(SUBJECTS.chunk_instance(b.bus.instance), CancelCall(call_id), Done, BUS_TIMEOUT_S)
    assert cause_of(await fetching) is Cause.CLOSED
    gate.set()
    assert (await caller_b.fetch(put.link)).state == "done"


async def test_nobody_to_ask_and_nobody_who_has_it(world: World) -> None:
    a, _ = await world.chunk_a(), await world.caller_a()
    b = await world.chunk_b()
    await world.manager_b()
    caller = await world.caller_b()
    digest = hashlib.sha256(b"nothing").hexdigest()
    assert cause_of(await caller.fetch_named(digest, [])) is Cause.PEER_UNKNOWN
    assert cause_of(await caller.fetch_named(digest, [b.token])) is Cause.PEER_UNKNOWN
    assert cause_of(await caller.fetch_named(digest, [a.token])) is Cause.REFUSED
    assert cause_of(await caller.fetch_named(digest, ["nonsense"])) is Cause.INVALID
    assert cause_of(await caller.fetch_named("", [a.token])) is Cause.INVALID


async def test_what_a_fetch_waits_for_is_reported_meanwhile(world: World) -> None:
    await world.chunk_a()
    put = await (await world.caller_a()).put(DATA)
    await world.chunk_b()
    caller_b = await world.caller_b()
    manager = await world.manager_b()
    manager.failing = Cause.NO_LISTENER
    fetching = asyncio.create_task(caller_b.fetch(put.link))
    await until(lambda: any(update.waiting is Cause.NO_LISTENER for update in caller_b.updates))
    assert not fetching.done()
    manager.failing = None
    done = await fetching
    assert (done.state, done.waiting) == ("done", None)


@pytest.mark.parametrize("cause", [Cause.CLOCK_SKEW, Cause.BLOCKED, Cause.FORBIDDEN])
async def test_what_another_try_does_not_change_is_not_waited_out(world: World, cause: Cause) -> None:
    await world.chunk_a()
    put = await (await world.caller_a()).put(DATA)
    await world.chunk_b()
    manager, caller_b = await world.manager_b(), await world.caller_b()
    manager.failing = cause
    assert cause_of(await caller_b.fetch(put.link)) is cause
    assert len(manager.delivered) == DEFINITE_ROUNDS


async def test_the_quota_refuses_puts_and_fetches(world: World) -> None:
    await world.chunk_a()
    small = ChunkSettings(quota_bytes=2 * MIB)
    await world.chunk_b(settings=small)
    await world.manager_b()
    caller_a, caller_b = await world.caller_a(), await world.caller_b()
    put = await caller_a.put(DATA)
    assert cause_of(await caller_b.fetch(put.link)) is Cause.STORE_FULL
    assert cause_of(await caller_b.put(DATA)) is Cause.STORE_FULL
    assert (await caller_b.put(DATA[:MIB])).state == "done"
    assert cause_of(await caller_b.put(DATA[-MIB:])) is Cause.STORE_FULL
    assert (await caller_b.put(DATA[:MIB])).state == "done"  # it is there already
    assert len((await files(caller_b)).files) == 1


async def test_a_transfer_may_take_all_that_is_left(world: World) -> None:
    """Neither what it has stored so far nor what it still needs is counted twice."""
    settings = ChunkSettings(quota_bytes=4 * (MIB + STORED_OVERHEAD_BYTES))
    await world.chunk_a(settings=settings)
    caller_a = await world.caller_a()
    usage = await caller_a.bus.request(SUBJECTS.chunk("usage"), UsageQuery(), Usage, BUS_TIMEOUT_S)
    assert (usage.used_bytes, usage.promised_bytes, usage.files) == (0, 0, 0)
    put = await caller_a.put(DATA)
    await world.chunk_b(settings=settings)
    await world.manager_b()
    caller_b = await world.caller_b()
    assert (put.state, (await caller_b.fetch(put.link)).state) == ("done", "done")
    usage = await caller_b.bus.request(SUBJECTS.chunk("usage"), UsageQuery(), Usage, BUS_TIMEOUT_S)
    assert usage.used_bytes == sum(path.stat().st_size for path in stored_files(world.home_b))
    assert (usage.promised_bytes, usage.quota_bytes, usage.files) == (0, settings.quota_bytes, 1)


async def test_the_same_file_put_again_gives_the_link_that_exists(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    first = await caller.put(DATA)
    count = len(stored_files(world.home_a))
    same = await caller.put(DATA)
    assert (same.link, same.state, same.chunks_done, same.bytes_done) == (first.link, "done", 4, len(DATA))
    assert len(stored_files(world.home_a)) == count
    changed = bytes([*DATA[:-1], DATA[-1] ^ 1])
    others = [
        await caller.put(DATA, "other.bin"),
        await caller.put(DATA, content_class="mesh"),
        await caller.put(DATA, again=True),
        await caller.put(changed),
    ]
    assert len({first.link, *(put.link for put in others)}) == 5
    assert {put.chunks_done for put in others} == {4}
    assert await read_back(caller, others[3].manifest, 4) == changed
    # Private content cannot be recognised: its key is nowhere but in its link.
    private = [await caller.put(DATA, content_class="private") for _ in range(2)]
    assert private[0].link != private[1].link


async def test_a_damaged_copy_is_not_the_same_file(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    first = await caller.put(DATA)
    damaged = max((path for path in stored_files(world.home_a)), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    again = await caller.put(DATA)
    assert again.link != first.link
    assert await read_back(caller, again.manifest, 4) == DATA


async def test_a_file_is_removed_with_the_chunks_that_no_other_names(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    kept, gone = await caller.put(b"kept"), await caller.put(DATA)
    removed = await caller.bus.request(SUBJECTS.chunk("remove"), RemoveFile(gone.manifest), Removed, BUS_TIMEOUT_S)
    assert (removed.manifest, removed.name, removed.chunks_removed) == (gone.manifest, "f.bin", 4)
    assert removed.freed_bytes > len(DATA)
    assert [file.manifest for file in (await files(caller)).files] == [kept.manifest]
    assert len(stored_files(world.home_a)) == 2
    assert isinstance((await FarNode(world.hub_a).ask(RequestManifest(gone.manifest)))[0].answer, NotFound)
    with pytest.raises(RemoteFailure) as raised:
        await caller.bus.request(SUBJECTS.chunk("remove"), RemoveFile(gone.manifest), Removed, BUS_TIMEOUT_S)
    assert raised.value.cause is Cause.NO_LINK
    again = await caller.put(DATA)
    assert (again.state, again.link == gone.link) == ("done", False)
    # What was removed stays so over a restart.
    await world.chunk_a("chunk-a2")
    world.hub_a.kill("chunk-a1")
    assert {file.manifest for file in (await files(caller)).files} == {kept.manifest, again.manifest}


async def test_a_list_comes_by_pages(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    puts = [(await caller.put(b"x", f"f{number}")).manifest for number in range(5)]
    listed: list[str] = []
    while True:
        query = FileQuery(offset=len(listed), limit=2)
        page = await caller.bus.request(SUBJECTS.chunk("status"), query, FileList, BUS_TIMEOUT_S)
        assert page.total == 5
        if not page.files:
            break
        assert len(page.files) <= 2
        listed += [file.manifest for file in page.files]
    assert listed == puts[::-1]


async def test_names_that_hide_or_rearrange_are_refused_and_others_are_kept(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    name = "Screenshot 3.14\u202fPM \u0645\u06cc\u200c\u062e \U0001f469\u200d\U0001f4bb\u00a0.png"
    put = await caller.put(b"x", name)
    [status] = (await files(caller, put.manifest)).files
    assert status.name == name
    for bad in ("a\nb", "a\u202eb", "\x1b[2J"):
        assert cause_of(await caller.put(b"x", bad)) is Cause.INVALID


async def test_a_disk_that_fills_up_under_a_put_is_reported_and_nothing_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    fill_disks(monkeypatch)
    assert cause_of(await caller.put(DATA)) is Cause.DISK_FULL
    assert stored_files(world.home_a) == []


async def test_a_full_disk_ends_a_fetch_at_once_and_no_transport_is_charged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.chunk_a()
    put = await (await world.caller_a()).put(DATA)
    await world.chunk_b()
    manager, caller_b = await world.manager_b(), await world.caller_b()
    fill_disks(monkeypatch)
    assert cause_of(await caller_b.fetch(put.link)) is Cause.DISK_FULL
    assert len(manager.verdicts) > 1
    assert not [verdict for verdict in manager.verdicts if verdict.cause is not None]


async def test_a_manifest_that_cannot_be_stored_leaves_no_file_and_the_next_fetch_brings_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.chunk_a()
    put = await (await world.caller_a()).put(DATA)
    await world.chunk_b()
    await world.manager_b()
    caller_b = await world.caller_b()
    with monkeypatch.context() as full:
        fill_disks(full, at_least=0)
        assert cause_of(await caller_b.fetch(put.link)) is Cause.DISK_FULL
    assert (await files(caller_b)).files == []
    assert (await caller_b.fetch(put.link)).state == "done"
    assert await read_back(caller_b, put.manifest, 4) == DATA


async def test_a_put_whose_source_is_lost_leaves_nothing(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()

    async def read(offset: int, length: int) -> bytes:
        if offset < MIB:
            return bytes(length)
        raise RemoteFailure(Cause.SOURCE_LOST)

    caller.bodies.hold = lambda data, puller: caller.bodies.hold_reader(4 * MIB, read, puller)  # type: ignore[method-assign]
    assert cause_of(await caller.put(b"")) is Cause.SOURCE_LOST
    assert stored_files(world.home_a) == []


async def test_the_index_is_made_again_from_the_store(world: World) -> None:
    first = await world.chunk_a()
    caller = await world.caller_a()
    put = await caller.put(b"kept")
    await first.close()
    world.hub_a.buckets.clear()
    await world.chunk_a("chunk-a2")
    [status] = (await files(caller)).files
    assert (status.manifest, status.chunks_stored) == (put.manifest, 1)
    assert await read_back(caller, put.manifest, 1) == b"kept"
    assert (await FarNode(world.hub_a, "guest").ask(RequestManifest(status.file_id)))[0].body is not None


async def test_updates_are_few_and_end_once(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    put = await caller.put(DATA)
    states = [update.state for update in caller.updates]
    assert states.count("done") == 1
    assert states[-1] == "done"
    assert len(states) < 12
    assert put.started_ms > 0
    assert caller.updates == sorted(caller.updates, key=lambda update: update.chunks_done)


async def test_a_put_of_nonsense_is_refused(world: World) -> None:
    await world.chunk_a()
    caller = await world.caller_a()
    refused: list[TransferUpdate] = [
        await caller.put(b"x", "n" * 2000),
        await caller.put(b"x", "n", "secret"),
    ]
    assert [cause_of(update) for update in refused] == [Cause.INVALID] * 2
