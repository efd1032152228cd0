"""One channel of one origin: the pages that are on it here, the workers that have others, what was posted lately.

Pure. Who hears a post, what a page that was away gets again, and who is there, are decided here.

Presence is counted, never derived from who subscribes to what: a worker hears every post itself, so that a
subscription would always say that somebody listens.

Invariants:  a post of a sender is taken once, and only if its number is higher than those before; whoever sends again
             sends everything that is not acknowledged, in order, so that no order is lost by that.
             At most LOG_BYTES and LOG_S of posts are kept, at most MAX_SENDERS numbers of senders.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from services.broadcast.pages.limits import LOG_BYTES, LOG_S, MAX_SENDERS, MAX_SOCKETS, MAX_WORKERS, PRESENCE_EXPIRY_S


@dataclass(frozen=True, slots=True)
class PageSeat:
    """A page: its id, and what it shares with those tabs that hear its posts natively."""

    page: bytes
    browser: bytes


@dataclass(frozen=True, slots=True)
class Posted:
    """One post. number: of this sender on this channel."""

    sender: bytes
    browser: bytes
    number: int
    value: bytes


@dataclass(slots=True)
class _Worker:
    pages: frozenset[bytes]
    count: int
    heard_s: float


class Channel:
    """Driven by PagesMachine; sockets are its numbers."""

    def __init__(self) -> None:
        self._pages: dict[int, PageSeat] = {}
        self._workers: dict[str, _Worker] = {}
        self._log: deque[tuple[float, Posted]] = deque()
        self._log_bytes = 0
        self._numbers: OrderedDict[bytes, int] = OrderedDict()
        self._gone: dict[str, float] = {}
        """Workers that were given up, and when they were last heard: one that was only cut off comes back."""

    # ── who is there ──

    def join(self, socket: int, seat: PageSeat) -> None:
        self._pages[socket] = seat

    def leave(self, socket: int) -> bool:
        """Returns: whether it was there."""
        return self._pages.pop(socket, None) is not None

    def sockets(self) -> list[int]:
        return list(self._pages)

    def seats(self) -> list[PageSeat]:
        return list(self._pages.values())

    def own_pages(self) -> list[bytes]:
        """Ids of the pages on this channel at this worker."""
        return [seat.page for seat in self._pages.values()]

    def pages(self) -> frozenset[bytes]:
        """Who is on this channel, at every worker that is known: one that has just moved between two is there once."""
        return frozenset(self.own_pages()).union(*(worker.pages for worker in self._workers.values()))

    def workers(self) -> list[str]:
        """Other workers that serve this channel, with pages or without: each keeps what was posted."""
        return list(self._workers)

    def hear(self, worker: str, pages: Sequence[bytes], count: int, now: float) -> bool:
        """Another worker says which pages it has. count: goes up with each of its reports; older ones are ignored.

        Returns: whether anything has changed.
        """
        known = self._workers.get(worker)
        if known is None and len(self._workers) >= MAX_WORKERS:
            return False
        if known is not None and count <= known.count:
            return False
        there = frozenset(pages[:MAX_SOCKETS])
        self._workers[worker] = _Worker(there, count, now)
        return known is None or known.pages != there

    def forget(self, worker: str) -> bool:
        """Returns: whether it was known."""
        known = self._workers.pop(worker, None)
        if known is None:
            return False
        self._gone[worker] = known.heard_s
        if len(self._gone) > MAX_WORKERS:
            del self._gone[next(iter(self._gone))]
        return True

    def come_back(self, worker: str) -> list[Posted]:
        """What was posted since a worker that had been given up was last heard, as far as it is kept."""
        since = self._gone.pop(worker, None)
        return [] if since is None else [post for at, post in self._log if at >= since]

    def silent_workers(self, now: float) -> list[str]:
        return [name for name, worker in self._workers.items() if now - worker.heard_s >= PRESENCE_EXPIRY_S]

    def excuse(self, now: float) -> None:
        """Nobody could be heard until now."""
        for worker in self._workers.values():
            worker.heard_s = now

    # ── what is posted ──

    def take(self, post: Posted, now: float) -> bool:
        """Keep a post. Returns: whether it is new."""
        if post.number <= self._numbers.get(post.sender, 0):
            return False
        self._numbers[post.sender] = post.number
        self._numbers.move_to_end(post.sender)
        if len(self._numbers) > MAX_SENDERS:
            self._numbers.popitem(last=False)
        self._log.append((now, post))
        self._log_bytes += len(post.value)
        self.trim(now)
        return True

    def trim(self, now: float) -> None:
        """Forget what is older or more than may be kept; the newest post always stays."""
        while len(self._log) > 1 and (self._log_bytes > LOG_BYTES or now - self._log[0][0] > LOG_S):
            self._log_bytes -= len(self._log.popleft()[1].value)

    def hearers(self, post: Posted) -> list[int]:
        """Sockets of the pages here that do not hear it otherwise: neither its sender nor a tab of its browser."""
        return [socket for socket, seat in self._pages.items() if _hears(seat, post)]

    def missed(self, seat: PageSeat, since_s: float, now: float) -> list[Posted]:
        """What was posted in the last since_s seconds and is for this page. It tells doubles by their numbers."""
        return [post for at, post in self._log if now - at < since_s and _hears(seat, post)]

    def own_posts(self, page: bytes, since_s: float, now: float) -> list[Posted]:
        """What the page itself posted in the last since_s seconds."""
        return [post for at, post in self._log if now - at < since_s and post.sender == page]

    def listeners(self, sender: bytes) -> int:
        """Pages that are there to hear a post of this sender, natively or by us."""
        return len(self.pages() - {sender})


def _hears(seat: PageSeat, post: Posted) -> bool:
    return seat.page != post.sender and seat.browser != post.browser
