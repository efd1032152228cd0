"""Circuit breakers a (peer, transport), folded from the hops stream: all managers agree, a new one knows.

    CLOSED      ── 5 failures in a row, or half of the last 20 ──▶ OPEN   (traffic goes elsewhere)
    OPEN        ── back-off over, or the link was proved good ──▶ one trial delivery at a time
    trial       ── as many good ones in a row as times it opened, at most 3 ──▶ CLOSED
    trial       ── failure ──▶ OPEN, back-off doubled
    CLOSED      ── failure within 30 s of its return ──▶ OPEN, back-off doubled (hysteresis)

Breakers gate traffic only; probes (services.manager.routing.peers) go on regardless. A probe that finds a link proves
it good, and so does a request of the peer's own that came over it: a transport is back within 10 s of its recovery
however long its back-off has become. Failures that began before the last counted one had
ended are the same incident and count once: a closed link with 64 requests on it is one failure.

Pure: records in stream order, wall-clock milliseconds as arguments. Which trial is in flight is each manager's
own; everything else comes from the records.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.hops.fold import OUTCOME_ACCEPTED, OUTCOME_CANCELLED, OUTCOME_CONFIRMED, OUTCOME_FAILED

FAILURES_TO_OPEN = 5
"""In a row (swarm-space's circuit)."""

BUDGET_WINDOW = 20
BUDGET_FAILURES = 10
"""The error budget: half of the last BUDGET_WINDOW hops, in a row or not."""

BACKOFF_FIRST_MS = 2_000
BACKOFF_CAP_MS = 300_000
"""2 s doubling to 5 min, as in swarm-space."""

PROOF_INTERVAL_MS = 2_000
"""Between two trials that proofs let through: a link that brings the peer's requests and loses ours costs one
delivery a detour this often, and no more."""

MAX_TRIALS_TO_CLOSE = 3
STABLE_MS = 30_000
"""A transport is trusted again, and its back-off forgotten, after this long without opening."""

TRIAL_TIMEOUT_MS = 5_000
"""A trial that left no record by then (its manager died) no longer holds the next one back."""

MAX_CIRCUITS = 8_192
"""Circuits kept; the least recently used is forgotten, which closes it."""

CHARGEABLE = frozenset(
    {
        Cause.SILENT,
        Cause.TIMEOUT,
        Cause.CLOSED,
        Cause.REFUSED,
        Cause.UNAUTHENTICATED,
        Cause.CLOCK_SKEW,
        Cause.WORKER_LOST,
        Cause.INTEGRITY_MISMATCH,
        Cause.INVALID,
        Cause.OTHER,
    }
)
"""What says that a link cannot be relied on. No link at all costs a millisecond and says nothing of the next
link; busy, draining and disabled are orderly; source_lost is our own; the rest is about one request."""


@dataclass(slots=True)
class _Circuit:
    """opened_ms 0 = closed. level: times it opened without a stable while between."""

    level: int = 0
    opened_ms: int = 0
    open_until_ms: int = 0
    returned_ms: int = 0
    failures: int = 0
    last_failure_ms: int = 0
    good_trials: int = 0
    window: deque[bool] = field(default_factory=lambda: deque(maxlen=BUDGET_WINDOW))
    trial_until_ms: int = 0
    trial_granted: bool = False
    proved_ms: int = 0


class Breakers:
    """All circuits. Peers are peer *names*, as in the records."""

    def __init__(self) -> None:
        self._circuits: OrderedDict[tuple[str, str], _Circuit] = OrderedDict()

    def apply(self, record: HopRecord, stored_ms: int) -> None:
        """Fold one record of the stream in."""
        good = record.outcome in (OUTCOME_CONFIRMED, OUTCOME_ACCEPTED)
        charged = record.outcome in (OUTCOME_FAILED, OUTCOME_CANCELLED) and record.cause in CHARGEABLE
        key = (record.peer, record.transport)
        if not good and not charged:
            self._end_trial(key, record)
            return
        circuit = self._circuit(key)
        # It began before the circuit opened, and shows nothing of the link as it has been since.
        if circuit.opened_ms and record.started_ms < circuit.opened_ms:
            return
        circuit.trial_until_ms = 0
        if good:
            _count_good(circuit, stored_ms)
        else:
            _count_failure(circuit, record.started_ms, stored_ms)

    def allows(self, peer: str, transport: str, now_ms: int) -> bool:
        """Whether a delivery may use it now; where it is open, that delivery is a trial (`trial_started`)."""
        circuit = self._circuits.get((peer, transport))
        if circuit is None or not circuit.opened_ms:
            return True
        # One trial at a time, also where the next would be due: a link in doubt carries one delivery.
        if now_ms < circuit.trial_until_ms:
            return False
        return circuit.trial_granted or now_ms >= circuit.open_until_ms

    def is_open(self, peer: str, transport: str) -> bool:
        circuit = self._circuits.get((peer, transport))
        return circuit is not None and circuit.opened_ms > 0

    def trial_started(self, peer: str, transport: str, now_ms: int) -> None:
        """This manager sends a delivery on it; on a closed circuit that means nothing."""
        circuit = self._circuits.get((peer, transport))
        if circuit is not None and circuit.opened_ms:
            circuit.trial_until_ms = now_ms + TRIAL_TIMEOUT_MS
            circuit.trial_granted = False

    def proved(self, peer: str, transport: str, now_ms: int) -> None:
        """The link is there and carries something: one trial may go, whatever is left of the back-off."""
        circuit = self._circuits.get((peer, transport))
        if circuit is None or not circuit.opened_ms:
            return
        # Counted from the opening as well: the proof may be the very request whose neighbours have just failed.
        if now_ms - max(circuit.opened_ms, circuit.proved_ms) >= PROOF_INTERVAL_MS:
            circuit.proved_ms = now_ms
            circuit.trial_granted = True

    def _end_trial(self, key: tuple[str, str], record: HopRecord) -> None:
        circuit = self._circuits.get(key)
        # Neither good nor bad (busy, no link), but over: another trial may take its place.
        if circuit is not None and circuit.opened_ms and record.started_ms >= circuit.opened_ms:
            circuit.trial_until_ms = 0

    def _circuit(self, key: tuple[str, str]) -> _Circuit:
        circuit = self._circuits.get(key)
        if circuit is None:
            circuit = self._circuits[key] = _Circuit()
            while len(self._circuits) > MAX_CIRCUITS:
                self._circuits.popitem(last=False)
        # Only circuits that had a record are kept: a look-up makes none.
        self._circuits.move_to_end(key)
        return circuit


def _count_good(circuit: _Circuit, now_ms: int) -> None:
    # In a row: one good hop begins the count again; the window keeps what it has seen.
    circuit.failures = 0
    circuit.window.append(True)
    if not circuit.opened_ms:
        if circuit.level and now_ms - circuit.returned_ms >= STABLE_MS:
            circuit.level = 0
        return
    circuit.good_trials += 1
    # The next trial need not wait for the back-off: it is the link's word that counts now.
    circuit.trial_granted = True
    if circuit.good_trials >= min(MAX_TRIALS_TO_CLOSE, circuit.level):
        circuit.opened_ms = 0
        circuit.returned_ms = now_ms
        # What opened it must not open it again with its next failure.
        circuit.window.clear()


def _count_failure(circuit: _Circuit, started_ms: int, now_ms: int) -> None:
    if not circuit.opened_ms and started_ms < circuit.last_failure_ms:
        # The same incident, for the run of failures. The budget is about shares, so there each one counts.
        circuit.window.append(False)
    else:
        circuit.last_failure_ms = now_ms
        circuit.failures += 1
        circuit.window.append(False)
    just_returned = circuit.level > 0 and now_ms - circuit.returned_ms < STABLE_MS
    over_budget = len(circuit.window) == BUDGET_WINDOW and circuit.window.count(False) >= BUDGET_FAILURES
    if circuit.opened_ms or just_returned or over_budget or circuit.failures >= FAILURES_TO_OPEN:
        _open(circuit, now_ms)


def _open(circuit: _Circuit, now_ms: int) -> None:
    # As in _count_good: with no hop between, nobody has noticed that it was stable.
    if not circuit.opened_ms and circuit.level and now_ms - circuit.returned_ms >= STABLE_MS:
        circuit.level = 0
    circuit.level += 1
    circuit.opened_ms = now_ms
    # 16 doublings are past the cap, and keep the power small.
    circuit.open_until_ms = now_ms + min(BACKOFF_CAP_MS, BACKOFF_FIRST_MS * 2 ** min(circuit.level - 1, 16))
    circuit.good_trials = 0
    circuit.failures = 0
    circuit.trial_granted = False
    circuit.window.clear()
