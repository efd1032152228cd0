"""Whatever happens to managers and workers, each delivery has one honest end by its deadline, and all recovers."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.manager.routing.rank import ANSWER_MIN_S
from shared.bus import calls
from shared.errors import Cause
from shared.transports import ORDER, TransportName
from tests.fakes.virtual_time import run_virtual
from tests.services.manager.storm import BEHAVIOURS, REFUSALS, SLACK_S, TIMEOUT_S, Asked, Storm

EXAMPLES = int(os.environ.get("STORMS", "40"))
"""More of them by the environment: STORMS=2000."""

PHASES = list(Phase) if EXAMPLES < 1_000 else [Phase.generate]

which = st.integers(0, 7)
transports = st.sampled_from(ORDER)
manners = st.sampled_from([*BEHAVIOURS, *REFUSALS])
deliver = st.tuples(st.just("deliver"), st.none() | st.floats(0.0, 2.0))
steps = st.one_of(
    deliver,
    deliver,
    deliver,
    st.tuples(st.just("start_manager")),
    st.tuples(st.just("kill_manager"), which),
    st.tuples(st.sampled_from(["stop_manager", "freeze", "cut_off", "mend", "mend"]), which),
    st.tuples(st.just("kill_worker"), transports, st.booleans()),
    st.tuples(st.just("link"), transports, st.booleans()),
    st.tuples(st.just("behave"), transports, manners),
    st.tuples(st.just("dials"), transports, st.sampled_from([None, Cause.DIAL_TIMEOUT, Cause.PEER_UNKNOWN])),
    st.tuples(st.just("answers_are"), transports, st.sampled_from([None, Cause.INTEGRITY_MISMATCH])),
    st.tuples(st.just("switch"), transports, st.booleans()),
    st.tuples(st.just("block"), st.booleans()),
)
pauses = st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.3, 1.0])
storms = st.lists(st.tuples(steps, pauses), max_size=40)


@given(
    storm=storms,
    managers=st.integers(1, 3),
    linked=st.sets(transports),
    begin_as=st.tuples(manners, manners, manners),
)
@settings(max_examples=EXAMPLES, deadline=None, phases=PHASES)
def test_one_honest_end_by_the_deadline_and_all_recovers(
    storm: list[tuple[tuple[object, ...], float]],
    managers: int,
    linked: set[TransportName],
    begin_as: tuple[str, str, str],
) -> None:
    async def main() -> None:
        played = Storm()
        try:
            await played.start(managers, tuple(name for name in ORDER if name in linked))
            for transport, how in zip(ORDER, begin_as, strict=True):
                await played.behave(transport, how)
            for step, pause_s in storm:
                name, *arguments = step
                await getattr(played, str(name))(*arguments)
                await asyncio.sleep(pause_s)
            await played.deliver()
            await played.calm()
            await all_is_well_again(played)
            check(played)
        finally:
            await played.close()

    run_virtual(main, [calls])


async def all_is_well_again(storm: Storm) -> None:
    before = len(storm.asked)
    for _ in range(4):
        await storm.deliver()
        await asyncio.sleep(TIMEOUT_S + 1.0)
    for asked in storm.asked[before:]:
        assert asked.receipt is not None
        assert asked.receipt.outcome == "confirmed", asked.receipt
    last = storm.asked[-1].receipt
    assert last is not None
    assert [hop.transport for hop in last.hops if hop.outcome == "confirmed"] == ["webrtc"], last


def check(storm: Storm) -> None:
    assert storm.wrong == []
    for asked in storm.asked:
        one_end_by_the_deadline(asked, storm.lost_a_manager)
        every_hop_is_accounted_for(asked)
    records_agree(storm)
    for name in storm.node.managers:
        assert storm.statuses[name].deliveries == 0, "something is left in a manager"


def one_end_by_the_deadline(asked: Asked, lost_a_manager: bool) -> None:
    assert asked.outcome is not None
    assert asked.ended_at - asked.started_at <= TIMEOUT_S + SLACK_S
    if asked.steady and not isinstance(asked.outcome, asyncio.CancelledError):
        assert asked.receipt is not None, asked
        # A manager that takes over from a killed one may give the answer again.
        assert asked.good_count <= 1 or lost_a_manager, "one answer was enough"
    if asked.receipt is not None:
        assert asked.receipt.outcome in ("confirmed", "accepted", "failed")
        assert (asked.receipt.cause is None) == (asked.receipt.outcome != "failed")
        if asked.receipt.outcome == "accepted":
            assert "accepted" in [hop.outcome for hop in asked.receipt.hops]


def every_hop_is_accounted_for(asked: Asked) -> None:
    if asked.receipt is None:
        return
    hops = asked.receipt.hops
    assert sorted(hop.number for hop in hops) == list(range(1, len(hops) + 1))
    confirmed = [hop for hop in hops if hop.outcome == "confirmed"]
    assert len(confirmed) == (asked.receipt.outcome == "confirmed")
    for hop in confirmed:
        assert hop.number in {answered.hop for answered in asked.judged}, "confirmed, and nobody judged it"
    for hop in hops:
        if hop.cause is Cause.SILENT and hop.accepted_after_ms >= 0 and hop.transport in asked.without_acks:
            assert hop.elapsed_ms >= ANSWER_MIN_S * 1000 - 1, "silent for want of an ack"
        assert (hop.cause is not None) == (hop.outcome in ("failed", "skipped")) or hop.outcome == "cancelled"


def records_agree(storm: Storm) -> None:
    """The stream holds each hop of each receipt once, as its manager wrote it."""
    written = Counter((record.delivery, record.number, record.manager) for record in storm.node.records)
    assert set(written.values()) <= {1}
    outcomes = {(record.delivery, record.number, record.transport, record.outcome) for record in storm.node.records}
    for asked in storm.asked:
        for hop in asked.receipt.hops if asked.receipt is not None else []:
            key = (asked.delivery_id.hex(), hop.number, hop.transport, hop.outcome)
            assert key in outcomes or storm.lost_a_manager, key
