"""NATS loses what it stored: a stream is removed, or the server comes back without its data. Real server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared.bus.messages.conversations import KEEPER
from shared.bus.messages.records import HopRecord
from shared.bus.messages.subjects import (
    BUCKET_BLOCKLIST,
    BUCKET_FLAGS,
    BUCKET_LAYOUT,
    BUCKET_LEASES,
    BUCKET_MANIFESTS,
    STREAM_HOPS,
    Subjects,
)
from shared.bus.nats import bus as nats_bus
from shared.bus.nats.bus import NatsBus
from shared.bus.nats.connection import NatsConnection
from shared.bus.nats.jetstream import StreamGone, api
from shared.bus.nats.keeper import Keeper
from shared.bus.nats.layout import Place, ensure_layout, generation, is_laid_out
from shared.errors import BusError
from shared.settings.blocklist import Blocklist, Direction
from shared.settings.config import FlagSettings
from shared.settings.flags import Flags
from shared.tasks.owned import Tasks
from shared.transports import TransportName
from tests.fakes.nats_server import NatsServer, nats_server
from tests.fakes.nats_users import accounts_config
from tests.fakes.waiting import until

NODE = "n1"
N = Subjects(NODE)
PEER = "peer-0123456789abcdef"
SOON_S = 20.0
"""For a slow machine; it takes about three seconds."""


@dataclass
class Kept:
    """A server, its keeper, and the services with something to lose."""

    server: NatsServer
    keeper: Keeper
    buses: dict[str, NatsBus]
    tasks: Tasks
    crashed: list[str] = field(default_factory=list)


@asynccontextmanager
async def kept(directory: Path) -> AsyncIterator[Kept]:
    config, seeds = accounts_config([NODE])
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server(directory, config))
        buses: dict[str, NatsBus] = {}
        crashed: list[str] = []
        for service in (KEEPER, "gateway", "chunk", "webrtc", "manager"):
            seed = seeds[NODE, service]
            buses[service] = await nats_bus.connect(server.url, f"{service}-1", seed=seed, service=service)
            stack.push_async_callback(buses[service].close)
        tasks = Tasks(crashed.append)
        keeper = Keeper(buses[KEEPER].connection, NODE)
        tasks.start(keeper.run(), name="keeper")
        stack.push_async_callback(tasks.close)
        yield Kept(server, keeper, buses, tasks, crashed)


async def lose_all_streams(world: Kept) -> None:
    """As `nats stream rm` of each of them."""
    names = [BUCKET_LAYOUT, BUCKET_FLAGS, BUCKET_BLOCKLIST, BUCKET_LEASES, BUCKET_MANIFESTS]
    for stream in (*(f"KV_{name}" for name in names), STREAM_HOPS):
        await api(world.buses[KEEPER].connection, f"STREAM.DELETE.{stream}", {})


async def lose_one_stream(world: Kept) -> None:
    for stream in (f"KV_{BUCKET_FLAGS}", f"KV_{BUCKET_BLOCKLIST}", f"KV_{BUCKET_MANIFESTS}", STREAM_HOPS):
        await api(world.buses[KEEPER].connection, f"STREAM.DELETE.{stream}", {})


async def lose_the_volume(world: Kept) -> None:
    await world.server.kill()
    await asyncio.to_thread(shutil.rmtree, world.server.directory / "jetstream")
    await world.server.start()


Loss = Callable[[Kept], Awaitable[None]]


@pytest.mark.parametrize("lose", [lose_all_streams, lose_one_stream, lose_the_volume])
async def test_what_was_lost_is_made_again_and_known_again(
    tmp_path: Path, lose: Loss, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(tmp_path) as world, AsyncExitStack() as stack:
        flags, seen = Flags(FlagSettings()), Flags(FlagSettings())
        blocklist = Blocklist()
        lost: list[str] = []
        world.buses["gateway"].on_lost(lost.append)
        await flags.start(world.buses["gateway"])
        await blocklist.start(world.buses["gateway"], keep=True)
        await seen.start(world.buses["webrtc"], seed=False)
        for follower in (flags, blocklist, seen):
            stack.push_async_callback(follower.close)
        await flags.set(TransportName.WEBTORRENT, False)
        await blocklist.block(PEER, Direction.ALL, "why not")
        manifests = await world.buses["chunk"].kv(BUCKET_MANIFESTS)
        watch = await manifests.watch(lambda entry: None, restore=True)
        stack.push_async_callback(watch.close)
        await manifests.put("m.1", b"summary")
        records: list[str] = []
        await world.buses["manager"].follow(STREAM_HOPS, HopRecord, lambda body, at: records.append(body.delivery))
        await world.buses["manager"].append(N.hop("webrtc"), _hop("before"), "1")
        await until(lambda: records == ["before"])

        await lose(world)

        await until(lambda: {BUCKET_FLAGS, BUCKET_BLOCKLIST} <= set(lost), SOON_S)
        await _eventually(lambda: is_laid_out(world.buses[KEEPER].connection, NODE))
        # What people had set is in force, and stored for whoever starts now.
        late, late_blocks = Flags(FlagSettings()), Blocklist()
        await _eventually(lambda: _stored(world.buses["gateway"], BUCKET_BLOCKLIST, PEER))
        await _eventually(lambda: _stored(world.buses["gateway"], BUCKET_FLAGS, "webTorrentTransport"))
        await _eventually(lambda: _stored(world.buses["chunk"], BUCKET_MANIFESTS, "m.1"))
        await late.start(world.buses["manager"], seed=False)
        await late_blocks.start(world.buses["manager"])
        stack.push_async_callback(late.close)
        stack.push_async_callback(late_blocks.close)
        assert not late.enabled(TransportName.WEBTORRENT)
        assert late_blocks.blocks(PEER, Direction.ALL)
        # And everything goes on: leases, changes that others see, records.
        leases = await world.buses["webrtc"].kv(BUCKET_LEASES)
        assert await leases.create("signal", b"w1", 10.0)
        await flags.set(TransportName.WEBTORRENT, True)
        await until(lambda: seen.enabled(TransportName.WEBTORRENT), SOON_S)
        await world.buses["manager"].append(N.hop("webrtc"), _hop("after"), "2")
        await until(lambda: records[-1] == "after", SOON_S)
        assert records == ["before", "after"]
        assert "NATS had lost" in caplog.text
        assert not world.crashed


async def test_what_is_there_is_not_taken_for_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither on a new server, nor by the next keeper, though the server calls each stream created."""
    async with kept(tmp_path) as world:
        connection = world.buses[KEEPER].connection
        await _eventually(lambda: _has_generation(connection, STREAM_HOPS))  # the last thing that is made
        await world.tasks.close()
        assert await ensure_layout(connection, NODE) == []
        looked: list[str] = []
        following = Tasks()
        following.start(Keeper(connection, NODE, looked=looked.append).run(), name="next keeper")
        await until(lambda: bool(looked), SOON_S)
        await following.close()
    assert "had lost" not in caplog.text


async def test_a_writer_of_a_lost_bucket_hears_what_is_missing(tmp_path: Path) -> None:
    async with kept(tmp_path) as world:
        await _eventually(lambda: is_laid_out(world.buses[KEEPER].connection, NODE))
        manifests = await world.buses["chunk"].kv(BUCKET_MANIFESTS)
        await world.tasks.close()  # nobody makes it again
        await lose_all_streams(world)
        for hop in (manifests.put("m", b"1"), manifests.get("m"), manifests.create("m", b"1"), manifests.keys()):
            with pytest.raises(StreamGone):
                await hop


async def _has_generation(connection: NatsConnection, name: str) -> bool:
    return await generation(connection, Place(name)) != b""


async def _stored(bus: NatsBus, bucket: str, key: str) -> bool:
    return await (await bus.kv(bucket)).get(key) is not None


async def _eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                if await holds():
                    return
            except BusError:
                pass  # not there again yet
            await asyncio.sleep(0.05)


def _hop(delivery: str) -> HopRecord:
    return HopRecord(delivery, 1, "webrtc", "peer-1", "failed", None, "", None, False, 1, 2.0, 3, "", "", "m")
