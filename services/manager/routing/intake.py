"""How much peers may ask of this manager, over all transports together: for each peer, and in all. Pure.

    member                         its own rate; MAX_OPEN_A_PEER requests at a time
    guest                          its own, smaller rate; MAX_OPEN_A_GUEST requests at a time
    all guests                     a rate and MAX_OPEN_GUESTS requests at a time, which they share: an identity costs
                                   nothing, so whatever strangers do, half of the places are the members'
    in all                         MAX_OPEN requests at a time

A refusal is BUSY or RATE_LIMITED with the time after which to ask again; the worker that brought the request tells
the peer and counts it by cause. Rates are a manager's: a node with more managers takes more.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from shared.bus.messages.envelopes import ROLE_MEMBER
from shared.errors import Cause
from shared.token_bucket import TokenBucket

MEMBER_REQUESTS_PER_S = 1_000.0
MEMBER_BURST = 2_000.0
"""A member that fetches small files as fast as a link carries them stays below it; one gone wild does not."""

GUEST_REQUESTS_PER_S = 50.0
GUEST_BURST = 100.0
"""50 MiB/s in chunks of 1 MiB: several times what a browser's data channel carries."""

ALL_GUESTS_PER_S = 500.0
ALL_GUESTS_BURST = 500.0

MAX_OPEN_A_PEER = 128
"""Requests of one peer that a chunk instance has not answered yet: as two full links of 64 requests may hold."""

MAX_OPEN_A_GUEST = 32
"""An answer takes milliseconds: a browser with 64 requests on its link rarely has half of them open at once."""

MAX_OPEN = 512
MAX_OPEN_GUESTS = 256
BUSY_RETRY_S = 0.1
"""An instance answers within milliseconds."""

MAX_RATES = 4_096
"""Peers whose rate is remembered; the one that asked longest ago is forgotten first, and starts again."""


@dataclass(frozen=True, slots=True)
class Refusal:
    cause: Cause
    retry_after_s: float


class Intake:
    """Ask `refusal` for each request; each one let in is given back once by `done`."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._open_count = 0
        self._guest_count = 0
        self._rates: OrderedDict[str, TokenBucket] = OrderedDict()
        self._all_guests = TokenBucket(ALL_GUESTS_PER_S, ALL_GUESTS_BURST)

    def refusal(self, peer: str, role: str, now: float) -> Refusal | None:
        """Why one more request of the peer (a token) is not taken; None = it is, and counts as open."""
        guest = role != ROLE_MEMBER
        if self._open_count >= MAX_OPEN or self._open[peer] >= (MAX_OPEN_A_GUEST if guest else MAX_OPEN_A_PEER):
            return Refusal(Cause.BUSY, BUSY_RETRY_S)
        if guest and self._guest_count >= MAX_OPEN_GUESTS:
            return Refusal(Cause.BUSY, BUSY_RETRY_S)
        # After the places: what has no place costs no token.
        for rate in self._rates_of(peer, role):
            if not rate.take(now):
                return Refusal(Cause.RATE_LIMITED, rate.wait_s(now))
        self._open[peer] += 1
        self._open_count += 1
        self._guest_count += guest
        return None

    def done(self, peer: str, role: str) -> None:
        """One of the peer's requests has been answered, or refused by somebody else."""
        self._open_count -= 1
        self._guest_count -= role != ROLE_MEMBER
        self._open[peer] -= 1
        # A Counter keeps its zeros: it would grow by every stranger.
        if not self._open[peer]:
            del self._open[peer]

    def _rates_of(self, peer: str, role: str) -> list[TokenBucket]:
        """Its own first: a guest over its own limit takes nothing from the others."""
        member = role == ROLE_MEMBER
        # Taken out and put in again: the dict's order is by the last request.
        own = self._rates.pop(peer, None)
        if own is None:
            own = TokenBucket(MEMBER_REQUESTS_PER_S, MEMBER_BURST) if member else _guest_rate()
        self._rates[peer] = own
        if len(self._rates) > MAX_RATES:
            self._rates.popitem(last=False)
        return [own] if member else [own, self._all_guests]


def _guest_rate() -> TokenBucket:
    return TokenBucket(GUEST_REQUESTS_PER_S, GUEST_BURST)
