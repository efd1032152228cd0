"""Pages and workers without sockets: doubles, order, presence, limits; and workers that are killed at any moment."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.broadcast.pages.channel import Posted
from services.broadcast.pages.limits import (
    HELLO_TIMEOUT_S,
    MAX_VALUE_BYTES,
    PAGE_WINDOW_BYTES,
    PAGE_WINDOW_MESSAGES,
    PRESENCE_EXPIRY_S,
    RELAY_BYTES,
)
from services.broadcast.pages.machine import PageCame, PageSaid, PagesMachine, PageWent, Scope, scope_of
from shared.errors import Cause
from shared.websocket.admission import Caller
from shared.websocket.machine import Opening
from shared.wire.pages.frames import JOIN, Hello, Join, Leave, PagePing, PagePong, encode_frame
from tests.services.broadcast.pages.page import Page

ORIGIN, OTHER_ORIGIN = "https://one.example", "https://two.example"


class Worker:
    """A machine, its sockets, and what it has for other workers."""

    def __init__(self, name: str = "w1", node_channel: str = "node") -> None:
        self.name = name
        self.machine = PagesMachine([ORIGIN, OTHER_ORIGIN], ["c", "node"], node_channel)
        self.pages: dict[int, Page] = {}
        self.closed: list[int] = []
        self.queues: dict[str, deque[tuple[Scope, Posted]]] = {}
        self.now = 0.0
        self._sockets = 0

    def connect(self, page: Page, *, origin: str = ORIGIN, since_ms: int = 0) -> int:
        self._sockets += 1
        self.pages[self._sockets] = page
        self.machine.open_socket(self._sockets, Opening({}, Caller("127.0.0.1", origin)), self.now)
        for frame in page.hello(since_ms):
            self.machine.receive_text(self._sockets, frame, self.now)
        self.flush()
        return self._sockets

    def say(self, socket: int, data: str | bytes) -> None:
        self.machine.receive_text(socket, data, self.now)
        self.flush()

    def leave(self, socket: int) -> None:
        self.machine.close_socket(socket)
        self.pages.pop(socket, None)
        self.flush()

    def flush(self) -> None:
        for socket, data in self.machine.outgoing():
            if data is None:
                self.closed.append(socket)
                self.pages.pop(socket, None)
                self.machine.close_socket(socket)
            elif socket in self.pages:
                self.pages[socket].receive(data)
        for worker, scope, post in self.machine.relays():
            self.queues.setdefault(worker, deque()).append((scope, post))


def carry(near: Worker, far: Worker) -> bool:
    """One post from worker to worker. Returns: whether there was one."""
    queue = near.queues.get(far.name)
    if not queue:
        return False
    scope, post = queue.popleft()
    far.machine.hear_post(scope, post, far.now)
    far.flush()
    near.machine.confirm(far.name, scope, post)
    near.flush()
    return True


def meet(workers: list[Worker], count: int = 1) -> None:
    for near in workers:
        for far in workers:
            if near is not far:
                near.machine.hear_worker(far.name, far.machine.own_pages(), count, near.now)
        near.flush()


def test_a_post_reaches_every_other_page_and_never_its_sender() -> None:
    worker, pages = Worker(), [Page(), Page(), Page()]
    sockets = [worker.connect(page) for page in pages]
    worker.say(sockets[0], pages[0].post(b"hello"))
    assert [page.values() for page in pages] == [[], [b"hello"], [b"hello"]]
    assert pages[0].taken == {1: 2}
    assert pages[1].heard[0][0] == pages[0].id


def test_tabs_of_one_browser_hear_each_other_natively_and_not_from_us() -> None:
    worker, browser = Worker(), b"b" * 16
    one, same, other = Page(browser=browser), Page(browser=browser), Page()
    sockets = [worker.connect(page) for page in (one, same, other)]
    worker.say(sockets[0], one.post(b"x"))
    assert (same.values(), other.values()) == ([], [b"x"])
    assert one.taken == {1: 2}, "who hears it natively listens too"


def test_another_origin_and_another_channel_are_other_worlds() -> None:
    worker = Worker()
    one, elsewhere, channel = Page(), Page(), Page("node")
    socket = worker.connect(one)
    worker.connect(elsewhere, origin=OTHER_ORIGIN)
    worker.connect(channel)
    worker.say(socket, one.post(b"x"))
    assert (elsewhere.heard, channel.heard) == ([], [])
    assert one.taken == {1: 0}
    assert worker.machine.refused[Cause.NO_LISTENER] == 1, "a post to nobody is no success"


def test_a_channel_that_is_not_configured_is_refused_and_the_page_notified() -> None:
    worker, page = Worker(), Page("secrets")
    socket = worker.connect(page)
    worker.say(socket, page.post(b"x"))
    assert [(each.number, each.cause) for each in page.refused] == [(JOIN, Cause.FORBIDDEN), (1, Cause.FORBIDDEN)]
    assert worker.machine.refused[Cause.FORBIDDEN] == 2


def test_presence_follows_pages_at_once() -> None:
    worker, one, two = Worker(), Page(), Page()
    worker.connect(one)
    socket = worker.connect(two)
    assert (one.present, two.present) == (2, 2)
    worker.machine.presence_changed = False
    worker.leave(socket)
    assert one.present == 1
    assert worker.machine.presence_changed
    third = worker.connect(Page())
    worker.say(third, encode_frame(Leave("c")))
    assert one.present == 1
    worker.say(third, encode_frame(Join("c")))
    assert one.present == 2


def test_pages_elsewhere_are_present_and_listen() -> None:
    near, far, page = Worker("near"), Worker("far"), Page()
    far.connect(Page())
    socket = near.connect(page)
    meet([near, far])
    assert page.present == 2
    near.say(socket, page.post(b"x"))
    assert page.taken == {}, "not before the other worker has it"
    assert carry(near, far)
    assert page.taken == {1: 1}
    assert far.pages[1].values() == [b"x"]


def test_a_worker_that_is_gone_is_not_waited_for() -> None:
    near, far, page = Worker("near"), Worker("far"), Page()
    socket = near.connect(page)
    far.connect(Page())
    meet([near, far])
    near.machine.hear_bus(0.0)
    near.say(socket, page.post(b"x"))
    near.now = PRESENCE_EXPIRY_S
    near.machine.hear_bus(near.now - 1.0)
    near.machine.handle_timer(near.now)
    assert near.machine.knows_worker("far")
    near.now = PRESENCE_EXPIRY_S + 1.0
    near.machine.hear_bus(near.now - 1.0)
    near.machine.handle_timer(near.now)
    near.flush()
    assert page.taken == {1: 0}
    assert page.present == 1
    assert not near.machine.knows_worker("far")


def test_while_the_bus_is_away_nobody_is_gone_and_posts_wait() -> None:
    near, far, page = Worker("near"), Worker("far"), Page()
    socket = near.connect(page)
    far.connect(Page())
    meet([near, far])
    near.machine.hear_bus(0.0)
    near.now = 10 * PRESENCE_EXPIRY_S
    near.machine.handle_timer(near.now)
    near.say(socket, page.post(b"x"))
    assert near.machine.knows_worker("far")
    assert page.taken == {}
    # The bus is back, and the other worker takes a moment longer.
    near.machine.hear_bus(near.now)
    assert near.machine.is_settling(near.now)
    near.now += PRESENCE_EXPIRY_S - 0.1
    near.machine.hear_bus(near.now)
    near.machine.handle_timer(near.now)
    assert near.machine.knows_worker("far")
    assert carry(near, far)
    assert page.taken == {1: 1}


def test_a_worker_that_was_only_cut_off_gets_what_it_missed() -> None:
    near, far, page = Worker("near"), Worker("far"), Page()
    socket = near.connect(page)
    far.connect(Page())
    meet([near, far])
    near.say(socket, page.post(b"before"))
    assert carry(near, far)
    near.now = 5.0
    near.machine.forget_worker("far")
    near.flush()
    for word in (b"one", b"two"):
        near.say(socket, page.post(word))
    assert page.taken == {1: 1, 2: 0, 3: 0}
    assert not near.queues.get("far")
    meet([near, far], count=2)
    while carry(near, far):
        pass
    assert far.pages[1].values() == [b"before", b"one", b"two"]


def test_a_page_that_comes_back_replaces_its_old_socket_and_gets_what_it_missed() -> None:
    worker, one, two = Worker(), Page(), Page()
    first = worker.connect(one)
    socket = worker.connect(two)
    lost = two.post(b"while away")
    worker.pages.pop(first)  # the network is gone and nobody has noticed
    worker.say(socket, lost)
    assert one.values() == []
    worker.connect(one, since_ms=5000)
    assert worker.closed == [first]
    assert one.values() == [b"while away"]
    assert (one.doubles, two.present) == (0, 2)


def test_a_new_page_hears_nothing_of_before() -> None:
    worker, one, late = Worker(), Page(), Page()
    socket = worker.connect(one)
    worker.say(socket, one.post(b"before"))
    worker.connect(late)
    assert late.values() == []


def test_nobody_goes_on_in_the_name_of_another() -> None:
    """What others know of a page is not what it says to be itself."""
    worker, one = Worker(), Page()
    worker.connect(one)
    thief = Page(secret=one.id)
    worker.connect(thief)
    assert worker.closed == []
    assert thief.id != one.id


def test_the_node_hears_its_own_channel() -> None:
    worker, page = Worker(node_channel="c"), Page()
    socket = worker.connect(page)
    worker.say(socket, page.post(b"to the node"))
    assert page.taken == {1: 1}, "the node listens"
    assert worker.machine.news() == [PageCame(socket, page.id), PageSaid(socket, b"to the node")]
    worker.machine.say(socket, b"n" * 16, 1, b"from the node")
    worker.flush()
    assert page.heard == [(b"n" * 16, 1, b"from the node")]
    worker.leave(socket)
    assert worker.machine.news() == [PageWent(socket)]


def test_what_a_page_asked_of_a_node_whose_worker_died_is_heard_by_the_next() -> None:
    first, second, page = Worker("first", "c"), Worker("second", "c"), Page()
    socket = first.connect(page)
    meet([first, second])
    first.say(socket, page.post(b"a request"))
    carry(first, second)
    second.now = 0.5
    again = second.connect(page, since_ms=5000)
    assert second.machine.news() == [PageCame(again, page.id), PageSaid(again, b"a request")]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"\xc1", Cause.INVALID),
        ("text", Cause.INVALID),
        (encode_frame(Hello(1, bytes(16), bytes(16), [])), Cause.INVALID),
    ],
    ids=["no frame", "text", "second hello"],
)
def test_a_page_that_breaks_the_protocol_is_notified_and_closed(data: str | bytes, cause: Cause) -> None:
    worker, page = Worker(), Page()
    socket = worker.connect(page)
    worker.say(socket, data)
    assert worker.closed == [socket]
    assert worker.machine.refused == {cause: 1}
    assert len(page.words) == 1


def test_who_says_nothing_or_no_hello_is_closed() -> None:
    worker = Worker()
    opening = Opening({}, Caller("127.0.0.1", ORIGIN))
    worker.machine.open_socket(7, opening, 0.0)
    worker.machine.open_socket(8, opening, 0.0)
    worker.say(8, encode_frame(PagePing()))
    worker.machine.handle_timer(HELLO_TIMEOUT_S)
    worker.flush()
    assert worker.closed == [8, 7]
    assert worker.machine.refused == {Cause.INVALID: 1, Cause.SILENT: 1}


def test_a_ping_is_answered() -> None:
    worker, page = Worker(), Page()
    worker.say(worker.connect(page), encode_frame(PagePing()))
    assert page.others == [PagePong()]


def test_a_post_that_is_too_large_is_refused_alone() -> None:
    worker, page = Worker(), Page()
    socket = worker.connect(page)
    worker.say(socket, page.post(bytes(MAX_VALUE_BYTES + 1)))
    assert [each.cause for each in page.refused] == [Cause.TOO_LARGE]
    assert worker.closed == []


def test_what_waits_for_other_workers_is_bounded() -> None:
    near, far, page = Worker("near"), Worker("far"), Page()
    socket = near.connect(page)
    meet([near, far])
    for number in range(1, PAGE_WINDOW_MESSAGES + 1):
        near.say(socket, page.post(b"%d" % number))
    assert near.closed == []
    near.say(socket, page.post(b"over"))
    assert near.closed == [socket]
    assert near.machine.refused == {Cause.BUSY: 1}
    while carry(near, far):
        pass
    page.outbox = page.outbox[-PAGE_WINDOW_MESSAGES:]  # as the script does: the window first, the rest later
    near.connect(page)
    while carry(near, far):
        pass
    assert page.outbox == [], "it came back and said it again: nothing is lost"
    big = Page()
    socket = near.connect(big)
    near.say(socket, big.post(bytes(PAGE_WINDOW_BYTES // 4)))
    for _ in range(4):
        near.say(socket, big.post(bytes(PAGE_WINDOW_BYTES // 4)))
    assert socket in near.closed
    assert RELAY_BYTES > PAGE_WINDOW_BYTES


def test_scopes_differ() -> None:
    assert scope_of("a", "bc") != scope_of("ab", "c")


@given(st.integers(0, 10_000))
def test_workers_die_at_any_moment_and_nothing_is_lost_doubled_or_out_of_order(seed: int) -> None:
    """Pages post, posts travel in any order of workers, workers die and pages go on at others."""
    roll = random.Random(seed)
    workers = [Worker(f"w{number}") for number in range(3)]
    pages = [Page() for _ in range(4)]
    at: dict[int, tuple[Worker, int]] = {}
    said: dict[int, list[bytes]] = {number: [] for number in range(len(pages))}
    clock = 0.0
    meet(workers)

    def connect(number: int) -> None:
        worker = roll.choice(workers)
        at[number] = (worker, worker.connect(pages[number], since_ms=60_000 if said_before(number) else 0))

    def said_before(number: int) -> bool:
        return bool(pages[number].id)

    for number in range(len(pages)):
        connect(number)
    for _ in range(60):
        clock += 0.01
        for worker in workers:
            worker.now = clock
        move = roll.random()
        if move < 0.5:
            number = roll.randrange(len(pages))
            value = b"%d-%d" % (number, len(said[number]))
            said[number].append(value)
            worker, socket = at[number]
            worker.say(socket, pages[number].post(value))
        elif move < 0.95:
            near, far = roll.choice(workers), roll.choice(workers)
            carry(near, far)
        elif len(workers) > 1:
            dead = roll.choice(workers)
            workers.remove(dead)
            for worker in workers:
                worker.machine.forget_worker(dead.name)
                worker.queues.pop(dead.name, None)
                worker.flush()
            for number, (worker, _) in list(at.items()):
                if worker is dead:
                    connect(number)
    while any(carry(near, far) for near in workers for far in workers):
        pass
    for number, page in enumerate(pages):
        assert not page.outbox
        assert page.gaps == 0
        for other, values in said.items():
            heard = [value for value in page.values() if value.startswith(b"%d-" % other)]
            assert heard == ([] if other == number else values)
