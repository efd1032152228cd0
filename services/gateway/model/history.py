"""What changed in the node lately: flags, blocks, workers, drains, transports, links, the bus itself. Pure, bounded.

*Driven by*: heartbeats and link events as they come, flags and blocks when they change, and `look` twice a second,
which notices what did not come. Changes of links are kept apart, and of blocks too: a peer that flaps or a long
blocklist must not push out the flag that somebody switched. Times: `at` in ms of the wall clock, `now_s` seconds of
a monotonic clock.

What was so when the gateway started is no change, but for chaos and blocks, which explain what happens until they
are taken back. A transport's step between ready and active is none either.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.gateway.model.status import WORKER_EXPIRY_S
from shared.bus.messages.records import LinkChanged, WorkerStatus
from shared.errors import Cause
from shared.gateway_api.structs import TransportStats
from shared.gateway_api.why import Change
from shared.settings.blocklist import Block, Direction
from shared.settings.chaos import ALL_PERCENT, ChaosFlag
from shared.transports import TransportState

ALL_QUIET_S = 2.0
"""Two heartbeats of every process."""
BUS_NOTICED_S = 3.0
"""By then the connection knows that its server is frozen or gone: two pings of a second each, and some."""
MAX_CHANGES = 512
"""Ours: a node with ten restarts a minute is remembered for an hour."""
MAX_LINK_CHANGES = 2048
MAX_BLOCK_CHANGES = 512
"""Of blocks that are no more. Those in force are all remembered; the blocklist has a limit of its own."""
MAX_WORKERS = 256
"""Heard of and not yet missed; the one heard of longest ago is forgotten first."""

DIRECTION_WORDS = {
    Direction.INBOUND.value: "inbound",
    Direction.OUTBOUND.value: "outbound",
    Direction.ALL.value: "both ways",
}
"""How sentences say which way a peer is blocked."""

_SERVING = (TransportState.READY.value, TransportState.ACTIVE.value)
_TROUBLED = (TransportState.DEGRADED.value, TransportState.ERROR.value)


class ChangeKind(StrEnum):
    FLAG_OFF = "flag_off"
    FLAG_ON = "flag_on"
    CHAOS_SET = "chaos_set"
    CHAOS_CLEARED = "chaos_cleared"
    PEER_BLOCKED = "peer_blocked"
    PEER_UNBLOCKED = "peer_unblocked"
    WORKER_LOST = "worker_lost"
    WORKER_LEFT = "worker_left"
    WORKER_CAME = "worker_came"
    DRAINING = "draining"
    SIGNALLING_LOST = "signalling_lost"
    SIGNALLING_BACK = "signalling_back"
    TRANSPORT_TROUBLED = "transport_troubled"
    TRANSPORT_BACK = "transport_back"
    LINK_OPENED = "link_opened"
    LINK_CLOSED = "link_closed"
    BUS_LOST = "bus_lost"
    BUS_BACK = "bus_back"


@dataclass(frozen=True, slots=True)
class _Worker:
    status: WorkerStatus
    at_s: float
    at_ms: int


class History:
    """The node's changes. started_s: whatever is first heard of within WORKER_EXPIRY_S of it was there before.

    started_ms: the same moment on the wall clock; nothing from before it is known.
    """

    def __init__(self, started_s: float, started_ms: int) -> None:
        self.started_ms = started_ms
        self._settled_s = started_s + WORKER_EXPIRY_S
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self._links: deque[Change] = deque(maxlen=MAX_LINK_CHANGES)
        self._blocks: dict[str, Change] = {}
        self._past_blocks: deque[Change] = deque(maxlen=MAX_BLOCK_CHANGES)
        self._workers: OrderedDict[str, _Worker] = OrderedDict()
        self._flags: dict[str, bool] | None = None
        self._chaos: dict[str, ChaosFlag] = {}
        self._states: dict[str, tuple[bool, str | None]] = {}
        self._looked = False
        self._connected = True
        self._heard_s = started_s

    # ── what happens ──

    def flags_are(self, flags: Mapping[str, bool], transports: Mapping[str, str], now_ms: int) -> None:
        """All flags by name, at the start and at each change. transports: a flag's transport, where it has one."""
        before, self._flags = self._flags, dict(flags)
        for name, enabled in flags.items():
            if before is None or before.get(name, enabled) == enabled:
                continue
            transport = transports.get(name)
            kind = ChangeKind.FLAG_ON if enabled else ChangeKind.FLAG_OFF
            text = f"{transport or name} was switched {'on' if enabled else 'off'}"
            cause = Cause.DISABLED.value if transport is not None and not enabled else None
            self._changes.append(Change(now_ms, kind, text, transport, cause=cause))

    def chaos_is(self, chaos: Mapping[str, ChaosFlag], now_ms: int) -> None:
        """The chaos flags that are set, by transport. One that was set before the gateway started is shown too."""
        before, self._chaos = self._chaos, dict(chaos)
        for transport in sorted(before.keys() | chaos.keys()):
            old, new = before.get(transport), chaos.get(transport)
            if new is not None and new != old:
                text = f"chaos was set on {transport} ({_chaos_words(new)})"
                self._changes.append(Change(now_ms, ChangeKind.CHAOS_SET, text, transport, new.peer or None))
            elif old is not None and new is None:
                text = f"chaos was cleared on {transport}"
                self._changes.append(Change(now_ms, ChangeKind.CHAOS_CLEARED, text, transport, old.peer or None))

    def block_is(self, peer: str, block: Block | None, now_ms: int) -> None:
        """A peer's block, at the start and at each change; None: it has none. It says itself since when it is so."""
        before = self._blocks.pop(peer, None)
        if before is not None:
            self._past_blocks.append(before)
        if block is not None:
            since_ms = min(block.since_ms or now_ms, now_ms)
            at_ms = max(since_ms, before.at) if before is not None else since_ms
            text = f"{peer} was blocked ({_block_words(block)})"
            direction = block.direction.value
            self._blocks[peer] = Change(at_ms, ChangeKind.PEER_BLOCKED, text, peer=peer, direction=direction)
        elif before is not None:
            text = f"{peer} was unblocked"
            self._past_blocks.append(Change(now_ms, ChangeKind.PEER_UNBLOCKED, text, peer=peer))

    def heard(self, status: WorkerStatus, now_s: float, now_ms: int) -> None:
        """A worker's heartbeat."""
        self.heard_somebody(now_s)
        old = self._workers.pop(status.worker, None)
        self._workers[status.worker] = _Worker(status, now_s, now_ms)
        if len(self._workers) > MAX_WORKERS:
            self._workers.popitem(last=False)
        if old is None and now_s >= self._settled_s:
            self._worker(ChangeKind.WORKER_CAME, status, "came", now_ms)
        if status.draining and (old is None or not old.status.draining):
            self._worker(ChangeKind.DRAINING, status, "is about to stop", now_ms, Cause.DRAINING)

    def heard_somebody(self, now_s: float) -> None:
        """Any process's heartbeat: the bus carries."""
        self._heard_s = now_s

    def link_changed(self, link: LinkChanged) -> None:
        """A link was opened or closed, as its worker says."""
        opened = link.change == "opened"
        kind = ChangeKind.LINK_OPENED if opened else ChangeKind.LINK_CLOSED
        why = f" ({link.cause.value})" if link.cause is not None and not opened else ""
        text = f"the {link.transport} link to {link.peer} was {'opened' if opened else 'closed'}{why}"
        cause = link.cause.value if link.cause is not None else None
        self._links.append(Change(link.at_ms, kind, text, link.transport, link.peer, cause, link.worker))

    def look(self, rows: Collection[TransportStats], now_s: float, now_ms: int, *, connected: bool) -> None:
        """Notice workers that are silent and transports whose state is another. connected: whether we hear at all."""
        if connected != self._connected:
            self._connected = connected
            kind = ChangeKind.BUS_BACK if connected else ChangeKind.BUS_LOST
            text = "the gateway hears the bus again" if connected else "the gateway lost the bus"
            self._changes.append(Change(now_ms, kind, text))
            # Nobody could be heard: each worker gets the time to be heard again before it counts as lost.
            self._settled_s = now_s + WORKER_EXPIRY_S
        quiet_s = now_s - self._heard_s
        # All at once are silent because the bus is, more likely than not; its connection takes longer to notice.
        in_doubt = ALL_QUIET_S < quiet_s < WORKER_EXPIRY_S + BUS_NOTICED_S
        if not connected or now_s < self._settled_s:
            return
        if not in_doubt:
            self._miss_workers(now_s)
        for row in rows:
            if not in_doubt or row.last_error != Cause.WORKER_LOST.value:
                self._state_is(row, now_ms)
        self._looked = True

    # ── what is shown of it ──

    def changes(self, since_ms: int, peers: Collection[str]) -> list[Change]:
        """Since then, oldest first; of those that are about one peer, as links are, those about `peers` alone."""
        kept = (*self._changes, *self._links, *self._past_blocks, *self._blocks.values())
        found = (change for change in kept if change.at >= since_ms)
        return sorted((one for one in found if one.peer is None or one.peer in peers), key=lambda one: one.at)

    def knows_peer(self, peer: str) -> bool:
        """Whether it is blocked, or was lately, or a link to it was opened or closed lately."""
        return peer in self._blocks or any(change.peer == peer for change in (*self._links, *self._past_blocks))

    # ── within ──

    def _miss_workers(self, now_s: float) -> None:
        # From a bus that was away, nobody counts as silent before `_settled_s` (checked by `look`).
        silent = [worker for worker in self._workers.values() if now_s - worker.at_s > WORKER_EXPIRY_S]
        for worker in silent:
            del self._workers[worker.status.worker]
            # When it was last heard is nearer to the truth than when it was missed.
            if worker.status.draining:
                self._worker(ChangeKind.WORKER_LEFT, worker.status, "has stopped", worker.at_ms, Cause.DRAINING)
            else:
                self._worker(ChangeKind.WORKER_LOST, worker.status, "was lost", worker.at_ms, Cause.WORKER_LOST)

    def _worker(
        self, kind: ChangeKind, status: WorkerStatus, verb: str, at_ms: int, cause: Cause | None = None
    ) -> None:
        text = f"the {status.transport} worker {status.worker} {verb}"
        code = cause.value if cause is not None else None
        self._changes.append(Change(at_ms, kind, text, status.transport, cause=code, worker=status.worker))

    def _state_is(self, row: TransportStats, now_ms: int) -> None:
        """Only serving and troubled are distinguished; off is a flag's, and a start is on its way to one of them."""
        if not row.enabled or row.state not in (*_SERVING, *_TROUBLED):
            return
        troubled = row.state in _TROUBLED
        state = (troubled, row.last_error if troubled else None)
        before = self._states.get(row.id)
        self._states[row.id] = state
        if before == state or not self._looked:
            return
        if troubled:
            self._changes.append(_trouble(row, now_ms))
        elif before is not None and before[0]:
            signalling = before[1] == Cause.SIGNALLING_UNAVAILABLE.value
            kind = ChangeKind.SIGNALLING_BACK if signalling else ChangeKind.TRANSPORT_BACK
            text = f"{row.id} reaches a signalling server again" if signalling else f"{row.id} serves again"
            self._changes.append(Change(now_ms, kind, text, row.id))


def _chaos_words(flag: ChaosFlag) -> str:
    parts = [f"{word} {share} %" for word, share in (("refuse", flag.refuse), ("drop", flag.drop)) if share]
    if flag.delay_ms:
        parts.append(f"delay {flag.delay_ms} ms")
    if flag.percent < ALL_PERCENT:
        parts.append(f"of {flag.percent} %")
    return ", ".join(parts)


def _block_words(block: Block) -> str:
    words = DIRECTION_WORDS[block.direction.value]
    return f'{words}, "{block.note}"' if block.note else words


def _trouble(row: TransportStats, now_ms: int) -> Change:
    if row.last_error == Cause.SIGNALLING_UNAVAILABLE.value:
        text = f"{row.id} reaches no signalling server"
        return Change(now_ms, ChangeKind.SIGNALLING_LOST, text, row.id, cause=row.last_error)
    if row.last_error == Cause.WORKER_LOST.value:
        text = f"{row.id} has no worker left"
    else:
        text = f"{row.id} is {row.state}" + (f" ({row.last_error})" if row.last_error else "")
    return Change(now_ms, ChangeKind.TRANSPORT_TROUBLED, text, row.id, cause=row.last_error)
