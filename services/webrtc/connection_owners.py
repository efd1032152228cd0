"""Which worker each PeerJS connection belongs to, as the lease holder keeps it. Pure: `now` is an argument.

A connection is named by its dialer, so it is looked up together with the far peer's id, which the PeerServer sets:
a stranger that guesses another's connection id reaches nothing.

    dialled   a worker sends an OFFER           -> its ANSWER, CANDIDATEs and EXPIRE go to that worker
    offered   an OFFER came, a worker is sought -> CANDIDATEs wait here until it is taken
    taken     a worker took it                  -> the rest goes to that worker

Connections are forgotten after CONNECTION_TTL_S: signalling is over by then, and links live in the workers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from shared.rtc.description import MAX_CANDIDATES

CONNECTION_TTL_S = 60.0
"""Longer than any dial: a browser may trickle for some 30 s."""
MAX_CONNECTIONS = 2_048
"""Ours: 64 half-open links a worker, for some 30 workers; the oldest is forgotten first."""

Key = tuple[str, str]


@dataclass(slots=True)
class _Owner:
    created_at: float
    worker: str = ""
    servers: set[str] = field(default_factory=set)
    offered: bool = False
    backlog: list[bytes] = field(default_factory=list)


class ConnectionOwners:
    """The connections whose signalling is in flight. Servers are named by their URL."""

    def __init__(self) -> None:
        self._owners: OrderedDict[Key, _Owner] = OrderedDict()

    def __len__(self) -> int:
        return len(self._owners)

    def dialled(self, peer: str, connection_id: str, worker: str, servers: set[str], now: float) -> None:
        """A worker's OFFER goes out through these servers."""
        self._add((peer, connection_id), _Owner(now, worker, set(servers)))

    def offered(self, peer: str, connection_id: str, server: str, now: float) -> bool:
        """An OFFER came. Returns: False for one that is known already (it came through two servers)."""
        if self._find((peer, connection_id), now) is not None:
            return False
        self._add((peer, connection_id), _Owner(now, "", {server}, offered=True))
        return True

    def taken(self, peer: str, connection_id: str, worker: str, now: float) -> list[bytes]:
        """A worker took the OFFER. Returns: the messages that waited for it, in order."""
        owner = self._find((peer, connection_id), now)
        if owner is None:
            return []
        owner.worker = worker
        waiting, owner.backlog = owner.backlog, []
        return waiting

    def forget(self, peer: str, connection_id: str) -> None:
        self._owners.pop((peer, connection_id), None)

    def worker_for(self, peer: str, connection_id: str, message: bytes, now: float) -> str | None:
        """Where a message of a connection goes.

        Returns: the worker; None where the message waits until the OFFER is taken, or was dropped: no such
                 connection, or over MAX_CANDIDATES.
        """
        owner = self._find((peer, connection_id), now)
        if owner is None:
            return None
        if not owner.worker and len(owner.backlog) < MAX_CANDIDATES:
            owner.backlog.append(message)
        return owner.worker or None

    def servers_of(self, peer: str, connection_id: str, now: float) -> set[str]:
        """The servers on which the remote peer can be reached for this connection; empty where it is not known."""
        owner = self._find((peer, connection_id), now)
        return set(owner.servers) if owner is not None else set()

    def unreachable(self, peer: str, server: str, now: float) -> list[tuple[str, str]]:
        """A server does not know the peer. Returns: (worker, connection id) of dials that no server is left for."""
        lost = []
        for key, owner in list(self._owners.items()):
            # An offer came from the peer itself: that a server does not know it now says nothing of it.
            if key[0] != peer or owner.offered or server not in owner.servers:
                continue
            owner.servers.discard(server)
            if not owner.servers:
                self._owners.pop(key)
                if now - owner.created_at < CONNECTION_TTL_S:
                    lost.append((owner.worker, key[1]))
        return lost

    def _find(self, key: Key, now: float) -> _Owner | None:
        # Oldest first by their order: only what is over is looked at.
        while self._owners:
            oldest = next(iter(self._owners))
            if now - self._owners[oldest].created_at < CONNECTION_TTL_S:
                break
            del self._owners[oldest]
        return self._owners.get(key)

    def _add(self, key: Key, owner: _Owner) -> None:
        # Taken out first, so that one that comes again is the youngest.
        self._owners.pop(key, None)
        self._owners[key] = owner
        if len(self._owners) > MAX_CONNECTIONS:
            self._owners.popitem(last=False)
