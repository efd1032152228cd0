"""The lease machine with a fake clock, and many of them against a model of KV."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from hypothesis import given, settings
from hypothesis import strategies as st

from services.webrtc.lease import (
    LEASE_TTL_S,
    RENEW_EVERY_S,
    VACANT_TTL_S,
    WATCH_EVERY_S,
    Command,
    LeaseRecord,
    PingHolder,
    ReadLease,
    SignalLease,
    WriteLease,
)

ME, OTHER = "webrtc-1", "webrtc-2"


def held(now: float = 0.0) -> SignalLease:
    """A lease that was vacant and is ours since `now`, with revision 1."""
    lease = SignalLease(ME)
    assert lease.handle_timer(now) == ReadLease()
    assert lease.lease_read(None, 0, now) == WriteLease(LeaseRecord(ME), None, LEASE_TTL_S)
    lease.lease_written(1, now)
    return lease


def test_a_vacant_lease_is_taken_and_renewed() -> None:
    lease = held()
    assert lease.holding(LEASE_TTL_S - 0.01)
    assert lease.handle_timer(0.1) is None
    assert lease.next_deadline() == RENEW_EVERY_S
    assert lease.handle_timer(RENEW_EVERY_S) == WriteLease(LeaseRecord(ME), 1, LEASE_TTL_S)
    lease.lease_written(2, RENEW_EVERY_S + 0.2)
    assert lease.holding(RENEW_EVERY_S + LEASE_TTL_S - 0.01)
    assert not lease.holding(RENEW_EVERY_S + LEASE_TTL_S)  # counts from when the write was sent


def test_a_released_marker_is_vacant() -> None:
    lease = SignalLease(ME)
    lease.handle_timer(0)
    assert lease.lease_read(LeaseRecord(""), 7, 0) == WriteLease(LeaseRecord(ME), 7, LEASE_TTL_S)


def test_a_live_holder_is_left_alone() -> None:
    lease = SignalLease(ME)
    lease.handle_timer(0)
    assert lease.lease_read(LeaseRecord(OTHER, open=True), 7, 0) == PingHolder(OTHER)
    assert not lease.signalling_up(0)  # not before it answered
    lease.holder_answered()
    assert lease.signalling_up(0)
    assert not lease.holding(0)
    assert lease.next_deadline() == WATCH_EVERY_S
    assert lease.handle_timer(WATCH_EVERY_S) == ReadLease()


def test_a_holder_that_nobody_serves_is_replaced_by_compare_and_set() -> None:
    lease = SignalLease(ME)
    lease.handle_timer(0)
    lease.lease_read(LeaseRecord(OTHER, open=True), 7, 0)
    assert lease.holder_gone(0) == WriteLease(LeaseRecord(ME), 7, LEASE_TTL_S)
    assert lease.lease_refused() is None  # another rival was quicker
    assert not lease.holding(0)


def test_a_silent_holder_is_waited_for() -> None:
    lease = SignalLease(ME)
    lease.handle_timer(0)
    lease.lease_read(LeaseRecord(OTHER, open=True), 7, 0)
    lease.holder_answered()
    lease.handle_timer(1)
    lease.lease_read(LeaseRecord(OTHER, open=True), 7, 1)
    lease.holder_silent()
    assert lease.signalling_up(1)
    lease.handle_timer(2)
    assert isinstance(lease.lease_read(None, 0, 2), WriteLease)  # its TTL has run out


def test_a_holder_that_lost_the_bus_for_a_ttl_no_longer_holds() -> None:
    lease = held()
    now = 0.0
    while now < LEASE_TTL_S:
        assert lease.holding(now)
        if lease.handle_timer(now) is not None:
            lease.bus_failed(now)
        now = lease.next_deadline()
    lease.handle_timer(now)
    assert not lease.holding(now)


def test_a_renewal_that_got_through_unnoticed_is_found_again() -> None:
    lease = held()
    assert isinstance(lease.handle_timer(RENEW_EVERY_S), WriteLease)
    lease.bus_failed(RENEW_EVERY_S)  # the answer was lost, the write was not
    later = lease.next_deadline()
    assert isinstance(lease.handle_timer(later), WriteLease)
    assert lease.lease_refused() == ReadLease()
    assert lease.holding(later)
    assert lease.lease_read(LeaseRecord(ME), 2, later) == WriteLease(LeaseRecord(ME), 2, LEASE_TTL_S)


def test_a_holder_that_was_overtaken_stops() -> None:
    lease = held()
    lease.handle_timer(RENEW_EVERY_S)
    assert lease.lease_refused() == ReadLease()
    assert lease.lease_read(LeaseRecord(OTHER), 9, RENEW_EVERY_S) == PingHolder(OTHER)
    assert not lease.holding(RENEW_EVERY_S)


def test_followers_hear_of_the_socket_at_once() -> None:
    lease = held()
    lease.socket_changed(True, 0.3)
    assert lease.signalling_up(0.3)
    assert lease.handle_timer(0.3) == WriteLease(LeaseRecord(ME, open=True), 1, LEASE_TTL_S)
    lease.socket_changed(False, 0.4)  # while the write is in flight
    lease.lease_written(2, 0.5)
    assert lease.handle_timer(0.5) == WriteLease(LeaseRecord(ME, open=False), 2, LEASE_TTL_S)


def test_release_is_a_compare_and_set_and_only_of_ones_own() -> None:
    lease = held()
    assert lease.release(1) == WriteLease(LeaseRecord(""), 1, VACANT_TTL_S)
    assert not lease.holding(1)
    assert lease.release(1) is None
    assert SignalLease(ME).release(0) is None


@dataclass
class Store:
    """One KV entry with compare-and-set and TTL."""

    record: LeaseRecord | None = None
    revision: int = 0
    expires: float = 0.0

    def read(self, now: float) -> LeaseRecord | None:
        return self.record if now < self.expires else None

    def write(self, command: WriteLease, now: float) -> int | None:
        live = self.read(now) is not None
        if live if command.revision is None else (not live or command.revision != self.revision):
            return None
        self.record, self.expires = command.record, now + command.ttl_s
        self.revision += 1
        return self.revision


@dataclass
class Contender:
    """A worker whose commands take time: sent, done in the store, answered; any of them may be lost."""

    name: str
    lease: SignalLease = field(init=False)
    pending: Command | None = None
    done: tuple[str, object] | None = None
    dead: bool = False

    def __post_init__(self) -> None:
        self.lease = SignalLease(self.name)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["act", "act", "act", "lose", "die"]),
            st.floats(0.0, 1.5),
        ),
        max_size=120,
    )
)
def test_never_two_holders_whatever_is_slow_lost_or_dead(steps: list[tuple[int, str, float]]) -> None:
    store = Store()
    contenders = [Contender(f"w{number}") for number in range(3)]
    names = {contender.name: contender for contender in contenders}
    now = 0.0
    for index, what, passes in steps:
        now += passes
        contender = contenders[index]
        if what == "die" and sum(c.dead for c in contenders) < 2:
            contender.dead = True
        elif what == "lose" and (contender.pending or contender.done):
            if isinstance(contender.pending, WriteLease):
                store.write(contender.pending, now)  # it got through; its answer did not
            contender.pending = contender.done = None
            contender.lease.bus_failed(now)
        elif not contender.dead:
            advance(contender, names, store, now)
        holders = [c.name for c in contenders if not c.dead and c.lease.holding(now)]
        assert len(holders) <= 1


def advance(contender: Contender, names: dict[str, Contender], store: Store, now: float) -> None:
    """One of: ask the machine, do its command in the store, give it the answer."""
    lease = contender.lease
    if contender.done is not None:
        kind, value = contender.done
        contender.done = None
        contender.pending = answer(lease, kind, value, now)
    elif contender.pending is not None:
        command, contender.pending = contender.pending, None
        match command:
            case ReadLease():
                contender.done = ("read", (store.read(now), store.revision))
            case WriteLease():
                contender.done = ("written", store.write(command, now))
            case PingHolder(holder):
                contender.done = ("gone" if names[holder].dead else "answered", None)
            case _:
                assert_never(command)
    else:
        contender.pending = lease.handle_timer(now)


def answer(lease: SignalLease, kind: str, value: object, now: float) -> Command | None:
    if kind == "read":
        assert isinstance(value, tuple)
        record, revision = value
        return lease.lease_read(record, revision, now)
    if kind == "written":
        if value is None:
            return lease.lease_refused()
        assert isinstance(value, int)
        lease.lease_written(value, now)
        return None
    if kind == "gone":
        return lease.holder_gone(now)
    lease.holder_answered()
    return None
