"""Data channels of one worker: offers to give to trackers, answers to offers that come from there.

    offers ── sdp ──▶ tracker ──▶ some peer        some peer ──▶ tracker ── sdp ──▶ answer
       taken ◀── answer ── tracker                    ── sdp ──▶ tracker
    open channel ──▶ Wires

An offer that nobody took is offered again under another id, for OFFER_AGE_S: making one costs a certificate, sockets
and a round of gathering. TCP goes first between nodes: with a peer that may come by TCP, a channel waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from services.webtorrent.channel import ChannelConnection
from services.webtorrent.limits import REFUSED_DESCRIPTION, REFUSED_HALF_OPEN
from services.webtorrent.wires import Wires
from shared.clock import Clock
from shared.errors import Cause, RemoteProtocolError, SwarmbridgeError, TransportError
from shared.rtc.contract import LinkFactory, LinkSettings
from shared.tasks.ending import end_tasks
from shared.tasks.owned import Tasks

LABEL = "swarm-space"
MAX_OFFERS_OPEN = 10
"""Ours: offers that are out or may go out again, all trackers together; each has sockets of its own."""
MAX_ANSWERING = 16
"""Ours: channels being opened to who offered or answered, a quarter of all half-open ones (docs/limits.md)."""
OFFER_AGE_S = 240.0
"""Ours: a NAT forgets a mapping that is not used, and then an old offer leads nowhere."""
OPEN_TIMEOUT_S = 25.0
"""webtorrent's: its Node polyfill alone waits 5 s for an offer and 5 s for an answer."""
TCP_FIRST_S = 3.0
"""How long a channel to a node waits for a wire over TCP, which costs a tenth: our dial and, a second later, theirs."""

log = logging.getLogger(__name__)


class ChannelOffer:
    """A channel that waits for an answer. sdp: with every candidate. Give it back, or have it taken, once."""

    def __init__(self, stream: ChannelConnection, sdp: str, made_at: float) -> None:
        self.stream, self.sdp, self.made_at = stream, sdp, made_at


