"""Which guests of other transports are peers of ours: a page that is here and there at once, so that what one of its
links cannot carry another can.

A guest is known by what its transport proved, which differs from one transport to the next. Two are tied when each has
named the other over its own link (docs/trust.md#who-a-message-is-from): to name somebody else ties nobody, since that
one never says so too.

    a peer here says "there I am G"  ── say ──▶  repeated to the workers of every other transport
    a peer there says "here I am P"  ── hear ─▶  with both, P's links serve requests for G as well

Pure: times are arguments, in seconds.
Invariants:  a tie lasts as long as its peer has a link here, whatever becomes of the other one, for whose
             end it is made. Of two peers that name the same guest, the one that the guest named last is it.
Bounds:      MAX_NAMES a peer, MAX_HEARD heard names, each for HEARD_TTL_S.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from shared.ids import PeerToken

MAX_NAMES = 4
MAX_HEARD = 4_096
REPEAT_S = 5.0
"""Between repetitions of what our peers say, for workers that have started since."""
HEARD_TTL_S = 15.0

Pair = tuple[PeerToken, PeerToken]
"""(who says it, whom it names)"""


class Ties:
    """See the module. A peer is one with a link here; a guest is one of another transport."""

    def __init__(self) -> None:
        self._said: dict[PeerToken, list[PeerToken]] = {}
        self._heard: OrderedDict[Pair, float] = OrderedDict()
        self._tied: dict[PeerToken, PeerToken] = {}

    def say(self, peer: PeerToken, guest: PeerToken, now: float) -> bool:
        """A peer here names itself elsewhere. Returns: whether that is new, and to be passed on."""
        names = self._said.setdefault(peer, [])
        if guest in names:
            return False
        names.append(guest)
        while len(names) > MAX_NAMES:
            self._untie(peer, names.pop(0))
        if now - self._heard.get((guest, peer), now - HEARD_TTL_S) < HEARD_TTL_S:
            self._tied[guest] = peer
        return True

    def hear(self, guest: PeerToken, peer: PeerToken, now: float) -> None:
        """A guest of another transport names itself here."""
        self._heard[guest, peer] = now
        self._heard.move_to_end((guest, peer))
        while len(self._heard) > MAX_HEARD or now - next(iter(self._heard.values())) >= HEARD_TTL_S:
            self._heard.popitem(last=False)
        if guest in self._said.get(peer, ()):
            self._tied[guest] = peer

    def forget(self, peer: PeerToken) -> None:
        """It has no link here any more."""
        for guest in self._said.pop(peer, ()):
            self._untie(peer, guest)

    def pairs(self) -> list[Pair]:
        """Everything that peers here say."""
        return [(peer, guest) for peer, names in self._said.items() for guest in names]

    def guests(self) -> Iterable[PeerToken]:
        """Those that are tied to a peer here."""
        return self._tied.keys()

    def peer_of(self, guest: PeerToken) -> PeerToken | None:
        return self._tied.get(guest)

    def _untie(self, peer: PeerToken, guest: PeerToken) -> None:
        if self._tied.get(guest) == peer:
            del self._tied[guest]
