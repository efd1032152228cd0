"""Flags: seeded once, in force everywhere, over reconnects, whatever is stored (test_flags_on_nats: really)."""

from __future__ import annotations

import time

import msgspec
import pytest
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from shared.bus.messages.subjects import BUCKET_FLAGS
from shared.errors import BusError
from shared.settings.chaos import ChaosFlag
from shared.settings.config import FlagSettings
from shared.settings.flags import FALLBACK_TELEMETRY, FLAG_NAMES, Flags
from shared.transports import TransportName
from tests.fakes.memory_bus import MemoryBus, MemoryHub
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
    for count, value in enumerate(
        (b"", b"nonsense", b'{"enabled": "yes"}', b"[]", b"\xff", b'{"enabled": "\xff"}'), start=1
    ):
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


async def test_chaos_reaches_every_process_and_goes_again() -> None:
    hub = MemoryHub()
    one, two = await started(hub.bus("a")), await started(hub.bus("b"))
    changes: list[ChaosFlag | None] = []
    two.on_change(lambda: changes.append(two.chaos(WEBTORRENT)))
    fault = ChaosFlag(drop=20, delay_ms=50, peer="peer-0123456789abcdef")
    await one.set_chaos(WEBTORRENT, fault)
    assert one.chaos(WEBTORRENT) == fault
    assert one.chaos_snapshot() == {"webtorrent": fault}
    await until(lambda: changes == [fault])
    late = await started(hub.bus("c"))
    assert late.chaos(WEBTORRENT) == fault
    await two.set_chaos(WEBTORRENT, fault)
    await two.set_chaos(WEBTORRENT, None)
    assert changes == [fault, None], "the same again is no change"
    await until(lambda: not one.chaos_snapshot() and not late.chaos_snapshot())
    await one.set_chaos(WEBTORRENT, ChaosFlag(refuse=1))
    await (await hub.bus("d").kv(BUCKET_FLAGS)).delete("chaos.webtorrent")
    await until(lambda: one.chaos(WEBTORRENT) is None)
    with pytest.raises(ValueError, match="percentages"):
        await one.set_chaos(WEBTORRENT, ChaosFlag(drop=101))
    with pytest.raises(BusError):
        await Flags(FlagSettings()).set_chaos(WEBTORRENT, None)


async def test_chaos_that_cannot_be_read_is_ignored() -> None:
    hub = MemoryHub()
    flags = await started(hub.bus("a"))
    bucket = await hub.bus("b").kv(BUCKET_FLAGS)
    for count, value in enumerate((b"", b'{"chaos": {"drop": 101}}', b'{"chaos": {"explode": 1}}'), start=1):
        await bucket.put("chaos.webtorrent", value)
        await until(lambda count=count: flags.malformed >= count)  # type: ignore[misc]
    assert flags.chaos_snapshot() == {}


async def test_openfeature_says_the_same_and_why() -> None:
    hub = MemoryHub()
    flags = Flags(FlagSettings(webtorrent=False))
    before = flags.client.get_boolean_details(NAME, True)
    assert (before.value, before.reason, before.variant) == (False, Reason.DEFAULT, "off")
    await flags.start(hub.bus("a"))
    await flags.set(WEBTORRENT, True)
    after = flags.client.get_boolean_details(NAME, False)
    assert (after.value, after.reason, after.variant) == (True, Reason.STATIC, "on")
    await flags.set_chaos(WEBTORRENT, ChaosFlag(drop=5))
    chaos = flags.client.get_object_value("chaos.webtorrent", {})
    assert isinstance(chaos, dict)
    assert chaos["drop"] == 5
    assert flags.client.get_object_value("chaos.webrtc", {"x": 1}) == {}


async def test_openfeature_answers_the_default_for_what_is_no_flag() -> None:
    client = Flags(FlagSettings()).client
    unknown = client.get_boolean_details("noSuchFlag", True)
    assert (unknown.value, unknown.error_code) == (True, ErrorCode.FLAG_NOT_FOUND)
    assert client.get_string_details(NAME, "x").error_code is ErrorCode.TYPE_MISMATCH
    assert client.get_integer_details(NAME, 3).value == 3
    assert client.get_float_details("noSuchFlag", 3.5).error_code is ErrorCode.FLAG_NOT_FOUND
    assert client.get_object_details(NAME, {}).error_code is ErrorCode.TYPE_MISMATCH
    assert client.get_boolean_details("chaos.webrtc", True).error_code is ErrorCode.TYPE_MISMATCH


async def test_openfeature_notifies_its_subscribers_of_a_change() -> None:
    flags = await started(MemoryHub().bus("a"))
    changed: list[list[str] | None] = []
    flags.client.add_handler(
        ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, lambda details: changed.append(details.flags_changed)
    )
    await flags.set(WEBTORRENT, False)
    await until(lambda: changed == [[NAME]])
    await flags.set(WEBTORRENT, False)
    await flags.set_chaos(WEBTORRENT, ChaosFlag(drop=5))
    await until(lambda: changed[1:] == [["chaos.webtorrent"]])


def test_processes_do_not_share_their_flags() -> None:
    on, off = Flags(FlagSettings(webrtc=True)), Flags(FlagSettings(webrtc=False))
    assert on.client.domain != off.client.domain
    assert (on.client.get_boolean_value("webrtcTransport", False), off.enabled(TransportName.WEBRTC)) == (True, False)
