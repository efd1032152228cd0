"""Flags: seeded once, in force everywhere within 100 ms, over reconnects, whatever is stored."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from shared.bus import nats_bus
from shared.bus.layout import ensure_layout
from shared.bus.subjects import BUCKET_FLAGS
from shared.errors import BusError
from shared.settings.config import FlagSettings
from shared.settings.flags import FALLBACK_TELEMETRY, FLAG_NAMES, Flags
from shared.transport.names import TransportName
from tests.fakes.memory_bus import MemoryBus, MemoryHub
from tests.fakes.nats_server import nats_server
from tests.fakes.waiting import until

WEBTORRENT = TransportName.WEBTORRENT
NAME = FLAG_NAMES[WEBTORRENT]


async def started(bus: MemoryBus, seeds: FlagSettings | None = None) -> Flags:
    flags = Flags(seeds or FlagSettings())
    await flags.start(bus)
    return flags


def stored(enabled: bool, changed_ms: int = 5, reset_ms: int = 0) -> bytes:
    return msgspec.json.encode({"enabled": enabled, "changed_ms": changed_ms, "reset_ms": reset_ms})


async def test_the_first_process_seeds_and_later_seeds_do_not_count() -> None:
    hub = MemoryHub()
    first = await started(hub.bus("a"), FlagSettings(webtorrent=False))
    second = await started(hub.bus("b"), FlagSettings(webtorrent=True, broadcast=False))
    expected = {
        "webrtcTransport": True,
        "webTorrentTransport": False,
        "broadcastTransport": True,
        "transportFallbackTelemetry": True,
    }
    assert first.snapshot() == second.snapshot() == expected
    assert not second.enabled(WEBTORRENT)
    assert second.counters_since_ms(WEBTORRENT) == 0


async def test_a_change_reaches_every_process_and_off_resets_counters() -> None:
    hub = MemoryHub()
    one, two = await started(hub.bus("a")), await started(hub.bus("b"))
    changes: list[bool] = []
    two.on_change(lambda: changes.append(two.enabled(WEBTORRENT)))
    await one.set(WEBTORRENT, False)
    assert not one.enabled(WEBTORRENT)
    await until(lambda: changes == [False])
    reset_ms = two.counters_since_ms(WEBTORRENT)
    assert abs(reset_ms - time.time() * 1000) < 2000
    await two.set(WEBTORRENT, True)
    await until(lambda: one.enabled(WEBTORRENT))
    assert one.counters_since_ms(WEBTORRENT) == reset_ms
    await one.set(WEBTORRENT, True)
    await one.set_named(FALLBACK_TELEMETRY, False)
    await until(lambda: not two.fallback_telemetry)
    assert changes == [False, True, True]
    with pytest.raises(KeyError):
        await one.set_named("noSuchFlag", True)


async def test_what_cannot_be_read_is_ignored_and_can_be_set_again() -> None:
    hub = MemoryHub()
    flags = await started(hub.bus("a"))
    bucket = await hub.bus("b").kv(BUCKET_FLAGS)
    await bucket.put("somebodyElses", b"{}")
    await bucket.put(NAME, stored(False))
    await until(lambda: not flags.enabled(WEBTORRENT))
    for count, value in enumerate((b"", b"nonsense", b'{"enabled": "yes"}', b"[]", b"\xff"), start=1):
        await bucket.put(NAME, value)
        await until(lambda count=count: flags.malformed >= count)  # type: ignore[misc]
        assert not flags.enabled(WEBTORRENT)
    await flags.set(WEBTORRENT, True)
    assert flags.enabled(WEBTORRENT)
    late = await started(hub.bus("c"), FlagSettings(webtorrent=False))
    assert late.enabled(WEBTORRENT)


async def test_a_malformed_value_at_the_start_leaves_the_seed() -> None:
    hub = MemoryHub()
    await (await hub.bus("b").kv(BUCKET_FLAGS)).put(NAME, b"nonsense")
    flags = await started(hub.bus("a"), FlagSettings(webtorrent=False))
    assert not flags.enabled(WEBTORRENT)
    assert flags.malformed == 1


async def test_deleting_a_flag_brings_the_seed_back() -> None:
    hub = MemoryHub()
    flags = await started(hub.bus("a"))
    await flags.set(WEBTORRENT, False)
    await (await hub.bus("b").kv(BUCKET_FLAGS)).delete(NAME)
    await until(lambda: flags.enabled(WEBTORRENT))


async def test_an_older_entry_that_comes_late_changes_nothing() -> None:
    hub = MemoryHub()
    other = await hub.bus("b").kv(BUCKET_FLAGS)
    flags = await started(hub.bus("a"))
    hub.freeze("a")  # what others write now waits for us
    await other.put(NAME, stored(False))
    hub.thaw("a")
    await flags.set(WEBTORRENT, True)
    seen: list[bool] = []
    flags.on_change(lambda: seen.append(flags.enabled(WEBTORRENT)))
    await until(lambda: flags.enabled(WEBTORRENT))
    assert False not in seen


async def test_changes_while_cut_off_are_in_force_after_the_reconnect() -> None:
    hub = MemoryHub()
    cut, other = await started(hub.bus("a")), await started(hub.bus("b"))
    hub.disconnect("a")
    await other.set(WEBTORRENT, False)
    assert cut.enabled(WEBTORRENT)
    with pytest.raises(BusError):
        await cut.set(WEBTORRENT, False)
    hub.reconnect("a")
    await until(lambda: not cut.enabled(WEBTORRENT))
    await cut.close()
    await other.set(WEBTORRENT, True)
    assert not cut.enabled(WEBTORRENT)


async def test_flags_not_started() -> None:
    flags = Flags(FlagSettings(webrtc=False))
    assert not flags.enabled(TransportName.WEBRTC)
    with pytest.raises(BusError):
        await flags.set(WEBTORRENT, False)
    await flags.close()


async def test_on_a_real_server_within_100_ms_and_over_a_restart(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        one, two = await nats_bus.connect(server.url, "a"), await nats_bus.connect(server.url, "b")
        await ensure_layout(one.connection, "n1")
        mine, theirs = Flags(FlagSettings()), Flags(FlagSettings())
        await mine.start(one)
        await theirs.start(two)
        started_s = time.monotonic()
        await mine.set(WEBTORRENT, False)
        await until(lambda: not theirs.enabled(WEBTORRENT))
        assert time.monotonic() - started_s < 0.1
        await server.kill()
        await server.start()
        await until(lambda: one.counts.reconnects and two.counts.reconnects, 10.0)
        await mine.set(WEBTORRENT, True)
        await until(lambda: theirs.enabled(WEBTORRENT), 1.0)
        await one.close()
        await two.close()
