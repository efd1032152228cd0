"""The manager on a bus: fake workers that fail, fall silent and die; managers that are killed and stopped."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from services.manager.routing.budget import EXPECTED_ANSWER_BYTES, START_ALLOWANCE_BYTES
from services.manager.routing.peers import PROBE_INTERVAL_S
from shared.bus.messages.envelopes import (
    BodyRef,
    CancelDelivery,
    LinkAnswer,
    LinkFailed,
    LinkProgress,
    Ping,
    Pong,
    Receipt,
    SendRequest,
    Verdict,
)
from shared.clock import monotonic
from shared.errors import Cause, RemoteFailure
from shared.hops.fold import HopCounters
from tests.fakes.waiting import until
from tests.services.manager.node import (
    ANSWER,
    PEER,
    SUBJECTS,
    FakeWorker,
    Node,
    answer,
    fail,
    hops,
    only_ack,
    stay_silent,
)
from tests.services.manager.rig import BROADCAST, WEBRTC, WEBTORRENT

AT_ONCE_MS = 800
"""Loose, for a busy machine; any of our timeouts is longer."""

NO_TIMEOUT_MS = 1_800
"""The same for what takes a hedge or a ping; giving up a silent hop takes 2 s."""


async def test_a_plain_delivery(node: Node) -> None:
    await node.start()
    receipt = await node.deliver()
    assert (receipt.outcome, receipt.cause) == ("confirmed", None)
    assert hops(receipt) == [("webrtc", "confirmed", "")]
    assert receipt.hops[0].bytes == 1_000
    assert receipt.hops[0].accepted_after_ms >= 0
    await until(lambda: len(node.records) == 1)
    record = node.records[0]
    assert (record.transport, record.outcome, record.transfer, record.bytes) == ("webrtc", "confirmed", "t1", 1_000)
    assert record.peer.startswith("peer-")
    assert PEER not in str(record)
    assert node.diagnostics == []


@pytest.mark.parametrize("cause", [Cause.CLOSED, Cause.REFUSED, Cause.TOO_LARGE])
async def test_an_explicit_failure_falls_back_at_once(node: Node, cause: Cause) -> None:
    await node.start()
    await node.warm()
    node.workers[WEBRTC].behave = fail(cause)
    receipt = await node.deliver()
    assert hops(receipt) == [("webrtc", "failed", cause.value), ("webtorrent", "confirmed", "")]
    assert receipt.elapsed_ms < AT_ONCE_MS
    await until(lambda: node.diagnostics)
    assert node.diagnostics[0].code == "transport-fallback"
    context = node.diagnostics[0].context
    assert (context["from"], context["to"], context["cause"], context["outcome"]) == (
        "webrtc",
        "webtorrent",
        cause.value,
        "confirmed",
    )


async def test_a_refusal_on_the_bus_is_an_explicit_failure(node: Node) -> None:
    await node.start()
    node.workers[WEBRTC].refuse = RemoteFailure(Cause.BUSY, retry_after_s=3.0)
    assert hops(await node.deliver()) == [("webrtc", "failed", "busy"), ("webtorrent", "confirmed", "")]


async def test_no_interest_is_no_link_at_once(node: Node) -> None:
    await node.start()
    await node.warm()
    await node.workers[WEBRTC].unlink()
    node.workers[WEBRTC].dial_cause = Cause.PEER_UNKNOWN
    receipt = await node.deliver()
    assert hops(receipt) == [("webrtc", "failed", "no_link"), ("webtorrent", "confirmed", "")]
    assert receipt.elapsed_ms < AT_ONCE_MS


async def test_silence_is_hedged_and_the_loser_is_cancelled(node: Node) -> None:
    await node.start()
    await node.warm()
    node.workers[WEBRTC].behave = stay_silent
    receipt = await node.deliver()
    assert [hop.transport for hop in receipt.hops] == ["webtorrent", "webrtc"]
    assert hops(receipt)[1] == ("webrtc", "cancelled", "silent")
    assert receipt.hops[0].hedged
    assert receipt.elapsed_ms < NO_TIMEOUT_MS
    await until(lambda: node.workers[WEBRTC].cancelled == [receipt.delivery_id])


async def test_a_killed_worker_is_noticed_within_a_ping(node: Node) -> None:
    await node.start()
    await node.warm()
    worker = node.workers[WEBRTC]
    worker.behave = only_ack
    delivering = asyncio.create_task(node.deliver())
    await until(lambda: len(worker.asked) > 2)
    node.hub.kill(worker.bus.instance)
    receipt = await delivering
    assert hops(receipt) == [("webrtc", "failed", "worker_lost"), ("webtorrent", "confirmed", "")]
    assert receipt.elapsed_ms < NO_TIMEOUT_MS


async def test_a_stopped_worker_costs_a_hedge_not_the_delivery(node: Node) -> None:
    await node.start()
    await node.warm()
    node.hub.freeze(node.workers[WEBRTC].bus.instance)
    receipt = await node.deliver()
    assert receipt.outcome == "confirmed"
    assert receipt.hops[0].transport == "webtorrent"
    assert receipt.elapsed_ms < NO_TIMEOUT_MS


async def test_a_bad_answer_goes_on_to_the_next_transport(node: Node) -> None:
    await node.start()
    node.verdicts["webrtc"] = Cause.INTEGRITY_MISMATCH
    receipt = await node.deliver()
    assert hops(receipt) == [("webrtc", "failed", "integrity_mismatch"), ("webtorrent", "confirmed", "")]
    await until(lambda: node.workers[WEBRTC].cancelled)


async def test_a_flag_moves_a_delivery_in_flight(node: Node) -> None:
    await node.start()
    await node.warm()
    worker = node.workers[WEBRTC]
    worker.behave = only_ack
    delivering = asyncio.create_task(node.deliver())
    await until(lambda: len(worker.asked) > 2)
    await node.flags.set(WEBRTC, False)
    receipt = await delivering
    assert hops(receipt) == [("webrtc", "failed", "disabled"), ("webtorrent", "confirmed", "")]
    asked = len(worker.asked)
    assert hops(await node.deliver())[0] == ("webrtc", "skipped", "disabled")
    assert len(worker.asked) == asked


async def test_without_any_link_it_dials_and_counts_no_fallback(node: Node) -> None:
    await node.start(linked=())
    receipt = await node.deliver()
    assert hops(receipt) == [("webrtc", "confirmed", "")]
    assert node.workers[WEBRTC].dialled == 1
    await until(lambda: node.records)
    assert node.diagnostics == []


async def test_a_dead_rendezvous_falls_back_by_its_dial(node: Node) -> None:
    await node.start(linked=())
    node.workers[WEBRTC].dial_cause = Cause.SIGNALLING_UNAVAILABLE
    receipt = await node.deliver()
    assert hops(receipt) == [("webrtc", "failed", "signalling_unavailable"), ("webtorrent", "confirmed", "")]


async def test_nothing_works_and_it_says_why(node: Node) -> None:
    await node.start(linked=())
    for worker in node.workers.values():
        worker.dial_cause = Cause.PEER_UNKNOWN
    receipt = await node.deliver()
    assert (receipt.outcome, receipt.cause) == ("failed", Cause.PEER_UNKNOWN)
    assert [hop.outcome for hop in receipt.hops] == ["failed"] * 3


async def test_the_primary_is_back_after_a_probe(node: Node) -> None:
    await node.start()
    await node.warm()
    webrtc = node.workers[WEBRTC]
    await webrtc.unlink()
    webrtc.dial_cause = Cause.PEER_UNKNOWN
    assert hops(await node.deliver())[-1][0] == "webtorrent"
    webrtc.dial_cause = None
    await until(lambda: webrtc.linked, PROBE_INTERVAL_S + 3)
    assert hops(await node.deliver()) == [("webrtc", "confirmed", "")]


async def test_two_managers_one_killed_loses_nothing(node: Node) -> None:
    await node.start(managers=2)
    await node.warm()

    for worker in node.workers.values():
        worker.behave = only_ack
    delivering = [asyncio.create_task(node.deliver(10.0)) for _ in range(100)]
    await until(lambda: len(node.workers[WEBRTC].asked) >= 100)
    for worker in node.workers.values():
        worker.behave = answer
    node.hub.kill("manager-1")
    receipts = await asyncio.gather(*delivering)
    assert {receipt.outcome for receipt in receipts} == {"confirmed"}
    assert node.calls.asked_again > 10


async def test_two_managers_one_frozen_loses_nothing(node: Node) -> None:
    await node.start(managers=2)
    await node.warm()
    node.hub.freeze("manager-1")
    delivering = [asyncio.create_task(node.deliver(10.0)) for _ in range(20)]
    await until(lambda: any(task.done() for task in delivering))
    # The frozen one keeps its share of the queue group until the server misses its pings; then it is dropped.
    node.hub.kill("manager-1")
    receipts = await asyncio.gather(*delivering)
    assert {receipt.outcome for receipt in receipts} == {"confirmed"}


class JumpingClock:
    """What a process that was stopped sees: time has passed, and it noticed nothing."""

    def __init__(self) -> None:
        self.jumped_s = 0.0

    def __call__(self) -> float:
        return monotonic() + self.jumped_s


async def test_a_manager_that_was_stopped_leaves_its_deliveries_to_another(node: Node) -> None:
    await node.start(managers=0)
    clock = JumpingClock()
    await node.start_manager("manager-1", clock)
    await node.warm()
    for worker in node.workers.values():
        worker.behave = only_ack
    delivering = [asyncio.create_task(node.deliver(10.0)) for _ in range(10)]
    await until(lambda: len(node.workers[WEBRTC].asked) >= 12)
    await node.start_manager("manager-2")
    for worker in node.workers.values():
        worker.behave = answer
    clock.jumped_s = 3.0
    receipts = await asyncio.gather(*delivering)
    assert {receipt.outcome for receipt in receipts} == {"confirmed"}
    await until(lambda: sum(record.cause is Cause.EXPIRED for record in node.records) == 10)
    assert not any(worker.cancelled for worker in node.workers.values()), "the other manager may be using them"


async def test_a_manager_that_was_stopped_and_takes_its_deliveries_up_again_writes_every_hop_down(node: Node) -> None:
    await node.start(managers=0)
    clock = JumpingClock()
    await node.start_manager("manager-1", clock)
    await node.warm()
    for worker in node.workers.values():
        worker.behave = only_ack
    delivering = [asyncio.create_task(node.deliver(10.0)) for _ in range(5)]
    await until(lambda: len(node.workers[WEBRTC].asked) >= 7)
    before = len(node.records)
    for worker in node.workers.values():
        worker.behave = answer
    clock.jumped_s = 3.0
    receipts = await asyncio.gather(*delivering)
    assert {receipt.outcome for receipt in receipts} == {"confirmed"}
    await until(lambda: sum(record.outcome == "confirmed" for record in node.records[before:]) == 5)
    assert sum(record.cause is Cause.EXPIRED for record in node.records) == 5
    keys = [(record.delivery, record.number) for record in node.records]
    assert len(keys) == len(set(keys))


async def test_an_abandoned_delivery_gives_its_hedges_back(node: Node) -> None:
    """As many as the first allowance lets go, all abandoned: hedging goes on."""
    await node.start(managers=0)
    clock = JumpingClock()
    await node.start_manager("manager-1", clock)
    await node.warm()
    for worker in node.workers.values():
        worker.behave = stay_silent
    hedges = START_ALLOWANCE_BYTES // EXPECTED_ANSWER_BYTES
    delivering = [asyncio.create_task(node.deliver(30.0)) for _ in range(hedges)]
    asked_before = len(node.workers[WEBTORRENT].asked)
    await until(
        lambda: len(node.workers[WEBTORRENT].asked) + len(node.workers[BROADCAST].asked) >= asked_before + hedges
    )
    for worker in node.workers.values():
        worker.behave = answer
    clock.jumped_s = 3.0
    await asyncio.gather(*delivering)
    node.workers[WEBRTC].behave = stay_silent
    assert [hop.outcome for hop in (await node.deliver()).hops if hop.hedged] == ["confirmed"]


async def test_the_same_id_asked_again_gets_its_receipt_again(node: Node) -> None:
    await node.start()
    call_id = os.urandom(16)
    first = await node.deliver(delivery_id=call_id)
    again = await node.deliver(delivery_id=call_id)
    assert again == first
    assert node.answers[call_id] == 1
    assert len(node.workers[WEBRTC].asked) == 1


async def test_ping_says_which_calls_are_unknown_and_the_caller_may_cancel(node: Node) -> None:
    await node.start()
    node.workers[WEBRTC].behave = only_ack
    call_id, strange = os.urandom(16), os.urandom(16)
    delivering = asyncio.create_task(node.deliver(delivery_id=call_id))
    await until(lambda: node.workers[WEBRTC].asked)
    pong = await node.caller.request(SUBJECTS.manager("manager-1"), Ping([call_id, strange]), Pong, 1.0)
    assert pong.unknown == [strange]
    await node.caller.publish(SUBJECTS.manager("manager-1"), CancelDelivery(call_id))
    receipt = await delivering
    assert receipt.outcome == "cancelled"
    assert hops(receipt)[0] == ("webrtc", "cancelled", "")


async def test_it_answers_by_the_deadline_whatever_happens(node: Node) -> None:
    await node.start()
    for worker in node.workers.values():
        worker.behave = only_ack
    receipt = await node.deliver(timeout_s=0.8)
    assert (receipt.outcome, receipt.cause) == ("failed", Cause.TIMEOUT)
    await until(lambda: len(node.records) == len(receipt.hops))


async def test_a_manager_that_drains_finishes_what_it_has(node: Node) -> None:
    await node.start(managers=2)
    await node.warm()
    node.workers[WEBRTC].behave = only_ack
    asked_before = len(node.workers[WEBRTC].asked)
    delivering = [asyncio.create_task(node.deliver()) for _ in range(20)]
    await until(lambda: len(node.workers[WEBRTC].asked) >= asked_before + 20)
    stopping = asyncio.create_task(node.managers["manager-1"].stop())
    receipts = await asyncio.gather(*delivering)
    assert {receipt.outcome for receipt in receipts} == {"confirmed"}
    await stopping
    assert node.calls.asked_again == 0
    assert (await node.deliver()).outcome == "confirmed"


async def test_counts_agree(node: Node) -> None:
    await node.start()
    await node.warm()
    receipts: list[Receipt] = []
    for behave in (fail(Cause.CLOSED), stay_silent, fail(Cause.REFUSED)):
        node.workers[WEBRTC].behave = behave
        receipts.append(await node.deliver())
    before = 2
    await until(lambda: len(node.records) == before + sum(len(receipt.hops) for receipt in receipts))
    await until(lambda: len(node.diagnostics) == 3)
    counters = HopCounters()
    for record in node.records:
        counters.apply(record, record.started_ms)
    assert sum(one.fallback_count for _, one in counters) == 3
    assert counters.transport(WEBRTC).fallback_causes == {"closed": 1, "silent": 1, "refused": 1}
    assert sorted(event.context["cause"] for event in node.diagnostics) == ["closed", "refused", "silent"]
    assert counters.transport(BROADCAST).hops == {}
    assert counters.transport(WEBTORRENT).hops == {"confirmed": 3}


async def test_fallbacks_are_not_reported_where_the_flag_is_off(node: Node) -> None:
    await node.start()
    await node.flags.set_named("transportFallbackTelemetry", False)
    await until(lambda: not node.managers["manager-1"].process.flags.fallback_telemetry)
    node.workers[WEBRTC].behave = fail(Cause.CLOSED)
    await node.warm()
    await until(lambda: len(node.records) == 4)
    assert [record.fallback_from for record in node.records if record.outcome == "confirmed"] == ["webrtc"] * 2
    assert node.diagnostics == []


async def test_our_own_lag_is_no_links_silence(node: Node) -> None:
    await node.start()
    await node.warm()

    async def answer_soon(worker: FakeWorker, call: SendRequest) -> None:
        asyncio.get_running_loop().call_later(0.005, lambda: asyncio.ensure_future(answer(worker, call)))
        time.sleep(0.3)  # noqa: ASYNC251 - the whole process stands still, longer than this link's hedge delay

    node.workers[WEBRTC].behave = answer_soon
    assert hops(await node.deliver()) == [("webrtc", "confirmed", "")]


async def test_a_circuit_opens_and_traffic_goes_round_it(node: Node) -> None:
    await node.start()
    await node.warm()
    node.workers[WEBRTC].behave = fail(Cause.REFUSED)
    for _ in range(5):
        await node.deliver()
        await until(lambda: node.records and node.records[-1].outcome == "confirmed")
    assert hops(await node.deliver())[0] == ("webrtc", "skipped", "circuit_open")


async def test_handlers_take_any_message_for_unknown_deliveries(node: Node) -> None:
    await node.start()
    subject, strange = SUBJECTS.manager("manager-1"), os.urandom(16)
    await node.caller.publish(subject, LinkProgress(strange, 1, 0))
    await node.caller.publish(subject, LinkFailed(strange, 1, Cause.CLOSED))
    await node.caller.publish(subject, Verdict(strange, 1, None, 0))
    await node.caller.publish(subject, CancelDelivery(strange))
    worker = node.workers[WEBRTC]
    await node.caller.publish(subject, LinkAnswer(strange, 1, ANSWER, BodyRef(worker.bus.instance, b"t", 1)))
    await until(lambda: worker.cancelled == [strange])
