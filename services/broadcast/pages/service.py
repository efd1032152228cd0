"""Everything that a worker does for pages: their port, their channels, the relay to other workers, and a link to the
node for each page on the node's own channel.

States (`place`):  off: no origins are configured; unusable: off loopback without a token, or with one that cannot be
                   read; waiting: the port is somebody else's, or there is no bus; open.
Back-pressure:     `send` waits while more than half of the page's queue is full, so that the node's own answers never
                   cut a page off that reads.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.broadcast.pages.channel import PageSeat
from services.broadcast.pages.endpoint import PAGE_SOCKETS, PagesEndpoint, is_loopback
from services.broadcast.pages.limits import (
    LISTEN_RETRY_CAP_S,
    LISTEN_RETRY_FIRST_S,
    PAGE_QUEUE_BYTES,
    PRESENCE_SETTLE_S,
)
from services.broadcast.pages.machine import News, PageCame, PageSaid, PagesMachine
from services.broadcast.pages.relay import Relay
from shared.backoff import delays_s
from shared.bus.contract import Bus
from shared.bus.messages.records import MeetingPlace
from shared.clock import Clock, unix_ms
from shared.errors import BusError, Cause, TransportError
from shared.ids import LinkId
from shared.settings.config import BroadcastSettings
from shared.speech.broadcast_envelope import BROADCAST_ENVELOPE
from shared.transport.contract import Emit, LinkDown, LinkUp, RecordReceived
from shared.websocket.machine import Opening, Outgoing
from shared.websocket.server import SocketLimits
from shared.wire.pages.frames import ID_BYTES

LIST = "pages"
"""Under which name its state stands among a worker's meeting places."""
OFF, UNUSABLE, WAITING, OPEN = "off", "unusable", "waiting", "open"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _PageLink:
    """sender, number: of what the node says on it, for the page to tell doubles by."""

    link: LinkId
    socket: int
    sender: bytes
    number: int = 0


class _Served:
    """The machine as the socket server drives it; after each of its steps the owner takes what else came of it."""

    def __init__(self, machine: PagesMachine, owner: Pages) -> None:
        self._owner = owner
        self._machine = machine
        self.refusal = machine.refusal
        self.receive_text = machine.receive_text
        self.close_socket = machine.close_socket
        self.next_deadline = machine.next_deadline
        self.handle_timer = machine.handle_timer

    @property
    def refused(self) -> Counter[Cause]:
        return self._machine.refused

    def open_socket(self, socket: int, opening: Opening, now: float) -> None:
        self._machine.open_socket(socket, opening, now)

    def outgoing(self) -> list[Outgoing]:
        self._owner.take_news()
        return self._machine.outgoing()