class Channels:
    """See the module. changed: `import_failed` may be another. refused: the worker's counter.

    Cancellation: `run` closes every channel that is not yet a wire's; open ones are the wires' to close.
    """

    def __init__(
        self,
        settings: Callable[[], LinkSettings],
        wires: Wires,
        refused: Counter[str],
        changed: Callable[[], None],
        clock: Clock,
        load: Callable[[], LinkFactory],
    ) -> None:
        self.import_failed = False
        self.offers_made = 0
        self.offers_answered = 0
        self._settings, self._wires, self._refused = settings, wires, refused
        self._changed, self._clock, self._load = changed, clock, load
        self._make: LinkFactory | None = None
        self._loaded = asyncio.Event()
        self._spare: list[ChannelOffer] = []
        self._out: set[ChannelOffer] = set()
        self._opening: set[ChannelConnection] = set()
        self._tasks = Tasks()

    async def run(self) -> None:
        """Load what makes channels, then keep them until cancelled."""
        try:
            self._make = await asyncio.to_thread(self._load)
        except TransportError:
            self.import_failed = True
            self._changed()
        self._loaded.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close what is no wire yet."""
        streams = [*(offer.stream for offer in [*self._spare, *self._out]), *self._opening]
        self._spare.clear()
        self._out.clear()
        await asyncio.gather(*(stream.abort(Cause.CLOSED) for stream in streams))

    async def finish(self) -> None:
        """After the wires have closed: nothing is left of any channel."""
        await self._tasks.close()

    # ── our offers ──────────────────────────────────────────────────────────────────────────────────────

    async def offers(self, count: int) -> list[ChannelOffer]:
        """Up to `count` offers, old ones first; fewer where there is no room, none where aiortc is missing."""
        # aiortc loads in a thread; an announce without its offers would have to be made again.
        await self._loaded.wait()
        self._drop_old()
        taken = [self._spare.pop() for _ in range(min(count, len(self._spare)))]
        self._out.update(taken)
        for _ in range(min(count - len(taken), MAX_OFFERS_OPEN - len(self._out))):
            offer = await self._new_offer()
            if offer is None:
                break
            taken.append(offer)
        return taken

    def give_back(self, offer: ChannelOffer) -> None:
        """Nobody took it: it may go out again."""
        if offer in self._out:
            self._out.discard(offer)
            self._spare.append(offer)
            self._drop_old()

    def take(self, offer: ChannelOffer, peer_id: bytes, sdp: str, wait_s: float) -> None:
        """A peer answered. wait_s: for it to come by TCP first; then the offer was not needed."""
        self._tasks.start(self._take(offer, peer_id, sdp, wait_s), name="channel-take")

    async def _take(self, offer: ChannelOffer, peer_id: bytes, sdp: str, wait_s: float) -> None:
        # Looked at again after the await: it may have been taken, or closed, meanwhile.
        if await self._wires.peer_comes(peer_id, wait_s) or offer not in self._out:
            self.give_back(offer)
            return
        self._out.discard(offer)
        stream = offer.stream
        self._opening.add(stream)
        try:
            await stream.rtc.accept_answer(sdp)
            await self._wait_open(stream, b"")
        except SwarmbridgeError as error:
            self._count(error)
        finally:
            await self._settle(stream)

    async def _new_offer(self) -> ChannelOffer | None:
        stream = self._stream(offered=True)
        if stream is None:
            return None
        try:
            offer = ChannelOffer(stream, await stream.rtc.offer(LABEL), self._clock())
        except SwarmbridgeError as error:
            log.warning("no offer could be made: %s", error.cause.value)
            await stream.abort(error.cause)
            return None
        except asyncio.CancelledError:
            await stream.abort(Cause.CLOSED)
            raise
        self.offers_made += 1
        # Only now: gathering takes a while, in which `close` must not find half an offer.
        self._out.add(offer)
        return offer

    def _drop_old(self) -> None:
        oldest = self._clock() - OFFER_AGE_S
        for offer in [each for each in self._spare if each.made_at < oldest]:
            # Those that are out are dropped when they come back: a tracker may still bring an answer.
            self._spare.remove(offer)
            offer.stream.close(Cause.EXPIRED)

    # ── offers of others ────────────────────────────────────────────────────────────────────────────────

    async def answer(self, peer_id: bytes, sdp: str, *, tcp_first: bool) -> str | None:
        """Answer an offer. Returns: the answer's SDP; None where no channel can be made of it.

        The channel is opened in the background. tcp_first: it is closed again if its peer comes by TCP meanwhile.
        """
        await self._loaded.wait()
        if len(self._opening) >= MAX_ANSWERING:
            self._refused[REFUSED_HALF_OPEN] += 1
            return None
        stream = self._stream(offered=False)
        if stream is None:
            return None
        self._opening.add(stream)
        try:
            answer = await stream.rtc.accept_offer(sdp)
        except SwarmbridgeError as error:
            self._count(error)
            self._opening.discard(stream)
            await stream.abort(error.cause)
            return None
        except asyncio.CancelledError:
            self._opening.discard(stream)
            await stream.abort(Cause.CLOSED)
            raise
        self.offers_answered += 1
        self._tasks.start(self._answered(stream, peer_id if tcp_first else b""), name="channel-answer")
        return answer

    async def _answered(self, stream: ChannelConnection, by_tcp: bytes) -> None:
        try:
            await self._wait_open(stream, by_tcp)
        finally:
            await self._settle(stream)

    # ── within ──────────────────────────────────────────────────────────────────────────────────────────

    async def _wait_open(self, stream: ChannelConnection, by_tcp: bytes) -> None:
        """Until the channel is open or over, its time is up, or the peer with the id `by_tcp` has come by TCP."""
        ways: list[asyncio.Task[bool]] = [asyncio.create_task(_open_or_over(stream))]
        if by_tcp:
            # A node that came by TCP needs no channel, which costs ten times as much.
            ways.append(asyncio.create_task(self._wires.peer_comes(by_tcp, OPEN_TIMEOUT_S)))
        try:
            await asyncio.wait(ways, timeout=OPEN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(ways)

    async def _settle(self, stream: ChannelConnection) -> None:
        """An open one is the wires' from now on; any other is closed."""
        self._opening.discard(stream)
        if not stream.is_up:
            await stream.abort(Cause.DIAL_TIMEOUT)

    def _stream(self, *, offered: bool) -> ChannelConnection | None:
        if self._make is None:
            return None
        return ChannelConnection(
            self._make,
            self._settings(),
            self._wires.channel_wire,
            self._wires,
            self._tasks,
            self._clock,
            offered=offered,
        )

    def _count(self, error: SwarmbridgeError) -> None:
        if isinstance(error, RemoteProtocolError):
            self._refused[REFUSED_DESCRIPTION] += 1
        else:
            log.info("a data channel came to nothing: %s", error.cause.value)


async def _open_or_over(stream: ChannelConnection) -> bool:
    return await stream.opened.wait()
