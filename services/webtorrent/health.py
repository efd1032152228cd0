"""The worker's own state from what works. Pure.

    INITIALIZING until it listens and a way to find peers works, or START_GRACE_S are over
    READY        it listens and at least one way works
    DEGRADED     an optional part could not be imported, or the rendezvous document cannot be read (as long as that
                 is so: the last good one stays in force), or no way works

Links by hint work in every state; ACTIVE is the serving layer's word.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import Cause
from shared.transport.contract import StateChanged
from shared.transports import TransportState

START_GRACE_S = 5.0
"""A DHT without luck needs seconds; before that, no way working is no news."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What can find peers. age_s: since the worker began to listen."""

    dht_joined: bool
    trackers_up: int
    import_failed: bool
    age_s: float
    document_broken: bool = False


def state_of(ways: Ways) -> StateChanged:
    """The state to report; its cause is in `last_error`."""
    if ways.import_failed:
        return StateChanged(TransportState.DEGRADED, Cause.IMPORT_FAILED)
    if ways.document_broken:
        return StateChanged(TransportState.DEGRADED, Cause.MISCONFIGURED)
    if ways.dht_joined or ways.trackers_up:
        return StateChanged(TransportState.READY)
    if ways.age_s < START_GRACE_S:
        return StateChanged(TransportState.INITIALIZING)
    return StateChanged(TransportState.DEGRADED, Cause.SIGNALLING_UNAVAILABLE)
