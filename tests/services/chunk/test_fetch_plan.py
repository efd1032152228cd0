"""The plan of a fetch, on a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chunk.fetch_plan import (
    ABSENT_AGAIN_AFTER_S,
    BUSY_REST_S,
    MAX_OPEN,
    REST_CAP_S,
    REST_FIRST_S,
    SLOW_AFTER_S,
    START_WINDOW,
    Assignment,
    FetchPlan,
)
from shared.errors import Cause


def test_a_window_starts_small_grows_and_stays_bounded() -> None:
    plan = FetchPlan(range(40), ["a"], max_window=4)
    opened = plan.assign(0)
    assert opened == [Assignment("a", 0), Assignment("a", 1)]
    assert plan.assign(0) == []
    for expected in (3, 4, 4, 4):
        assert plan.delivered(opened.pop(0))
        opened += plan.assign(0)
        assert plan.window("a") == expected
        assert len(opened) == expected


def test_busy_halves_the_window_and_rests_shortly() -> None:
    plan = FetchPlan(range(40), ["a"], max_window=8)
    opened = plan.assign(0)
    for _ in range(6):
        plan.delivered(opened.pop(0))
        opened += plan.assign(0)
    assert plan.window("a") == 8
    plan.failed(opened.pop(0), Cause.BUSY, 1.0)
    assert plan.window("a") == 4
    while opened:
        plan.delivered(opened.pop(0))
    assert plan.assign(1.0) == []
    assert plan.next_wake_s(1.0) == 1.0 + BUSY_REST_S
    assert plan.assign(1.0 + BUSY_REST_S)


def test_a_slowed_holder_is_asked_for_less_and_grows_again() -> None:
    plan = FetchPlan(range(40), ["a", "b"], max_window=8)
    opened = plan.assign(0)
    for _ in range(14):
        plan.delivered(opened.pop(0))
        opened += plan.assign(0)
    assert (plan.window("a"), plan.window("b")) == (8, 8)
    for _ in range(6):  # every request that met the same shortage tells of it
        plan.slowed("a", 0.5, 1.0)
    assert (plan.window("a"), plan.window("b")) == (4, 8)
    plan.slowed("a", 0.0, 1.5)
    plan.slowed("a", 0.0, 1.5 + BUSY_REST_S / 2)
    assert plan.window("a") == 2
    for number in range(5):
        plan.slowed("a", 0.0, 2.0 + number)
    assert plan.window("a") == 1
    mine = [assignment for assignment in opened if assignment.peer == "a"]
    plan.delivered(mine[0])
    assert plan.window("a") == 2


def test_failures_rest_for_longer_each_time_and_one_moment_counts_once() -> None:
    plan = FetchPlan([0], ["a"], max_window=4)
    now_s, rests = 0.0, []
    for _ in range(8):
        [assignment] = plan.assign(now_s)
        plan.failed(assignment, Cause.TIMEOUT, now_s)
        wake_s = plan.next_wake_s(now_s)
        assert wake_s is not None
        rests.append(wake_s - now_s)
        now_s = wake_s
    assert rests[:3] == [REST_FIRST_S, REST_FIRST_S * 2, REST_FIRST_S * 4]
    assert rests[-1] == REST_CAP_S
    plan = FetchPlan([0, 1], ["a"], max_window=4)
    first, second = plan.assign(0)
    plan.failed(first, Cause.TIMEOUT, 0)
    plan.failed(second, Cause.TIMEOUT, 0)
    assert plan.next_wake_s(0) == REST_FIRST_S


def test_several_holders_share_the_work_and_a_failed_chunk_goes_elsewhere() -> None:
    plan = FetchPlan(range(4), ["a", "b"], max_window=4)
    opened = plan.assign(0)
    assert {assignment.peer for assignment in opened} == {"a", "b"}
    assert {assignment.seq for assignment in opened} == {0, 1, 2, 3}
    lost = next(assignment for assignment in opened if assignment.peer == "a")
    plan.failed(lost, Cause.CLOSED, 0)
    plan.delivered(next(assignment for assignment in opened if assignment.peer == "b"))
    assert plan.assign(0) == [Assignment("b", lost.seq)]


def test_an_absent_chunk_is_asked_of_others_first_and_of_the_same_later() -> None:
    plan = FetchPlan([0], ["a", "b"], max_window=4)
    [first] = plan.assign(0)
    plan.absent(first, 0)
    [second] = plan.assign(0)
    assert second.peer != first.peer
    plan.absent(second, 0)
    assert plan.assign(0) == []
    assert plan.next_wake_s(0) == ABSENT_AGAIN_AFTER_S
    assert len(plan.assign(ABSENT_AGAIN_AFTER_S)) == 1


def test_near_the_end_a_slow_chunk_is_asked_once_more_elsewhere() -> None:
    plan = FetchPlan([0], ["a", "b"], max_window=4)
    [slow] = plan.assign(0)
    assert plan.next_wake_s(0) == SLOW_AFTER_S
    assert plan.assign(SLOW_AFTER_S - 0.1) == []
    [again] = plan.assign(SLOW_AFTER_S)
    assert again == Assignment("b", 0)
    assert plan.assign(SLOW_AFTER_S * 9) == []
    assert plan.delivered(again)
    assert plan.finished
    assert not plan.delivered(slow)


def test_one_holder_is_not_asked_twice_for_a_slow_chunk() -> None:
    plan = FetchPlan([0], ["a"], max_window=4)
    plan.assign(0)
    assert plan.assign(SLOW_AFTER_S * 9) == []


def test_what_is_open_at_once_is_bounded() -> None:
    peers = [f"p{number}" for number in range(MAX_OPEN)]
    assert len(FetchPlan(range(500), peers, max_window=6).assign(0)) == MAX_OPEN
    assert MAX_OPEN > START_WINDOW


@given(
    count=st.integers(0, 12),
    peers=st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_whatever_happens_every_chunk_comes_once_and_the_plan_never_stalls(
    count: int, peers: list[str], data: st.DataObject
) -> None:
    plan = FetchPlan(range(count), peers, max_window=3)
    now_s, opened, got = 0.0, [], []
    for _ in range(400):
        if plan.finished:
            break
        opened += plan.assign(now_s)
        for peer in peers:
            assert sum(assignment.peer == peer for assignment in opened) <= 3
        for seq in range(count):
            assert sum(assignment.seq == seq for assignment in opened) <= 2
        wake_s = plan.next_wake_s(now_s)
        assert opened or wake_s is not None
        if not opened:
            assert wake_s is not None
            now_s = wake_s
            continue
        assignment = opened.pop(data.draw(st.integers(0, len(opened) - 1)))
        what = data.draw(
            st.sampled_from(["delivered", "delivered", "absent", Cause.BUSY, Cause.TIMEOUT, "slowed", "wait"])
        )
        if what == "delivered":
            if plan.delivered(assignment):
                got.append(assignment.seq)
        elif what == "absent":
            plan.absent(assignment, now_s)
        elif isinstance(what, Cause):
            plan.failed(assignment, what, now_s)
        else:
            opened.append(assignment)
            if what == "slowed":
                plan.slowed(assignment.peer, 0.5, now_s)
            now_s += 1.0
    else:
        pytest.skip("an endless run of failures")
    assert sorted(got) == list(range(count))
