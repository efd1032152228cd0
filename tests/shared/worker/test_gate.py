"""The blocklist and the limit of one peer's links in a worker: in each direction, on links that are open, counted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.errors import Cause, NoResponders, RemoteFailure
from shared.ids import peer_name
from shared.settings.blocklist import Direction
from shared.worker import gate
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.shared.worker.couple import Couple

IN, OUT, ALL = Direction.INBOUND, Direction.OUTBOUND, Direction.ALL


@pytest.fixture
async def couple() -> AsyncIterator[Couple]:
    couple = Couple()
    await couple.start()
    yield couple
    await couple.stop()


async def block(node: WorkerNode, other: WorkerNode, direction: Direction) -> None:
    await node.blocklist.block(peer_name(other.token), direction)


async def linked(couple: Couple) -> None:
    await couple.near.dial(couple.far.token)
    await until(lambda: couple.far.status and couple.far.status.peers)


async def busy(couple: Couple, *requests: bytes) -> None:
    """Requests that near has out and far works on: its chunk service does not answer."""
    await linked(couple)
    couple.far.hub.freeze("chunk-0")
    for request_id in requests:
        await couple.send(request_id)
    await until(lambda: len(couple.near.progress) == len(requests))


def refused(node: WorkerNode) -> dict[str, int]:
    return node.status.refused if node.status is not None else {}


async def test_outbound_refuses_our_requests_and_dials_and_nothing_of_the_peers(couple: Couple) -> None:
    await linked(couple)
    await block(couple.near, couple.far, OUT)
    for hop in (couple.send, lambda: couple.near.dial(couple.far.token)):
        with pytest.raises(RemoteFailure) as failure:
            await hop()
        assert failure.value.cause is Cause.BLOCKED
    await until(lambda: refused(couple.near).get("blocked") == 2)
    assert couple.far.asked == []
    assert couple.near.status is not None
    assert couple.near.status.peers, "the peer may still ask us"
    await couple.near.blocklist.unblock(peer_name(couple.far.token))
    await couple.send()
    await until(lambda: couple.near.answers)


async def test_outbound_withdraws_what_is_in_flight(couple: Couple) -> None:
    await busy(couple, b"1" * 16, b"2" * 16)
    await block(couple.near, couple.far, OUT)
    await until(lambda: [failure.cause for failure in couple.near.failures] == [Cause.BLOCKED] * 2)


async def test_inbound_refuses_the_peers_requests_and_keeps_the_link(couple: Couple) -> None:
    await busy(couple, b"1" * 16)
    await block(couple.far, couple.near, IN)
    await until(lambda: [failure.cause for failure in couple.near.failures] == [Cause.BLOCKED])
    asked_before = len(couple.far.asked)
    await couple.send(b"2" * 16)
    await until(lambda: [failure.cause for failure in couple.near.failures] == [Cause.BLOCKED] * 2)
    assert len(couple.far.asked) == asked_before
    await until(lambda: refused(couple.far) == {"blocked": 2})
    assert couple.far.status is not None
    assert couple.far.status.peers, "we may still ask the peer"


async def test_all_closes_the_link_and_says_why_to_the_peer(couple: Couple) -> None:
    await busy(couple, b"1" * 16)
    await block(couple.far, couple.near, ALL)
    await until(lambda: couple.far.status and not couple.far.status.peers)
    await until(lambda: [failure.cause for failure in couple.near.failures] == [Cause.BLOCKED])
    with pytest.raises(NoResponders):
        while True:
            await couple.send(b"2" * 16)


async def test_a_blocked_peers_new_link_is_closed_again(couple: Couple) -> None:
    await block(couple.far, couple.near, IN)
    await couple.near.dial(couple.far.token)  # sealed at our end before the other can say no
    await until(lambda: refused(couple.far) == {"blocked": 1})
    await until(lambda: couple.near.status and not couple.near.status.peers)
    await couple.far.blocklist.unblock(peer_name(couple.near.token))
    await linked(couple)


async def test_a_link_that_we_dialled_in_a_hurry_before_the_block_is_closed(couple: Couple) -> None:
    """Its dial was on its way when the peer was blocked."""
    await block(couple.near, couple.far, OUT)
    await couple.near_transport.dial_unasked(couple.far.key)
    await until(lambda: refused(couple.near).get("blocked") == 1)
    await until(lambda: couple.far.status is not None and not couple.far.status.peers)


async def test_one_peer_has_so_many_links_and_no_more(couple: Couple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_LINKS_A_PEER", 2)
    for _ in range(3):
        await couple.near_transport.dial_unasked(couple.far.key)
    await until(lambda: refused(couple.far) == {"busy": 1} or refused(couple.near) == {"busy": 1})
    await until(lambda: couple.far.status is not None and couple.far.status.peers)  # it may not have reported yet


async def test_a_dial_that_the_peer_turns_away_says_its_cause(couple: Couple) -> None:
    """Its interest is held up by the bus: the link is closed again before it is of any use."""
    await block(couple.far, couple.near, ALL)
    causes: list[Cause] = []
    for _ in range(5):
        try:
            await couple.near.dial(couple.far.token)
        except RemoteFailure as error:
            causes.append(error.cause)
        await until(lambda: couple.near.status and not couple.near.status.peers)
    assert set(causes) <= {Cause.BLOCKED}
