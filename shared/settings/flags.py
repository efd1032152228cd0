"""Run-time flags in the KV bucket `flags`: which transports are on, whether fallbacks are reported, and chaos.

KV over environment over default: the environment's values only seed keys that are not there yet. A change is in
force in every connected process within 100 ms (a KV watch), in others when they are connected again. A value
that cannot be read is logged, counted and ignored: what was in force stays. Values are evaluated by OpenFeature
(shared.settings.evaluation) at each change, so that a read is a look into a dict.

A switch's value: JSON `{"enabled": bool, "changed_ms": int, "reset_ms": int}`; reset_ms is when it was last
switched off, from where the transport's status counters start again (Prometheus counters never decrease).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
from openfeature.client import OpenFeatureClient

from shared.bus.contract import Bus, KeyValue, KvEntry, Subscription
from shared.bus.messages.subjects import BUCKET_FLAGS
from shared.clock import unix_ms
from shared.errors import BusError, Cause
from shared.settings.chaos import CHAOS_KEYS, ChaosFlag, StoredChaos, chaos_key, decode_chaos
from shared.settings.config import FlagSettings
from shared.settings.evaluation import FlagsProvider, Held, bind
from shared.transports import TransportName
from shared.undecodable import UNDECODABLE

FLAG_NAMES: dict[TransportName, str] = {
    TransportName.WEBRTC: "webrtcTransport",
    TransportName.WEBTORRENT: "webTorrentTransport",
    TransportName.BROADCAST: "broadcastTransport",
}
FALLBACK_TELEMETRY = "transportFallbackTelemetry"

MAX_SET_TRIES = 8
"""Compare-and-set rounds before a change gives up: more than as many people pressing at once."""

log = logging.getLogger(__name__)


class FlagValue(msgspec.Struct, frozen=True):
    """One flag as it is stored. Times in ms of the wall clock, 0 = never."""

    enabled: bool
    changed_ms: int = 0
    reset_ms: int = 0


_DECODER = msgspec.json.Decoder(FlagValue)


class Flags:
    """The flags of one process; reads are look-ups of what the last watch reported.

    client: OpenFeature's own, for hooks and details. malformed: stored values that could not be read.
    """

    def __init__(self, seeds: FlagSettings) -> None:
        self._seeds = {
            FLAG_NAMES[TransportName.WEBRTC]: FlagValue(seeds.webrtc),
            FLAG_NAMES[TransportName.WEBTORRENT]: FlagValue(seeds.webtorrent),
            FLAG_NAMES[TransportName.BROADCAST]: FlagValue(seeds.broadcast),
            FALLBACK_TELEMETRY: FlagValue(seeds.fallback_telemetry),
        }
        self._values = dict(self._seeds)
        self._chaos_values = dict.fromkeys(CHAOS_KEYS, StoredChaos())
        self._revisions: dict[str, int] = {}
        self._provider = FlagsProvider(self._held)
        self.client: OpenFeatureClient = bind(self._provider)
        self._enabled: dict[str, bool] = {}
        self._chaos: dict[str, ChaosFlag] = {}
        for name in (*self._values, *self._chaos_values):
            self._evaluate(name)
        self._callbacks: list[Callable[[], None]] = []
        self._bucket: KeyValue | None = None
        self._watch: Subscription | None = None
        self.malformed = 0

    async def start(self, bus: Bus, *, seed: bool = True) -> None:
        """Seed what is missing, then follow. Returns when the stored values are in force.

        seed: False for a process that may read flags and not write them (shared.bus.nats.permissions.SETTINGS_WRITERS);
        where nothing is stored yet, its own start values hold.
        Raises: BusError where the bucket cannot be opened.
        """
        self._bucket = await bus.kv(BUCKET_FLAGS)
        for name, value in self._seeds.items() if seed else ():
            await self._bucket.create(name, msgspec.json.encode(value))
        self._watch = await self._bucket.watch(self._receive, restore=seed)

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()
            self._watch = None

    def enabled(self, transport: TransportName) -> bool:
        return self._enabled[FLAG_NAMES[transport]]

    @property
    def fallback_telemetry(self) -> bool:
        """Whether fallbacks are published as diagnostics."""
        return self._enabled[FALLBACK_TELEMETRY]

    def counters_since_ms(self, transport: TransportName) -> int:
        """When the transport was last switched off: its status counters start there. 0 = never."""
        return self._values[FLAG_NAMES[transport]].reset_ms

    def snapshot(self) -> dict[str, bool]:
        """Every switch by name."""
        return dict(self._enabled)

    def chaos(self, transport: TransportName) -> ChaosFlag | None:
        """The faults that are set for a transport, whether or not they may act here; None for none."""
        return self._chaos.get(chaos_key(transport))

    def chaos_snapshot(self) -> dict[str, ChaosFlag]:
        """The chaos flags that are set, by transport."""
        return {CHAOS_KEYS[name].value: flag for name, flag in self._chaos.items()}

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called on the loop whenever a value in force has changed; ask `enabled` or `chaos` what it is now."""
        self._callbacks.append(callback)

    async def set(self, transport: TransportName, enabled: bool) -> None:
        """Switch a transport for the whole node. Raises: as `set_named`."""
        await self.set_named(FLAG_NAMES[transport], enabled)

    async def set_named(self, name: str, enabled: bool) -> None:
        """Switch a flag by its name for the whole node; in force here when this returns.

        Raises: KeyError for an unknown name; BusError where it could not be stored.
        """
        if name not in self._seeds:
            raise KeyError(name)
        if self._bucket is None:
            raise BusError(Cause.OTHER, "flags are not started")
        for _ in range(MAX_SET_TRIES):
            entry = await self._bucket.get(name)
            stored = self._decode(entry) if entry is not None else None
            before = stored or self._values[name]
            if stored is not None and stored.enabled == enabled:
                return
            now_ms = unix_ms()
            value = FlagValue(enabled, now_ms, before.reset_ms if enabled else now_ms)
            data = msgspec.json.encode(value)
            if entry is None:
                revision = await self._bucket.create(name, data)
            else:
                revision = await self._bucket.update(name, data, entry.revision)
            if revision is not None:
                self._apply(name, value, revision)
                return
        raise BusError(Cause.BUSY, "the flag keeps being changed by others")

    async def set_chaos(self, transport: TransportName, flag: ChaosFlag | None) -> None:
        """Set, or with None clear, a transport's faults for the whole node; in force here when this returns.

        Whether chaos is allowed is the caller's to check (shared.settings.chaos.chaos_allowed), and each worker's.
        Raises: ValueError for a flag with a `problem`; BusError where it could not be stored.
        """
        if flag is not None and flag.problem:
            raise ValueError(flag.problem)
        if self._bucket is None:
            raise BusError(Cause.OTHER, "flags are not started")
        name, value = chaos_key(transport), StoredChaos(flag, unix_ms())
        revision = await self._bucket.put(name, msgspec.json.encode(value))
        self._apply_chaos(name, value, revision)

    def _receive(self, entry: KvEntry) -> None:
        if entry.key in self._seeds:
            value = self._seeds[entry.key] if entry.value is None else self._decode(entry)
            if value is not None:
                self._apply(entry.key, value, entry.revision)
        elif entry.key in CHAOS_KEYS:
            chaos = StoredChaos() if entry.value is None else self._decode_chaos(entry)
            if chaos is not None:
                self._apply_chaos(entry.key, chaos, entry.revision)

    def _decode(self, entry: KvEntry) -> FlagValue | None:
        try:
            return _DECODER.decode(entry.value or b"")
        except UNDECODABLE:
            self._ignore(entry)
            return None

    def _decode_chaos(self, entry: KvEntry) -> StoredChaos | None:
        try:
            return decode_chaos(entry.value or b"")
        except UNDECODABLE:
            self._ignore(entry)
            return None

    def _ignore(self, entry: KvEntry) -> None:
        self.malformed += 1
        log.error("flag %s: its stored value cannot be read and is ignored, %d so far", entry.key, self.malformed)

    def _apply(self, name: str, value: FlagValue, revision: int) -> None:
        before = self._values[name]
        if self._is_news(name, revision, value.changed_ms, before.changed_ms):
            self._values[name] = value
            if (before.enabled, before.reset_ms) != (value.enabled, value.reset_ms):
                self._changed(name)

    def _apply_chaos(self, name: str, value: StoredChaos, revision: int) -> None:
        before = self._chaos_values[name]
        if self._is_news(name, revision, value.changed_ms, before.changed_ms):
            self._chaos_values[name] = value
            if before.chaos != value.chaos:
                self._changed(name)

    def _is_news(self, name: str, revision: int, changed_ms: int, before_ms: int) -> bool:
        """False for what was put in force here when it was set, and for what came before that.

        The time counts too: a bucket that was created again counts its revisions from 1.
        """
        if revision <= self._revisions.get(name, 0) and changed_ms <= before_ms:
            return False
        self._revisions[name] = revision
        return True

    def _changed(self, name: str) -> None:
        self._evaluate(name)
        self._provider.changed(name)
        for callback in self._callbacks:
            callback()

    def _evaluate(self, name: str) -> None:
        """Ask OpenFeature, so that its hooks see each value once when it comes into force."""
        if name in self._seeds:
            self._enabled[name] = self.client.get_boolean_value(name, self._seeds[name].enabled)
            return
        value = self.client.get_object_value(name, {})
        if value:
            self._chaos[name] = msgspec.convert(value, ChaosFlag)
        else:
            self._chaos.pop(name, None)

    def _held(self, name: str) -> Held | None:
        """What the provider answers."""
        if name in self._values:
            return Held(self._values[name].enabled, name in self._revisions)
        if name in self._chaos_values:
            chaos = self._chaos_values[name].chaos
            return Held(msgspec.to_builtins(chaos) if chaos is not None else {}, name in self._revisions)
        return None
