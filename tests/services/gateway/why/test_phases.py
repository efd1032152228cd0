from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.why.phases import MAX_ROWS, STRAY_RUN, UNSETTLED_MS, deliveries_of, phases_of, timeline
from shared.bus.messages.records import HopRecord
from shared.errors import Cause

TRANSPORTS = ("webrtc", "webtorrent", "broadcast")
START_MS = 1_000_000


def hop(delivery: str, transport: str, outcome: str = "confirmed", at_ms: int = 0, **changes: Any) -> HopRecord:
    """One record; at_ms counts from START_MS."""
    values: dict[str, Any] = {
        "number": 1,
        "peer": "peer-00000000000000aa",
        "cause": None,
        "fallback_from": "",
        "fallback_cause": None,
        "hedged": False,
        "elapsed_ms": 10.0,
        "bytes": 100,
        "trace_id": f"trace-{delivery}",
        "transfer": "ab" * 16,
        "manager": "m1",
    }
    return HopRecord(
        delivery=delivery,
        transport=transport,
        outcome=outcome,
        started_ms=START_MS + at_ms,
        **{**values, **changes},
    )


def fell_back(delivery: str, left: str, cause: Cause, taken: str, at_ms: int, **changes: Any) -> list[HopRecord]:
    """A delivery that left one transport for another."""
    return [
        hop(delivery, left, "failed", at_ms, cause=cause, **changes),
        hop(delivery, taken, "confirmed", at_ms, number=2, fallback_from=left, fallback_cause=cause, **changes),
    ]


def hedged(delivery: str, at_ms: int) -> list[HopRecord]:
    return [
        hop(delivery, "webrtc", "cancelled", at_ms, cause=Cause.SILENT),
        hop(delivery, "webtorrent", "confirmed", at_ms, number=2, hedged=True, fallback_from="webrtc"),
    ]


def test_records_of_a_delivery_come_together_whatever_their_order_and_once() -> None:
    first, second = fell_back("d1", "webrtc", Cause.CLOSED, "webtorrent", 0)
    (delivery,) = deliveries_of([second, first, second])
    assert delivery.hops == (first, second)
    assert delivery.winner is second
    assert delivery.unused("webrtc") == [first]
    assert delivery.unused("broadcast") == []


def test_a_manager_that_takes_over_counts_from_one_again() -> None:
    old = hop("d1", "webrtc", "failed", 0, cause=Cause.CLOSED, number=2)
    new = hop("d1", "webtorrent", "confirmed", 500, number=1, manager="m0")
    (delivery,) = deliveries_of([new, old])
    assert delivery.hops == (old, new)


def test_a_delivery_may_still_be_dialling() -> None:
    (one,) = deliveries_of([hop("d1", "webrtc", "failed", 0, cause=Cause.NO_LINK)])
    assert not one.is_settled(START_MS + 100)
    assert one.is_settled(START_MS + 10 + UNSETTLED_MS + 1)
    (all_tried,) = deliveries_of(
        [hop("d1", name, "failed", 0, cause=Cause.NO_LINK, number=index) for index, name in enumerate(TRANSPORTS)]
    )
    assert all_tried.is_settled(START_MS)


def test_a_hedge_that_wins_now_and_then_is_no_change_of_transport() -> None:
    records = [hop("d0", "webrtc"), *hedged("d1", 10), *hedged("d2", 20), hop("d3", "webrtc", at_ms=30)]
    (phase,) = phases_of(deliveries_of(records))
    assert (phase.transport, len(phase.deliveries)) == ("webrtc", 4)


def test_hedges_in_a_row_are_one_from_the_first_of_them_on() -> None:
    records = [hop("d0", "webrtc")]
    for index in range(STRAY_RUN + 2):
        records += hedged(f"h{index}", 10 + index)
    phases = phases_of(deliveries_of(records))
    assert [(phase.transport, len(phase.deliveries)) for phase in phases] == [("webrtc", 1), ("webtorrent", 5)]
    assert phases[1].since_ms == START_MS + 10


