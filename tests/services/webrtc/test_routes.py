"""Which worker a connection's messages go to."""

from __future__ import annotations

from services.webrtc.routes import MAX_ROUTES, ROUTE_TTL_S, Routes
from shared.rtc.description import MAX_CANDIDATES

PEER, CONNECTION, S1, S2 = "peer-1", "dc_1", "http://one", "http://two"


def test_answers_to_a_dial_go_to_its_worker() -> None:
    routes = Routes()
    routes.dialled(PEER, CONNECTION, "w1", {S1}, 0)
    assert routes.worker_for(PEER, CONNECTION, b"answer", 0) == "w1"
    assert routes.worker_for("peer-2", CONNECTION, b"answer", 0) is None
    assert routes.servers_of(PEER, CONNECTION, 0) == {S1}


def test_candidates_wait_for_their_offer_to_be_taken_in_order_and_bounded() -> None:
    routes = Routes()
    assert routes.offered(PEER, CONNECTION, S1, 0)
    messages = [str(number).encode() for number in range(MAX_CANDIDATES + 3)]
    for message in messages:
        assert routes.worker_for(PEER, CONNECTION, message, 0) is None
    assert routes.taken(PEER, CONNECTION, "w1", 0) == messages[:MAX_CANDIDATES]
    assert routes.worker_for(PEER, CONNECTION, b"late", 0) == "w1"
    assert routes.taken(PEER, CONNECTION, "w1", 0) == []


def test_an_offer_through_two_servers_is_one() -> None:
    routes = Routes()
    assert routes.offered(PEER, CONNECTION, S1, 0)
    assert not routes.offered(PEER, CONNECTION, S2, 0)
    assert routes.servers_of(PEER, CONNECTION, 0) == {S1}
    routes.forget(PEER, CONNECTION)
    assert routes.offered(PEER, CONNECTION, S2, 0)


def test_a_peer_is_unreachable_when_no_server_is_left() -> None:
    routes = Routes()
    routes.dialled(PEER, CONNECTION, "w1", {S1, S2}, 0)
    routes.offered(PEER, "dc_theirs", S1, 0)
    assert routes.unreachable(PEER, S1, 1) == []
    assert routes.unreachable("peer-2", S2, 1) == []
    assert routes.unreachable(PEER, S2, 1) == [("w1", CONNECTION)]
    assert routes.worker_for(PEER, CONNECTION, b"x", 1) is None
    assert routes.servers_of(PEER, "dc_theirs", 1) == {S1}


def test_routes_age_and_are_bounded() -> None:
    routes = Routes()
    routes.dialled(PEER, CONNECTION, "w1", {S1}, 0)
    assert routes.worker_for(PEER, CONNECTION, b"x", ROUTE_TTL_S) is None
    for number in range(MAX_ROUTES + 10):
        routes.dialled(PEER, f"dc_{number}", "w1", {S1}, 100)
    assert len(routes) == MAX_ROUTES
    assert routes.worker_for(PEER, "dc_0", b"x", 100) is None
