"""Who waits for a link to which peer. Dials of one peer share one try of the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.errors import Cause, TransportError
from shared.ids import PeerToken, guest_token, token_key
from shared.worker.session import LinkSession


class Dials:
    """Settled by the links: with the session that opened, or the cause for which none did."""

    def __init__(self) -> None:
        self._waiting: dict[PeerToken, set[asyncio.Future[LinkSession | Cause]]] = {}

    async def wait(self, peer: PeerToken, dial: Callable[[], Awaitable[None]]) -> LinkSession:
        """Dial, unless somebody does already, and wait for a link to the peer.

        Raises: TransportError with the cause. Cancellation: the caller stops waiting; a shared dial goes on.
        """
        waiting: asyncio.Future[LinkSession | Cause] = asyncio.get_running_loop().create_future()
        others = self._waiting.setdefault(peer, set())
        first = not others
        others.add(waiting)
        try:
            # The others wait for the same outcome; a second dial would race the first at the transport.
            if first:
                try:
                    await dial()
                except TransportError as error:
                    self.settle(peer, error.cause)
            outcome = await waiting
        finally:
            others.discard(waiting)
            if not others and self._waiting.get(peer) is others:
                del self._waiting[peer]
        if isinstance(outcome, Cause):
            raise TransportError(outcome)
        return outcome

    def settle(self, peer: PeerToken, outcome: LinkSession | Cause) -> None:
        for waiting in self._waiting.get(peer, ()):
            # Its caller may have stopped waiting in this very moment.
            if not waiting.done():
                waiting.set_result(outcome)

    def came_to_nothing(self, key: bytes, guest: str, cause: Cause) -> bool:
        """A link to the owner of this identity key, or to this guest, is no more; empty = not known.

        Returns: whether anybody waited for it.
        """
        # By key where one is known: whoever dialled a member does not know what it is called as a guest.
        name = guest_token(guest) if guest else None
        peers = [peer for peer in self._waiting if peer == name or (key and token_key(peer) == key)]
        for peer in peers:
            self.settle(peer, cause)
        return bool(peers)
