"""Who holds the node's signalling socket: a lease in KV, as a machine without I/O.

A node has one PeerJS id and any number of webrtc workers, so one of them holds the socket for all. The lease is
one KV entry with a TTL. Its holder renews it; a rival reads it every second, pings the holder, and when nobody
serves the holder's subject any more takes over by compare-and-set at once, without waiting for the TTL.

States:
    FOLLOWING   another holds it, or nobody yet
    HOLDING     ours, until `held_until`, which counts from before the last write that succeeded was sent

Driven by:  `handle_timer` at `next_deadline`; it and every answer return the next command, None = wait. Answers:
            `lease_read`, `holder_answered | holder_gone | holder_silent`, `lease_written | lease_refused`,
            `bus_failed`.
Invariants: at most one worker writes with success for a revision (KV's compare-and-set); a holder that has not
            renewed for a TTL no longer holds, whatever it hears. A frozen holder may wake and believe for a moment
            that it holds: the fence is the PeerServer, where the same id and token re-attach (docs/peerjs.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

LEASE_KEY = "signal"
LEASE_TTL_S = 10.0
"""docs/architecture.md. Shorter ones were lost while a NATS cluster elected a leader (docs/nats.md)."""
RENEW_EVERY_S = 2.5
"""A holder may miss three renewals."""
WATCH_EVERY_S = 1.0
"""A rival's look at the holder: the largest part of the 3 s in which a killed holder is replaced."""
PING_TIMEOUT_S = 0.5
"""A holder that is there answers within milliseconds; silence is not yet death."""
VACANT_TTL_S = 1.0
"""A released lease is written as vacant, so that release too is a compare-and-set; it goes by itself."""


class LeaseRecord(msgspec.Struct, frozen=True):
    """The lease's value, JSON. holder: instance, "" = vacant. open: whether its socket is registered."""

    holder: str
    open: bool = False


@dataclass(frozen=True, slots=True)
class ReadLease:
    """Get the entry and call `lease_read`."""


@dataclass(frozen=True, slots=True)
class PingHolder:
    """Ping that worker and call `holder_answered`, `holder_gone` (nobody serves it) or `holder_silent`."""

    holder: str


@dataclass(frozen=True, slots=True)
class WriteLease:
    """Create (revision None) or update the entry, then call `lease_written` or `lease_refused`."""

    record: LeaseRecord
    revision: int | None
    ttl_s: float


Command = ReadLease | PingHolder | WriteLease


class SignalLease:
    """The lease as worker `me` sees it."""

    def __init__(self, me: str, ttl_s: float = LEASE_TTL_S, watch_every_s: float = WATCH_EVERY_S) -> None:
        self._me = me
        self._ttl_s = ttl_s
        self._watch_every_s = watch_every_s
        self._renew_every_s = min(RENEW_EVERY_S, ttl_s / 4)
        self._revision: int | None = None
        self._held_until: float | None = None
        self._seen = LeaseRecord("")
        self._written = LeaseRecord("")
        self._written_at = 0.0
        self._deadline = 0.0
        self._open = False
        self._others_open = False

    # ── what it knows ────────────────────────────────────────────────────────────────────────────────────

    def holding(self, now: float) -> bool:
        return self._held_until is not None and now < self._held_until

    def signalling_up(self, now: float) -> bool:
        """Whether a socket is registered: ours, or that of a holder which answered when last asked."""
        return self._open if self.holding(now) else self._others_open

    def next_deadline(self) -> float:
        """When to call `handle_timer`."""
        return self._deadline if self._held_until is None else min(self._deadline, self._held_until)

    # ── timers ───────────────────────────────────────────────────────────────────────────────────────────

    def handle_timer(self, now: float) -> Command | None:
        # Before anything else: what was held a moment ago must not be renewed as if it still were.
        if self._held_until is not None and now >= self._held_until:
            self._lose(now)
        if now < self._deadline:
            return None
        if self._held_until is None:
            # Ahead of the answer: where none comes, the next look is due all the same.
            self._deadline = now + self._watch_every_s
            return ReadLease()
        self._deadline = now + self._renew_every_s
        return self._write(self._revision, now)

    def socket_changed(self, is_open: bool, now: float) -> None:
        """Our socket opened or closed; followers learn it from the next renewal, which is due at once."""
        if self._open != is_open:
            self._open = is_open
            if self._held_until is not None:
                self._deadline = now

    def release(self, now: float) -> Command | None:
        """Give the lease back, where it is ours. The write's result does not matter."""
        if not self.holding(now):
            return None
        revision = self._revision
        # First: whatever becomes of the write, we do not hold it any more.
        self._lose(now)
        return WriteLease(LeaseRecord(""), revision, VACANT_TTL_S)

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────

    def lease_read(self, record: LeaseRecord | None, revision: int, now: float) -> Command | None:
        """The entry as it is now; None = there is none."""
        if record is None:
            self._others_open = False
            return self._write(None, now)
        if record.holder in ("", self._me):  # vacant; or ours, by a write whose answer was lost
            return self._write(revision, now)
        if self._held_until is not None:
            self._lose(now)
        self._revision = revision
        # Only what its holder says for itself counts: the entry outlives it by a TTL.
        self._others_open = self._others_open and record.open
        self._seen = record
        return PingHolder(record.holder)

    def holder_answered(self) -> None:
        self._others_open = self._seen.open

    def holder_gone(self, now: float) -> Command:
        self._others_open = False
        return self._write(self._revision, now)

    def holder_silent(self) -> None:
        """Stopped, cut off or busy: the TTL decides. A ping lost once does not make signalling down."""

    def lease_written(self, revision: int, now: float) -> None:
        self._revision = revision
        self._held_until = self._written_at + self._ttl_s
        self._others_open = False
        # The socket may have changed while the write was out: then another is due at once.
        known = self._written.open == self._open
        self._deadline = self._written_at + self._renew_every_s if known else now

    def lease_refused(self) -> Command | None:
        """The revision has moved on: another holds it, or an earlier write of ours got through unnoticed."""
        # A follower looks again in its own time: two that race would ask the bus in a tight loop.
        return ReadLease() if self._held_until is not None else None

    def bus_failed(self, now: float) -> None:
        """No answer from the bus: what we hold we keep until its time is up; what others do is unknown."""
        self._others_open = False
        if self._held_until is not None:
            # Sooner than a renewal, as one has just been missed; `_held_until` is not moved.
            self._deadline = now + self._renew_every_s / 2

    def _write(self, revision: int | None, now: float) -> WriteLease:
        # When it is sent and not when it is confirmed: the server's TTL cannot have begun before.
        self._written_at = now
        self._written = LeaseRecord(self._me, self._open)
        return WriteLease(self._written, revision, self._ttl_s)

    def _lose(self, now: float) -> None:
        self._held_until = None
        self._revision = None
        self._open = False
        self._deadline = now
