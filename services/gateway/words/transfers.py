"""What a transfer waits for, or why it failed, as one sentence: the page and the CLI print it as it is. Pure."""

from __future__ import annotations

from services.gateway.words.causes import CAUSE_WORDS
from shared.errors import Cause

_UNREACHABLE = frozenset(
    {
        Cause.NO_LINK,
        Cause.DIAL_TIMEOUT,
        Cause.SIGNALLING_UNAVAILABLE,
        Cause.ICE_FAILED,
        Cause.PEER_UNKNOWN,
        Cause.NO_LISTENER,
        Cause.CIRCUIT_OPEN,
    }
)
"""Causes of the last hop tried, all of which say of a whole transfer that nobody who holds it was reached."""
_NOBODY_REACHED = (
    "No holder can be reached over any transport; see whether the other node runs, has its transports switched on "
    "(`swarmbridge flags` there) and uses the same rendezvous."
)

_OF_A_TRANSFER = {
    Cause.CLOSED: "It was cancelled; ask for it again to go on where it was.",
    Cause.BUSY: "Others are worked on first; it has its turn after them.",
    Cause.DISABLED: "Every transport that could carry it is switched off on this node; see `swarmbridge flags`.",
    Cause.WORKER_LOST: "The node's chunk service does not answer; see whether it runs, and its log.",
    Cause.BUS_UNAVAILABLE: "The node's own bus is away, so nothing can move; see whether its NATS server runs. What is "
    "stored stays, and it goes on when the bus is back.",
}
"""What differs where it is said of a whole transfer and not of a hop."""


def transfer_words(cause: Cause) -> str:
    """One sentence, or two, without the transfer's name."""
    if cause in _UNREACHABLE:
        return _NOBODY_REACHED
    return _OF_A_TRANSFER.get(cause) or CAUSE_WORDS[cause].sentence
