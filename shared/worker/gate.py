"""Who may do what over a worker's links: the blocklist, and how many links one peer may have. No I/O.

The worker has the wire, so here a block is in force on links that are open; the manager asks the same list before it
sends or dials at all. Every refusal is counted by its cause in the worker's status.
"""

from __future__ import annotations

from shared.errors import Cause, TransportError
from shared.ids import PeerToken, peer_name
from shared.settings.blocklist import Blocklist, Direction
from shared.worker.session import LinkSession
from shared.worker.status import StatusTracker

MAX_LINKS_A_PEER = 16
"""Sealed links of one peer on one worker: as both ends may dial, and each may run several workers. One more is closed
with BUSY, so that one peer does not use up the places of all (the transports' own limits)."""


class Gate:
    """Answers for one worker; status counts what it refuses."""

    def __init__(self, blocklist: Blocklist, status: StatusTracker) -> None:
        self._blocklist = blocklist
        self._status = status

    def check_outbound(self, peer: PeerToken) -> None:
        """Before a dial or a request of ours. Raises: TransportError(BLOCKED)."""
        if self._blocklist.blocks(peer_name(peer), Direction.OUTBOUND):
            self._status.refuse(Cause.BLOCKED)
            raise TransportError(Cause.BLOCKED)

    def refusal_of_request(self, session: LinkSession) -> Cause | None:
        """Why a request that came over the link is not taken; None = it is."""
        return self._refused(Cause.BLOCKED) if self.blocked(session, Direction.INBOUND) else None

    def refusal_of_link(self, session: LinkSession, links_of_peer: int) -> Cause | None:
        """Why a link that has just been sealed is closed again; None = it stays. links_of_peer: those before it."""
        # A one-way block closes only what it concerns; requests the other way are refused one by one.
        if self.blocked(session, Direction.OUTBOUND if session.dialer else Direction.INBOUND):
            return self._refused(Cause.BLOCKED)
        # After the block: a blocked peer hears that, and not that there is no room.
        if links_of_peer >= MAX_LINKS_A_PEER:
            return self._refused(Cause.BUSY)
        return None

    def blocked(self, session: LinkSession, direction: Direction) -> bool:
        """Whether the peer of a sealed link is blocked in that direction; ALL: in both."""
        return self._blocklist.blocks(session.peer_name, direction)

    def _refused(self, cause: Cause) -> Cause:
        self._status.refuse(cause)
        return cause
