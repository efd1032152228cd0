"""Chaos flags: faults that a transport's workers bring about on purpose, to see what fallback does about them.

A flag acts on requests, never on records: a sealed link counts its records, so that a lost one closes it. It
lives beside the other flags, in the KV bucket `flags` under `chaos.<transport>`, and acts only where
`chaos_allowed` says so. Value: JSON `{"chaos": {drop, delayMs, refuse, percent, peer} | null, "changed_ms": int}`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from shared.ids import is_peer_name
from shared.settings.config import NodeSettings
from shared.transports import TransportName

MAX_DELAY_MS = 60_000
"""Far beyond every delivery's deadline: longer is `drop`."""

ALL_PERCENT = 100
CHAOS_KEYS: dict[str, TransportName] = {f"chaos.{name.value}": name for name in TransportName}


class Fault(StrEnum):
    """What was done to a request.

    DROP: accepted and never sent, so that the peer stays silent. DELAY: sent later. REFUSE: refused at once.
    """

    DROP = "drop"
    DELAY = "delay"
    REFUSE = "refuse"


class ChaosFlag(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The faults of one transport.

    percent: of all requests, those that are touched. Of these, `refuse` % are refused, `drop` % are dropped, and
    what is left is sent `delay_ms` later. peer: the only peer it is for, by name; "" = every peer.
    """

    drop: int = 0
    delay_ms: int = 0
    refuse: int = 0
    percent: int = ALL_PERCENT
    peer: str = ""

    @property
    def problem(self) -> str:
        """What is wrong with it, in words for the person who set it; "" where nothing is."""
        if min(self.drop, self.refuse) < 0 or self.drop + self.refuse > ALL_PERCENT:
            return "drop and refuse are percentages, 100 together at most"
        if not 0 <= self.delay_ms <= MAX_DELAY_MS:
            return f"delayMs is 0 to {MAX_DELAY_MS}"
        if not 1 <= self.percent <= ALL_PERCENT:
            return "percent is 1 to 100"
        if not (self.drop or self.refuse or self.delay_ms):
            return "one of drop, delayMs and refuse must be set"
        if self.peer and not is_peer_name(self.peer):
            return "peer is a peer's name: peer- or guest- and 16 hex digits"
        return ""

    def fault(self, peer: str, roll: Callable[[], float]) -> Fault | None:
        """What to do to one request to `peer` (a name). roll: fresh numbers, evenly from 0 to below 1."""
        if self.peer not in ("", peer) or roll() * ALL_PERCENT >= self.percent:
            return None
        which = roll() * ALL_PERCENT
        if which < self.refuse:
            return Fault.REFUSE
        if which < self.refuse + self.drop:
            return Fault.DROP
        return Fault.DELAY if self.delay_ms else None


class StoredChaos(msgspec.Struct, frozen=True):
    """A chaos flag as it is stored; chaos None: cleared. changed_ms: wall clock, 0 = never set."""

    chaos: ChaosFlag | None = None
    changed_ms: int = 0


_DECODER = msgspec.json.Decoder(StoredChaos)


def chaos_key(transport: TransportName) -> str:
    """Its key in the bucket, and its name for OpenFeature."""
    return f"chaos.{transport.value}"


def decode_chaos(data: bytes) -> StoredChaos:
    """Raises: one of UNDECODABLE for what is no chaos flag, or one with a `problem`."""
    stored = _DECODER.decode(data)
    if stored.chaos is not None and stored.chaos.problem:
        raise msgspec.ValidationError(stored.chaos.problem)
    return stored


def chaos_allowed(node: NodeSettings) -> bool:
    """Whether chaos flags may be set and act here: in development, elsewhere only where settings say so."""
    return node.environment == "development" or node.allow_chaos
