"""Requests for a guest of another transport, served by the links of the peer here that it is (ties)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.clock import Clock
from shared.ids import PeerToken, guest_token, token_key
from shared.worker.interest import PeerInterest
from shared.worker.publishing import Publishing
from shared.worker.ties import REPEAT_S, Pair, Ties


class TiedGuests:
    """Glue: what peers say becomes ties, ties become interest on the bus; `settle` after links have changed.

    has_link: whether a peer has a link of its own here. takes: whether one of them takes new requests.
    """

    def __init__(
        self,
        interest: PeerInterest,
        publishing: Publishing,
        clock: Clock,
        has_link: Callable[[PeerToken], bool],
        takes: Callable[[PeerToken], bool],
    ) -> None:
        self._interest = interest
        self._publishing = publishing
        self._clock = clock
        self._has_link = has_link
        self._takes = takes
        self._ties = Ties()
        self._served: set[PeerToken] = set()

    def say(self, peer: PeerToken, name: str) -> None:
        """A peer here says as which guest another transport knows it."""
        try:
            guest = guest_token(name)
        except ValueError:
            return  # longer than any guest's
        # Members are known by their key wherever they are.
        if token_key(peer) is None and self._ties.say(peer, guest, self._clock()):
            self._publishing.named([(peer, guest)])
            self.settle()

    def hear(self, pairs: list[Pair]) -> None:
        """Guests of another transport say which peers here they are."""
        for guest, peer in pairs:
            self._ties.hear(guest, peer, self._clock())
        self.settle()

    def forget(self, peer: PeerToken) -> None:
        """Its last link here is gone."""
        self._ties.forget(peer)

    def peer_here(self, peer: PeerToken) -> PeerToken:
        """Whose links serve requests for a peer: its own, or those of the one that it is here."""
        return peer if self._has_link(peer) else self._ties.peer_of(peer) or peer

    def settle(self) -> None:
        """Have requests for tied guests reach us while the peers that they are take any."""
        wanted = {guest for guest in self._ties.guests() if not self._has_link(guest) and self._takes(guest)}
        for guest in self._served - wanted:
            if not self._has_link(guest):  # else it has come itself, and its own link keeps it served
                self._interest.drop(guest)
        for guest in wanted - self._served:
            self._interest.want(guest)
        self._served = wanted

    async def repeat(self) -> None:
        """Say again what peers here say, until cancelled: workers may have started since."""
        while True:
            await asyncio.sleep(REPEAT_S)
            self._publishing.named(self._ties.pairs())
