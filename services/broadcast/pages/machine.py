"""Pages on sockets: who they are, which channels they are on, what they post, and who has to hear it.

    a page's frames ─▶ machine ─▶ frames for pages (outgoing)
    other workers' posts and reports ─▶ machine ─▶ posts for other workers (relays), news for the node (news)

Implements shared.websocket.machine.Machine. Pure: the time is an argument.

States of a socket:  opened -> known (hello) -> closed; whoever says anything before hello, or nothing for
                     HELLO_TIMEOUT_S, is closed.
A post:              taken (kept and heard here) -> with every other worker -> acknowledged to its page. A worker that
                     is gone is not waited for; if it was only cut off, it gets what it missed when it is heard again.
                     While our own bus is away nobody is gone, and posts wait. A post that is said again is carried
                     again, for the worker that had it first may have died between two others; whoever has it already
                     tells it by its number.
Invariants:          what a page has posted and is not acknowledged is at most its window. What waits for other workers
                     is at most RELAY_BYTES. A broken rule closes the page's socket, with words.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from services.broadcast.pages.channel import Channel, PageSeat, Posted
from services.broadcast.pages.limits import (
    HELLO_TIMEOUT_S,
    MAX_VALUE_BYTES,
    PAGE_WINDOW_BYTES,
    PAGE_WINDOW_MESSAGES,
    PRESENCE_EXPIRY_S,
    RELAY_BYTES,
)
from shared.errors import Cause, RemoteProtocolError
from shared.websocket.machine import Opening, Outgoing
from shared.wire.pages.frames import (
    JOIN,
    VERSION,
    FromPage,
    FromWorker,
    Hello,
    Join,
    Joined,
    Leave,
    Message,
    PagePing,
    PagePong,
    PagePost,
    PageSlowed,
    PostRefused,
    PostTaken,
    Present,
    Welcome,
    decode_from_page,
    encode_frame,
    page_id,
)

Scope = bytes
"""16 bytes for an origin and a channel of it (`scope_of`)."""

TRIM_INTERVAL_S = 1.0
_WORDS = {
    Cause.INVALID: "what your page said is no message of this protocol; load broadcast.js again",
    Cause.BUSY: "too many of your posts wait for other workers; they are taken again when you reconnect",
    Cause.SILENT: "your page said nothing; reconnect",
    Cause.ID_TAKEN: "your page has connected again, and goes on there",
}


@dataclass(frozen=True, slots=True)
class PageCame:
    """A page joined the node's own channel."""

    socket: int
    page: bytes


@dataclass(frozen=True, slots=True)
class PageSaid:
    """It posted there."""

    socket: int
    value: bytes


@dataclass(frozen=True, slots=True)
class PageWent:
    """It left that channel, or is gone."""

    socket: int


News = PageCame | PageSaid | PageWent


@dataclass(slots=True)
class _Page:
    """seat is None until hello. waiting: numbers of its posts without an acknowledgement, and their bytes."""

    origin: str
    opened_s: float
    seat: PageSeat | None = None
    channels: set[str] = field(default_factory=set)
    waiting: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass(slots=True)
class _Pending:
    """A post that other workers do not all have yet."""

    socket: int
    channel: str
    length: int
    workers: set[str]


