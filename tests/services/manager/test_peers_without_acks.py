"""Peers that cannot ack, or cannot answer at all, on a manager with its bus; in virtual time."""

from __future__ import annotations

import asyncio

from services.manager.routing.rank import ANSWER_DEFAULT_S, ANSWER_MIN_S
from shared.bus import calls
from shared.bus.messages.envelopes import Receipt, SendRequest
from shared.transports import ORDER
from tests.fakes.virtual_time import run_virtual
from tests.services.manager.node import Behaviour, FakeWorker, Node, answer, hops, stay_silent
from tests.services.manager.rig import BROADCAST, WEBRTC, WEBTORRENT

TIMEOUT_S = 30.0


def after(seconds: float) -> Behaviour:
    async def answering(worker: FakeWorker, call: SendRequest) -> None:
        await asyncio.sleep(seconds)
        await answer(worker, call)

    return answering


async def started() -> Node:
    node = Node(asyncio.get_running_loop().time)
    await node.start()
    node.workers[WEBRTC].acks = False
    return node


def test_the_first_answer_may_take_its_time_and_the_delay_is_learnt_from_the_next() -> None:
    async def main() -> list[Receipt]:
        node = await started()
        node.workers[WEBRTC].behave = after(ANSWER_DEFAULT_S - 0.5)
        receipts = [await node.deliver(TIMEOUT_S)]
        node.workers[WEBRTC].behave = after(0.2)
        receipts += [await node.deliver(TIMEOUT_S) for _ in range(30)]
        node.workers[WEBRTC].behave = stay_silent
        receipts.append(await node.deliver(TIMEOUT_S))
        await node.close()
        return receipts

    *answered, silent = run_virtual(main, [calls])
    assert {tuple(hops(receipt)) for receipt in answered} == {(("webrtc", "confirmed", ""),)}
    assert hops(silent) == [("webtorrent", "confirmed", ""), ("webrtc", "cancelled", "silent")]
    assert ANSWER_MIN_S * 1000 <= silent.elapsed_ms < ANSWER_DEFAULT_S * 1000, "its answers came after 200 ms each"


def test_a_peer_whose_answers_become_slower_is_not_hedged_against_indefinitely() -> None:
    """Cancelled losers teach too: otherwise nothing longer than the first answers would ever be learnt."""

    async def main() -> list[Receipt]:
        node = await started()
        node.workers[WEBRTC].behave = after(0.1)
        for _ in range(20):
            await node.deliver(TIMEOUT_S)
        node.workers[WEBRTC].behave = after(2.0)
        receipts = [await node.deliver(TIMEOUT_S) for _ in range(20)]
        await node.close()
        return receipts

    receipts = run_virtual(main, [calls])
    assert len(receipts[0].hops) == 2
    assert hops(receipts[-1]) == [("webrtc", "confirmed", "")]


def test_one_that_acks_again_is_held_to_its_acks_again() -> None:
    async def main() -> Receipt:
        node = await started()
        await node.deliver(TIMEOUT_S)
        node.workers[WEBRTC].acks = True
        await node.warm()
        node.workers[WEBRTC].behave = stay_silent
        receipt = await node.deliver(TIMEOUT_S)
        await node.close()
        return receipt

    receipt = run_virtual(main, [calls])
    assert receipt.hops[0].transport == "webtorrent"
    assert receipt.elapsed_ms < ANSWER_MIN_S * 1000


def test_a_peer_that_cannot_answer_ends_accepted_and_the_stream_says_so() -> None:
    async def main() -> tuple[Receipt, list[tuple[str, str]]]:
        node = Node(asyncio.get_running_loop().time)
        await node.start(linked=(WEBRTC,))
        worker = node.workers[WEBRTC]
        worker.acks = worker.confirms = False
        worker.behave = stay_silent
        for transport in (WEBTORRENT, BROADCAST):
            await node.flags.set(transport, False)
        await asyncio.sleep(0.1)
        receipt = await node.deliver(TIMEOUT_S)
        await asyncio.sleep(1.0)
        records = [(record.transport, record.outcome) for record in node.records]
        await node.close()
        return receipt, records

    receipt, records = run_virtual(main, [calls])
    assert (receipt.outcome, receipt.cause) == ("accepted", None)
    assert receipt.elapsed_ms < 1000, "there is nothing to wait for"
    assert ("webrtc", "accepted") in records
    assert {outcome for transport, outcome in records if transport != "webrtc"} == {"skipped"}


def test_where_nobody_acks_everything_is_confirmed_without_a_hedge() -> None:
    async def main() -> list[Receipt]:
        node = await started()
        for transport in ORDER:
            node.workers[transport].acks = False
            node.workers[transport].behave = after(0.8)
        receipts = await asyncio.gather(*(node.deliver(TIMEOUT_S) for _ in range(50)))
        await node.close()
        return receipts

    assert {tuple(hops(receipt)) for receipt in run_virtual(main, [calls])} == {(("webrtc", "confirmed", ""),)}
