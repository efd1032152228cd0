"""How often each fault is brought about under each policy, and how long everything may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ops.bench.bus_workers import Behaviour
from ops.bench.node_faults import (
    QUIET_S,
    Fault,
    dead_peer_server,
    dead_peer_server_no_link,
    killed_worker,
    no_link,
    silent_peer,
    silent_peer_quiet_link,
    stopped_worker,
)
from ops.bench.policies import LIBP2P, PLAIN, PRODUCT, Policy

MANAGER_COUNTS = (1, 2, 4)

NODE_FAULTS: Mapping[str, Fault] = {
    "no link (503)": no_link,
    "dead PeerServer, 2nd link open": dead_peer_server,
    "silent primary, busy link": silent_peer,
    "silent primary, quiet link": silent_peer_quiet_link,
    "stopped worker, in flight": stopped_worker,
    "killed worker, in flight": killed_worker,
    "dead PeerServer, no link": dead_peer_server_no_link,
}
"""In the order in which they are measured: what time runs out for are the last ones."""


@dataclass(frozen=True, slots=True)
class BusFault:
    """quiet_s: without a delivery before it. may_stay: it is no reason to leave the first transport."""

    behaviour: Behaviour
    quiet_s: float = 0.0
    may_stay: bool = False


BUS_FAULTS: Mapping[str, BusFault] = {
    "refused": BusFault(Behaviour.REFUSE),
    "slow but alive (made up)": BusFault(Behaviour.SLOW, may_stay=True),
    "silent, busy link (made up)": BusFault(Behaviour.STAY_SILENT),
    "silent, quiet link (made up)": BusFault(Behaviour.STAY_SILENT, quiet_s=QUIET_S),
}
EXPLICIT = ("no link (503)", "refused", "dead PeerServer, 2nd link open")
SILENT = tuple(name for name in (*NODE_FAULTS, *BUS_FAULTS) if name.startswith("silent"))

EXPLICIT_P99_AIM_MS = 25.0
SILENT_P99_AIM_MS = 500.0
"""With the second link open. Aims, not assertions: they are printed beside what was measured."""

Counts = tuple[int, int, int]
"""Rounds under the product, the 250 ms ladder, the 2 s ladder: each is given about the same time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """limit_s: for all measuring; a fault whose turn comes later gets one round. fault_limit_s: for one fault."""

    nodes: Mapping[str, Counts]
    bus: Mapping[str, Counts]
    throughput_s: float
    fault_limit_s: float
    limit_s: float

    def rounds(self, fault: str, policy: Policy) -> int:
        counts = self.nodes[fault] if fault in self.nodes else self.bus[fault]
        return counts[(PRODUCT, LIBP2P, PLAIN).index(policy)]


FULL = Plan(
    nodes=dict(
        zip(
            NODE_FAULTS,
            [(200, 200, 200), (150, 150, 150), (24, 20, 8), (24, 20, 6), (16, 16, 8), (14, 12, 6), (6, 5, 4)],
            strict=True,
        )
    ),
    bus=dict(zip(BUS_FAULTS, [(300, 300, 300), (16, 16, 16), (40, 30, 6), (30, 24, 5)], strict=True)),
    throughput_s=3.0,
    fault_limit_s=40.0,
    limit_s=480.0,
)
QUICK = Plan(
    nodes=dict(
        zip(
            NODE_FAULTS,
            [(30, 30, 30), (20, 20, 20), (3, 2, 1), (3, 2, 1), (2, 1, 1), (2, 1, 1), (1, 1, 1)],
            strict=True,
        )
    ),
    bus=dict(zip(BUS_FAULTS, [(40, 40, 40), (2, 2, 2), (6, 3, 1), (6, 3, 1)], strict=True)),
    throughput_s=1.0,
    fault_limit_s=4.0,
    limit_s=36.0,
)
