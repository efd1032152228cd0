"""What a stranger may make a webrtc worker do (docs/limits.md#data-channel). Pure: `now` is an argument.

Every refusal is counted by its cause, under these names, and shown in the worker's status.
"""

from __future__ import annotations

from collections import OrderedDict

from shared.token_bucket import TokenBucket

MAX_LINKS = 1_000
"""Links of one worker, half-open ones included (docs/limits.md)."""
MAX_HALF_OPEN = 64
"""Links being opened, both ways together (docs/limits.md)."""
OFFERS_PER_S = 20.0
"""OFFERs taken from one PeerServer (docs/limits.md)."""
OFFERS_PER_SOURCE_PER_S = 2.0
"""OFFERs of one source (docs/limits.md: the PeerServer's own limit; a server may be hostile, so we hold it too)."""
SOURCE_BURST = 4.0
"""Ours: a peer whose links all died at once may dial each of our workers."""
MAX_SOURCES = 4_096
"""Ours: sources whose rate is remembered; the longest silent is forgotten first."""

EXPIRES_PER_S = 10.0
EXPIRE_BURST = 60.0
"""Ours: OFFERs that are turned away by a word, through one PeerServer, which limits what we send as well (20 messages
a second); a room of pages that joins at once learns it, a flood does not use our socket up."""

REFUSED_SPEECH = "speech"
"""An OFFER that asks for a speech which this worker does not have."""
REFUSED_OFFER = "offer"
"""An OFFER that is not that of a data connection: a call, or one out of form."""
REFUSED_SERVER_RATE = "offers_of_server"
REFUSED_SOURCE_RATE = "offers_of_source"
REFUSED_HALF_OPEN = "half_open"
REFUSED_LINKS = "links"
REFUSED_DESCRIPTION = "description"
REFUSED_CANDIDATE = "candidate"
REFUSED_MESSAGE = "signalling_message"
REFUSED_BUSY = "signalling_busy"
REFUSED_NO_WORKER = "no_worker"
REFUSED_RECORD = "record"


class OfferLimiter:
    """Who may send how many OFFERs through one PeerServer: by source first, so that one cannot use up all."""

    def __init__(self) -> None:
        self._server = TokenBucket(OFFERS_PER_S, OFFERS_PER_S)
        self._sources: OrderedDict[str, TokenBucket] = OrderedDict()

    def refuse(self, source: str, now: float) -> str | None:
        """Count one OFFER. Returns: None where it is let in, else the name of the limit."""
        bucket = self._sources.pop(source, None) or TokenBucket(OFFERS_PER_SOURCE_PER_S, SOURCE_BURST)
        self._sources[source] = bucket
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        # What a source wastes of its own is not taken from the server's.
        if not bucket.take(now):
            return REFUSED_SOURCE_RATE
        return None if self._server.take(now) else REFUSED_SERVER_RATE
