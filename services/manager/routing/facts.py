"""What is known of each transport towards one peer, at this moment: the facts that the machines decide on."""

from __future__ import annotations

from services.manager.routing.breaker import Breakers
from services.manager.routing.budget import HedgeBudget
from services.manager.routing.peers import LinkFacts, PeerBook
from services.manager.routing.rank import Route, Routes
from shared.bus.messages.records import HopRecord
from shared.errors import Cause
from shared.settings.blocklist import Blocklist, Direction
from shared.settings.flags import Flags
from shared.transports import ORDER, TransportName


class Routing:
    """Flags, blocks, circuits, links, delays and the budget of one manager, read together."""

    def __init__(self, flags: Flags, blocklist: Blocklist) -> None:
        self.book = PeerBook()
        self.breakers = Breakers()
        self.budget = HedgeBudget()
        self._flags = flags
        self._blocklist = blocklist

    def apply(self, record: HopRecord, stored_ms: int) -> None:
        """One record of the hops stream."""
        self.breakers.apply(record, stored_ms)
        self.book.apply(record, stored_ms)

    def heard_from(self, peer: str, transport: TransportName, now: float, now_ms: int) -> None:
        """A request of the peer came over the transport: there is a link both ways, and it carries something."""
        # A link carries both ways: we need not dial whoever has just asked us.
        self.book.linked(peer, transport, now)
        self.breakers.proved(self.book.name(peer), transport.value, now_ms)

    def due_probes(self, now: float) -> list[tuple[str, TransportName]]:
        """Which (peer, transport) to dial now, blocked peers left out."""
        enabled = [transport for transport in ORDER if self.enabled(transport)]
        due = self.book.due_probes(enabled, now, lambda name, transport: self.breakers.is_open(name, transport.value))
        return [(peer, transport) for peer, transport in due if not self.blocked(peer, Direction.OUTBOUND)]

    def enabled(self, transport: TransportName) -> bool:
        return self._flags.enabled(transport)

    def blocked(self, peer: str, direction: Direction) -> bool:
        """Whether a peer (a token) is blocked in that direction."""
        return self._blocklist.blocks(self.book.name(peer), direction)

    def routes(self, peer: str, now_ms: int) -> Routes:
        name = self.book.name(peer)
        routes = {
            transport: _route(transport, link, self._skip(name, transport, now_ms))
            for transport, link in self.book.links(peer).items()
        }
        return Routes(routes, hedge_allowed=self.budget.allows())

    def _skip(self, name: str, transport: TransportName, now_ms: int) -> Cause | None:
        # The reasons that nothing overrules first; an open circuit is the only one that a last resort ignores.
        if self._blocklist.blocks(name, Direction.OUTBOUND):
            return Cause.BLOCKED
        if not self._flags.enabled(transport):
            return Cause.DISABLED
        return None if self.breakers.allows(name, transport.value, now_ms) else Cause.CIRCUIT_OPEN


def _route(transport: TransportName, link: LinkFacts, skip: Cause | None) -> Route:
    return Route(
        transport,
        link.known,
        skip,
        link.ack_delay_s(),
        link.stall_delay_s(),
        link.heard_at,
        link.in_flight,
        link.acks,
        link.answer_delay_s(),
    )