class PagesMachine:
    """See the module. scopes: the channels of each origin that is served. node_channel: where the node listens too."""

    def __init__(self, origins: Iterable[str], channels: Iterable[str], node_channel: str) -> None:
        names = list(channels)
        self._channels = {(origin, name): Channel() for origin in origins for name in names}
        self._by_scope = {scope_of(*key): key for key in self._channels}
        self._node_channel = node_channel
        self._pages: dict[int, _Page] = {}
        self._pending: dict[tuple[Scope, bytes, int], _Pending] = {}
        self._pending_bytes = 0
        self._out: deque[Outgoing] = deque()
        self._relays: list[tuple[str, Scope, Posted]] = []
        self._news: list[News] = []
        self._trimmed_s = 0.0
        self._bus_s: float | None = None
        self._settled_s = -math.inf
        self.presence_changed = False
        """Set when other workers should hear of our pages; whoever tells them clears it."""
        self.refused: Counter[Cause] = Counter()

    # ── sockets ──

    def refusal(self, reason: str) -> str:
        return reason

    def open_socket(self, socket: int, opening: Opening, now: float) -> None:
        self._pages[socket] = _Page(opening.caller.origin, now)

    def receive_text(self, socket: int, text: str | bytes, now: float) -> None:
        page = self._pages.get(socket)
        if page is None:
            return  # closed a moment ago
        try:
            if isinstance(text, str):
                raise RemoteProtocolError("frames are binary")
            self._receive(socket, page, decode_from_page(text), now)
        except RemoteProtocolError as error:
            self._dismiss(socket, error.cause)

    def close_socket(self, socket: int) -> None:
        page = self._pages.pop(socket, None)
        if page is None:
            return
        for name in list(page.channels):
            self._leave(socket, page, name)

    def slowed(self, socket: int) -> None:
        """The page is read more slowly: it is notified, once for each time."""
        self._say(socket, PageSlowed())

    def outgoing(self) -> list[Outgoing]:
        out, self._out = list(self._out), deque()
        return out

    def next_deadline(self) -> float | None:
        if not self._channels:
            return None
        times = [page.opened_s + HELLO_TIMEOUT_S for page in self._pages.values() if page.seat is None]
        return min([*times, self._trimmed_s + TRIM_INTERVAL_S])

    def handle_timer(self, now: float) -> None:
        for socket, page in list(self._pages.items()):
            if page.seat is None and now - page.opened_s >= HELLO_TIMEOUT_S:
                self._dismiss(socket, Cause.SILENT)
        if now - self._trimmed_s >= TRIM_INTERVAL_S:
            self._trimmed_s = now
            for channel in self._channels.values():
                channel.trim(now)
            heard_s = -math.inf if self._bus_s is None else self._bus_s
            silent = {name for channel in self._channels.values() for name in channel.silent_workers(heard_s)}
            for worker in silent:
                self.forget_worker(worker)

    def seats(self, channel: str) -> list[PageSeat]:
        """Who is on a channel here, of every origin."""
        return [seat for (_, name), each in self._channels.items() if name == channel for seat in each.seats()]

    # ── other workers ──

    def own_pages(self) -> list[tuple[Scope, list[bytes]]]:
        """Which pages are here, for each channel: what is reported to other workers."""
        return [(scope, self._channels[key].own_pages()) for scope, key in self._by_scope.items()]

    def hear_worker(self, worker: str, there: Sequence[tuple[Scope, Sequence[bytes]]], count: int, now: float) -> bool:
        """Another worker's report. Returns: whether it was not known before, so that it should hear ours at once."""
        new = False
        for scope, pages in there:
            key = self._by_scope.get(scope)
            if key is None:
                continue
            channel = self._channels[key]
            new = new or worker not in channel.workers()
            self._relays += [(worker, scope, post) for post in channel.come_back(worker)]
            if channel.hear(worker, pages, count, now):
                self._tell_present(key)
        return new

    def hear_bus(self, now: float) -> None:
        """Our own report has come back to us: until now, silence was the others' own."""
        if self._bus_s is not None and now - self._bus_s >= PRESENCE_EXPIRY_S:
            self.settle(now)
        self._bus_s = now

    def settle(self, now: float) -> None:
        """The bus is back: whoever is still there has PRESENCE_EXPIRY_S to be heard."""
        self._settled_s = now
        for channel in self._channels.values():
            channel.excuse(now)

    def is_settling(self, now: float) -> bool:
        """Whether a worker that cannot be reached may just not have come back to the bus yet."""
        return now - self._settled_s < PRESENCE_EXPIRY_S

    def forget_worker(self, worker: str) -> None:
        """It is gone: it has no pages, and nothing waits for it."""
        for key, channel in self._channels.items():
            if channel.forget(worker):
                self._tell_present(key)
        for post in [post for post, pending in self._pending.items() if worker in pending.workers]:
            self._confirm(post, worker)

    def knows_worker(self, worker: str) -> bool:
        return any(worker in channel.workers() for channel in self._channels.values())

    def relays(self) -> list[tuple[str, Scope, Posted]]:
        """(worker, scope, post) to carry there, in order; then `confirm` it, or `forget_worker`."""
        relays, self._relays = self._relays, []
        return relays

    def confirm(self, worker: str, scope: Scope, post: Posted) -> None:
        """The worker has it."""
        self._confirm((scope, post.sender, post.number), worker)

    def hear_post(self, scope: Scope, post: Posted, now: float) -> None:
        """A post to a page of another worker's. A channel that is not served here, and a double, are ignored."""
        key = self._by_scope.get(scope)
        if key is not None and len(post.value) <= MAX_VALUE_BYTES and self._channels[key].take(post, now):
            self._deliver(key, post)

    # ── the node on its channel ──

    def news(self) -> list[News]:
        news, self._news = self._news, []
        return news

    def say(self, socket: int, sender: bytes, number: int, value: bytes) -> None:
        """The node's own word to one page, on the node's channel."""
        self._say(socket, Message(self._node_channel, sender, number, value))

    def dismiss(self, socket: int) -> None:
        """Close a page's socket after what is queued; it may come again."""
        self._out.append((socket, None))

    # ── within ──

    def _receive(self, socket: int, page: _Page, frame: FromPage, now: float) -> None:
        if isinstance(frame, Hello):
            self._hello(socket, page, frame, now)
            return
        if page.seat is None:
            raise RemoteProtocolError("hello comes first")
        match frame:
            case Join():
                self._join(socket, page, page.seat, frame, now)
            case Leave():
                if frame.channel in page.channels:
                    self._leave(socket, page, frame.channel)
            case PagePost():
                self._post(socket, page, page.seat, frame, now)
            case PagePing():
                self._say(socket, PagePong())
            case _:
                assert_never(frame)

    def _hello(self, socket: int, page: _Page, hello: Hello, now: float) -> None:
        if page.seat is not None or hello.version != VERSION:
            raise RemoteProtocolError("a second hello, or one of another version")
        seat = PageSeat(page_id(hello.secret), hello.browser)
        for old, other in list(self._pages.items()):
            # The network lost its old socket, and we have not noticed yet.
            if other.seat == seat and other.origin == page.origin:
                self._dismiss(old, Cause.ID_TAKEN)
        page.seat = seat
        self._say(socket, Welcome(VERSION, seat.page))
        for join in hello.joins:
            self._join(socket, page, seat, join, now)

    def _join(self, socket: int, page: _Page, seat: PageSeat, join: Join, now: float) -> None:
        key = (page.origin, join.channel)
        channel = self._channels.get(key)
        if channel is None:
            self._refuse(socket, join.channel, JOIN, Cause.FORBIDDEN)
            return
        if join.channel in page.channels:
            return
        page.channels.add(join.channel)
        channel.join(socket, seat)
        self._say(socket, Joined(join.channel))
        since_s = join.since_ms / 1000
        for post in channel.missed(seat, since_s, now):
            self._hand(socket, join.channel, post)
        self.presence_changed = True
        self._tell_present(key)
        if join.channel == self._node_channel:
            self._news.append(PageCame(socket, seat.page))
            # What it asked of the node by a worker that is gone was not answered, or is answered twice.
            self._news += [PageSaid(socket, post.value) for post in channel.own_posts(seat.page, since_s, now)]

    def _leave(self, socket: int, page: _Page, name: str) -> None:
        page.channels.discard(name)
        key = (page.origin, name)
        if self._channels[key].leave(socket):
            self.presence_changed = True
            self._tell_present(key)
        if name == self._node_channel:
            self._news.append(PageWent(socket))

    def _post(self, socket: int, page: _Page, seat: PageSeat, frame: PagePost, now: float) -> None:
        if frame.channel not in page.channels:
            self._refuse(socket, frame.channel, frame.number, Cause.FORBIDDEN)
            return
        if len(frame.value) > MAX_VALUE_BYTES:
            self._refuse(socket, frame.channel, frame.number, Cause.TOO_LARGE)
            return
        key = (page.origin, frame.channel)
        scope, channel = scope_of(*key), self._channels[key]
        post = Posted(seat.page, seat.browser, frame.number, frame.value)
        if (pending := self._pending.get((scope, post.sender, post.number))) is not None:
            pending.socket = socket  # said again after a reconnect: acknowledged where the page is now
            page.waiting[frame.channel, frame.number] = pending.length
            return
        self._check_room(page, len(frame.value))
        if channel.take(post, now):
            self._deliver(key, post)
            if frame.channel == self._node_channel:
                self._news.append(PageSaid(socket, frame.value))
        self._relay(socket, page, key, post)

    def _relay(self, socket: int, page: _Page, key: tuple[str, str], post: Posted) -> None:
        """Have every other worker take it, and acknowledge it then."""
        workers = self._channels[key].workers()
        if not workers:
            self._taken(socket, key, post.sender, post.number)
            return
        scope, length = scope_of(*key), len(post.value)
        page.waiting[key[1], post.number] = length
        self._pending_bytes += length
        self._pending[scope, post.sender, post.number] = _Pending(socket, key[1], length, set(workers))
        self._relays += [(worker, scope, post) for worker in workers]

    def _check_room(self, page: _Page, length: int) -> None:
        """Raises: RemoteProtocolError(BUSY), after which the page keeps what it has until it has reconnected."""
        waiting = sum(page.waiting.values())
        over = len(page.waiting) >= PAGE_WINDOW_MESSAGES or (waiting and waiting + length > PAGE_WINDOW_BYTES)
        if over or self._pending_bytes + length > RELAY_BYTES:
            raise RemoteProtocolError("more than may wait", Cause.BUSY)

    def _deliver(self, key: tuple[str, str], post: Posted) -> None:
        for socket in self._channels[key].hearers(post):
            self._hand(socket, key[1], post)

    def _hand(self, socket: int, channel: str, post: Posted) -> None:
        self._say(socket, Message(channel, post.sender, post.number, post.value))

    def _confirm(self, key: tuple[Scope, bytes, int], worker: str) -> None:
        pending = self._pending.get(key)
        if pending is None:
            return
        pending.workers.discard(worker)
        if pending.workers:
            return
        del self._pending[key]
        self._pending_bytes -= pending.length
        scope, sender, number = key
        page = self._pages.get(pending.socket)
        if page is not None:
            page.waiting.pop((pending.channel, number), None)
            self._taken(pending.socket, self._by_scope[scope], sender, number)

    def _taken(self, socket: int, key: tuple[str, str], sender: bytes, number: int) -> None:
        listeners = self._channels[key].listeners(sender) + (key[1] == self._node_channel)
        if not listeners:
            self.refused[Cause.NO_LISTENER] += 1  # carried, and heard by nobody: never a success
        self._say(socket, PostTaken(key[1], number, listeners))

    def _tell_present(self, key: tuple[str, str]) -> None:
        channel = self._channels[key]
        count = len(channel.pages())
        for socket in channel.sockets():
            self._say(socket, Present(key[1], count))

    def _refuse(self, socket: int, channel: str, number: int, cause: Cause) -> None:
        self.refused[cause] += 1
        self._say(socket, PostRefused(channel, number, cause))

    def _dismiss(self, socket: int, cause: Cause) -> None:
        """Say why in words, and close."""
        if cause is not Cause.ID_TAKEN:
            self.refused[cause] += 1
        self._out.append((socket, _WORDS.get(cause, cause.value)))
        self._out.append((socket, None))
        self.close_socket(socket)

    def _say(self, socket: int, frame: FromWorker) -> None:
        self._out.append((socket, encode_frame(frame)))


def scope_of(origin: str, channel: str) -> Scope:
    """What workers call one channel of one origin among themselves."""
    return hashlib.sha256(f"{origin}\0{channel}".encode()).digest()[:16]
