"""Which worker a connection's messages go to."""

from __future__ import annotations

from services.webrtc.connection_owners import CONNECTION_TTL_S, MAX_CONNECTIONS, ConnectionOwners
from shared.rtc.description import MAX_CANDIDATES

PEER, CONNECTION, S1, S2 = "peer-1", "dc_1", "http://one", "http://two"


def test_answers_to_a_dial_go_to_its_worker() -> None:
    owners = ConnectionOwners()
    owners.dialled(PEER, CONNECTION, "w1", {S1}, 0)
    assert owners.worker_for(PEER, CONNECTION, b"answer", 0) == "w1"
    assert owners.worker_for("peer-2", CONNECTION, b"answer", 0) is None
    assert owners.servers_of(PEER, CONNECTION, 0) == {S1}


def test_candidates_wait_for_their_offer_to_be_taken_in_order_and_bounded() -> None:
    owners = ConnectionOwners()
    assert owners.offered(PEER, CONNECTION, S1, 0)
    messages = [str(number).encode() for number in range(MAX_CANDIDATES + 3)]
    for message in messages:
        assert owners.worker_for(PEER, CONNECTION, message, 0) is None
    assert owners.taken(PEER, CONNECTION, "w1", 0) == messages[:MAX_CANDIDATES]
    assert owners.worker_for(PEER, CONNECTION, b"late", 0) == "w1"
    assert owners.taken(PEER, CONNECTION, "w1", 0) == []


def test_an_offer_through_two_servers_is_one() -> None:
    owners = ConnectionOwners()
    assert owners.offered(PEER, CONNECTION, S1, 0)
    assert not owners.offered(PEER, CONNECTION, S2, 0)
    assert owners.servers_of(PEER, CONNECTION, 0) == {S1}
    owners.forget(PEER, CONNECTION)
    assert owners.offered(PEER, CONNECTION, S2, 0)


def test_a_peer_is_unreachable_when_no_server_is_left() -> None:
    owners = ConnectionOwners()
    owners.dialled(PEER, CONNECTION, "w1", {S1, S2}, 0)
    owners.offered(PEER, "dc_theirs", S1, 0)
    assert owners.unreachable(PEER, S1, 1) == []
    assert owners.unreachable("peer-2", S2, 1) == []
    assert owners.unreachable(PEER, S2, 1) == [("w1", CONNECTION)]
    assert owners.worker_for(PEER, CONNECTION, b"x", 1) is None
    assert owners.servers_of(PEER, "dc_theirs", 1) == {S1}


def test_owners_age_and_are_bounded() -> None:
    owners = ConnectionOwners()
    owners.dialled(PEER, CONNECTION, "w1", {S1}, 0)
    assert owners.worker_for(PEER, CONNECTION, b"x", CONNECTION_TTL_S) is None
    for number in range(MAX_CONNECTIONS + 10):
        owners.dialled(PEER, f"dc_{number}", "w1", {S1}, 100)
    assert len(owners) == MAX_CONNECTIONS
    assert owners.worker_for(PEER, "dc_0", b"x", 100) is None