class Pages:
    """`run` until cancelled; `send` and `close` for its links. See the module."""

    def __init__(
        self, mesh: Bus, settings: BroadcastSettings, clock: Clock, limits: SocketLimits = PAGE_SOCKETS
    ) -> None:
        self._mesh = mesh
        self._settings = settings
        self._clock = clock
        self._limits = limits
        self._machine = PagesMachine([], [], "")
        self._relay: Relay | None = None
        self._endpoint: PagesEndpoint | None = None
        self._emit: Emit | None = None
        self._by_link: dict[LinkId, _PageLink] = {}
        self._by_socket: dict[int, _PageLink] = {}
        self._place = MeetingPlace(LIST, 0, OFF, None, unix_ms())

    @property
    def url(self) -> str:
        """Where pages come; "" while they cannot."""
        return self._endpoint.url if self._endpoint is not None else ""

    @property
    def place(self) -> MeetingPlace:
        return self._place

    def refused(self) -> Mapping[str, int]:
        """Refusals by cause: of sockets, and of what was said on them; a page that was slowed counts each time."""
        if self._endpoint is None:
            return {}
        slowed = {Cause.RATE_LIMITED.value: self._endpoint.sockets.slowed_count}
        return Counter(self._endpoint.sockets.refusals()) + Counter(slowed)

    def seats(self, channel: str) -> list[PageSeat]:
        """The pages that are on a channel here, of every origin."""
        return self._machine.seats(channel)

    def has(self, link: LinkId) -> bool:
        return link in self._by_link

    async def run(self, emit: Emit) -> None:
        """Serve pages until cancelled; what keeps us from it is tried again, or said and left."""
        self._emit = emit
        if not self._settings.origins:
            self._become(OFF)
            log.info("no pages are taken: set broadcast.origins to the origins of yours")
            await asyncio.Event().wait()
        try:
            token = self._token()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            self._become(UNUSABLE, Cause.MISCONFIGURED)
            log.error("no pages are taken: %s", error if isinstance(error, ValueError) else "broadcast.token_file")
            await asyncio.Event().wait()
            return
        self._mesh.on_reconnect(lambda: self._machine.settle(self._clock()))
        delays = delays_s(LISTEN_RETRY_FIRST_S, LISTEN_RETRY_CAP_S)
        while True:
            try:
                await self._serve(token)
            except OSError:
                cause = Cause.REFUSED
                log.warning("no pages are taken: cannot listen on broadcast.host, broadcast.port; trying again")
            except BusError as error:
                cause = error.cause
            delay_s = next(delays)
            self._become(WAITING, cause, round(delay_s * 1000))
            await asyncio.sleep(delay_s)

    async def send(self, link: LinkId, record: bytes) -> None:
        """One value to the page. Raises: TransportError(CLOSED)."""
        found = self._by_link.get(link)
        if found is None or self._endpoint is None:
            raise TransportError(Cause.CLOSED)
        sockets = self._endpoint.sockets
        if not await sockets.room(found.socket, PAGE_QUEUE_BYTES // 2) or not self.has(link):
            raise TransportError(Cause.CLOSED)
        found.number += 1
        self._machine.say(found.socket, found.sender, found.number, record)
        sockets.flush()

    def close(self, link: LinkId, cause: Cause) -> None:
        """End the page's link, and its socket: it may come again."""
        found = self._by_link.get(link)
        if found is not None and self._endpoint is not None:
            self._down(found, cause)
            self._machine.dismiss(found.socket)
            self._endpoint.sockets.flush()

    def take_news(self) -> None:
        """After anything was done to the machine: what is for the node, and for other workers."""
        for news in self._machine.news():
            self._tell(news)
        if self._relay is not None:
            self._relay.carry_out()

    # ── within ──

    def _token(self) -> str:
        """Raises: OSError, UnicodeDecodeError: of the file; ValueError saying what to set."""
        path = self._settings.token_file
        token = Path(path).read_text().strip() if path else ""
        if path and not token:
            raise ValueError("broadcast.token_file is empty")
        if not token and not is_loopback(self._settings.host):
            raise ValueError("off loopback pages need a token: set broadcast.token_file")
        return token

    async def _serve(self, token: str) -> None:
        """Listen until cancelled. Raises: OSError, BusError."""
        settings = self._settings
        machine = PagesMachine(settings.origins, settings.page_channels, settings.channel)
        relay = Relay(self._mesh, machine, self._clock, self._flush)
        endpoint = PagesEndpoint(settings, token, _Served(machine, self), self._clock, machine.slowed, self._limits)
        self._machine, self._relay = machine, relay
        try:
            await relay.start()
            await asyncio.sleep(PRESENCE_SETTLE_S)
            await endpoint.start()
            self._endpoint = endpoint
            self._become(OPEN)
            log.info("pages are taken")
            await endpoint.sockets.failed.wait()
        finally:
            await endpoint.close()
            self._relay = None
            await relay.close()
            for found in list(self._by_link.values()):
                self._down(found, Cause.CLOSED)
            self._endpoint = None

    def _flush(self) -> None:
        if self._endpoint is not None:
            self._endpoint.sockets.flush()
        else:
            self.take_news()

    def _tell(self, news: News) -> None:
        assert self._emit is not None
        if isinstance(news, PageCame):
            link = LinkId(os.urandom(ID_BYTES).hex())
            found = _PageLink(link, news.socket, os.urandom(ID_BYTES))
            self._by_link[link] = self._by_socket[news.socket] = found
            self._emit(LinkUp(link, False, b"", None, BROADCAST_ENVELOPE, f"page-{news.page.hex()}"))
            return
        known = self._by_socket.get(news.socket)
        if known is None:
            return
        if isinstance(news, PageSaid):
            self._emit(RecordReceived(known.link, news.value))
        else:
            self._down(known, Cause.CLOSED)

    def _down(self, found: _PageLink, cause: Cause) -> None:
        self._by_link.pop(found.link, None)
        self._by_socket.pop(found.socket, None)
        if self._emit is not None:
            self._emit(LinkDown(found.link, cause))

    def _become(self, state: str, cause: Cause | None = None, retry_in_ms: int = 0) -> None:
        now_ms = unix_ms()
        self._place = MeetingPlace(LIST, 0, state, cause, now_ms, now_ms + retry_in_ms if retry_in_ms else 0)
