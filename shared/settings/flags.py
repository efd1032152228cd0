"""Run-time flags in the KV bucket `flags`: which transports are on, and whether fallbacks are told.

KV over environment over default: the environment's values only seed keys that are not there yet. A change is in
force in every connected process within 100 ms (a KV watch), in others when they are connected again. A value
that cannot be read is logged, counted and ignored: what was in force stays.

Value: JSON `{"enabled": bool, "changed_ms": int, "reset_ms": int}`; reset_ms is when it was last switched off,
from where the transport's status counters start again (Prometheus counters never decrease).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from shared.bus.contract import Bus, KeyValue, KvEntry, Subscription
from shared.bus.subjects import BUCKET_FLAGS
from shared.clock import unix_ms
from shared.errors import BusError, Cause
from shared.settings.config import FlagSettings
from shared.transport.names import TransportName

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
    """The flags of one process; reads are plain attribute reads of what the last watch told."""

    def __init__(self, seeds: FlagSettings) -> None:
        self._seeds = {
            FLAG_NAMES[TransportName.WEBRTC]: FlagValue(seeds.webrtc),
            FLAG_NAMES[TransportName.WEBTORRENT]: FlagValue(seeds.webtorrent),
            FLAG_NAMES[TransportName.BROADCAST]: FlagValue(seeds.broadcast),
            FALLBACK_TELEMETRY: FlagValue(seeds.fallback_telemetry),
        }
        self._values = dict(self._seeds)
        self._revisions: dict[str, int] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._bucket: KeyValue | None = None
        self._watch: Subscription | None = None
        self.malformed = 0

    async def start(self, bus: Bus) -> None:
        """Seed what is missing, then follow. Returns when the stored values are in force.

        Raises: BusError where the bucket cannot be opened.
        """
        self._bucket = await bus.kv(BUCKET_FLAGS)
        for name, seed in self._seeds.items():
            await self._bucket.create(name, msgspec.json.encode(seed))
        self._watch = await self._bucket.watch(self._receive)

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()
            self._watch = None

    def enabled(self, transport: TransportName) -> bool:
        return self._values[FLAG_NAMES[transport]].enabled

    @property
    def fallback_telemetry(self) -> bool:
        """Whether fallbacks are published as diagnostics."""
        return self._values[FALLBACK_TELEMETRY].enabled

    def counters_since_ms(self, transport: TransportName) -> int:
        """When the transport was last switched off: its status counters start there. 0 = never."""
        return self._values[FLAG_NAMES[transport]].reset_ms

    def snapshot(self) -> dict[str, bool]:
        """Every flag by name."""
        return {name: value.enabled for name, value in self._values.items()}

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called on the loop whenever a value in force has changed; ask `enabled` what it is now."""
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

    def _receive(self, entry: KvEntry) -> None:
        if entry.key not in self._seeds:
            return
        value = self._seeds[entry.key] if entry.value is None else self._decode(entry)
        if value is not None:
            self._apply(entry.key, value, entry.revision)

    def _decode(self, entry: KvEntry) -> FlagValue | None:
        try:
            return _DECODER.decode(entry.value or b"")
        except msgspec.DecodeError:
            self.malformed += 1
            log.error("flag %s: its stored value cannot be read and is ignored", entry.key)
            return None

    def _apply(self, name: str, value: FlagValue, revision: int) -> None:
        before = self._values[name]
        if revision <= self._revisions.get(name, 0) and value.changed_ms <= before.changed_ms:
            return  # what `set_named` put in force already, or what came before it
        self._revisions[name] = revision
        self._values[name] = value
        if (before.enabled, before.reset_ms) == (value.enabled, value.reset_ms):
            return
        for callback in self._callbacks:
            callback()