def test_a_hedge_whose_first_hop_failed_outright_changes_it_at_once() -> None:
    left, taken = fell_back("d1", "webrtc", Cause.REFUSED, "webtorrent", 10, hedged=True)
    phases = phases_of(deliveries_of([hop("d0", "webrtc"), left, taken]))
    assert [phase.transport for phase in phases] == ["webrtc", "webtorrent"]


def test_an_acked_hop_that_lost_to_its_hedge_was_left_for_what_the_hedge_says() -> None:
    stalled, winner = hedged("d1", 10)
    stalled = msgspec.structs.replace(stalled, cause=None)
    winner = msgspec.structs.replace(winner, fallback_cause=Cause.SILENT)
    (delivery,) = deliveries_of([stalled, winner])
    assert [hop.cause for hop in delivery.unused("webrtc")] == [Cause.SILENT]
    # It was nobody's fallback: cancelled beside a winner that had failed before.
    (other,) = deliveries_of([stalled, msgspec.structs.replace(winner, fallback_from="")])
    assert other.unused("webrtc") == []


def test_an_explicit_failure_changes_it_at_once_and_the_return_too() -> None:
    records = [
        hop("d0", "webrtc"),
        *fell_back("d1", "webrtc", Cause.WORKER_LOST, "webtorrent", 10),
        hop("d2", "webrtc", at_ms=20),
    ]
    phases = phases_of(deliveries_of(records))
    assert [phase.transport for phase in phases] == ["webrtc", "webtorrent", "webrtc"]
    assert (phases[1].since_ms, phases[1].until_ms) == (START_MS + 10, START_MS + 20)


def test_deliveries_that_went_alike_share_their_rows() -> None:
    records = [hop(f"a{index}", "webrtc", at_ms=index, elapsed_ms=float(index + 1)) for index in range(5)]
    for index in range(3):
        records += fell_back(f"b{index}", "webrtc", Cause.NO_LINK, "webtorrent", 10 + index)
    rows, left_out = timeline(deliveries_of(records))
    assert [(row.transport, row.outcome, row.cause, row.count) for row in rows] == [
        ("webrtc", "confirmed", None, 5),
        ("webrtc", "failed", "no_link", 3),
        ("webtorrent", "confirmed", None, 3),
    ]
    assert (rows[0].ms, rows[0].max_ms, rows[0].at, rows[2].fallback_from) == (3.0, 5.0, START_MS, "webrtc")
    assert left_out == 0


def test_a_long_timeline_keeps_its_end_and_counts_the_rest() -> None:
    records = [hop(f"d{index}", TRANSPORTS[index % 2], at_ms=index) for index in range(MAX_ROWS + 5)]
    rows, left_out = timeline(deliveries_of(records))
    assert (len(rows), left_out, rows[-1].at) == (MAX_ROWS, 5, START_MS + MAX_ROWS + 4)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from(TRANSPORTS),
            st.sampled_from(["confirmed", "accepted", "failed", "cancelled", "skipped"]),
            st.sampled_from([None, *Cause]),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_nothing_is_lost_on_the_way(drawn: list[tuple[int, str, str, Cause | None, bool]]) -> None:
    records = [
        hop(f"d{delivery}", transport, outcome, index, cause=cause, hedged=hedge, number=index)
        for index, (delivery, transport, outcome, cause, hedge) in enumerate(drawn)
    ]
    deliveries = deliveries_of(records)
    assert sum(len(delivery.hops) for delivery in deliveries) == len(records)
    phases = phases_of(deliveries)
    assert sum(len(phase.deliveries) for phase in phases) == sum(one.winner is not None for one in deliveries)
    assert all(phase.deliveries for phase in phases)
    rows, left_out = timeline(deliveries, max_rows=8)
    assert sum(row.count for row in rows) + left_out == len(records)
