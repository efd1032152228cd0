"""What a manager learns of its peers, and when it probes."""

from __future__ import annotations

import pytest

from services.manager.routing.budget import START_ALLOWANCE_BYTES, HedgeBudget
from services.manager.routing.peers import DIAL_RETRY_S, MAX_PEERS, PROBE_INTERVAL_S, WANTED_S, PeerBook
from services.manager.routing.rank import HEDGE_MAX_S, HEDGE_MIN_S, Known
from shared.bus.messages.records import HopRecord
from shared.errors import Cause, SwarmbridgeError
from shared.ids import guest_token, member_token, peer_name
from shared.transports import ORDER, TransportName
from tests.services.manager.rig import WEBRTC, WEBTORRENT

PEER = member_token(bytes(32))
NOW_MS = 1_700_000_000_000


def confirmed(transport: str, outcome: str = "confirmed", cause: Cause | None = None) -> HopRecord:
    name = peer_name(PEER)
    return HopRecord("d", 1, transport, name, outcome, cause, "", None, False, NOW_MS, 10.0, 0, "", "", "m")


def trusted(name: str, transport: TransportName) -> bool:
    """No circuit is open."""
    return False


def test_links_are_learnt_from_what_happens() -> None:
    book = PeerBook()
    book.want(PEER, 0.0, NOW_MS)
    assert book.links(PEER)[WEBRTC].known is Known.UNKNOWN
    book.linked(PEER, WEBRTC, 0.0)
    assert book.links(PEER)[WEBRTC].known is Known.LINKED
    book.unlinked(PEER, WEBRTC)
    assert book.links(PEER)[WEBRTC].known is Known.UNLINKED
    book.linked(PEER, WEBTORRENT, 0.0)
    book.transport_gone(WEBTORRENT)
    assert book.links(PEER)[WEBTORRENT].known is Known.UNLINKED


def test_a_new_manager_knows_links_from_the_stream() -> None:
    book = PeerBook()
    book.apply(confirmed("webtorrent"), NOW_MS - 1_000)
    book.apply(confirmed("webrtc"), NOW_MS - 120_000)
    book.apply(confirmed("broadcast"), NOW_MS - 1_000)
    book.apply(confirmed("broadcast", "failed", Cause.NO_LINK), NOW_MS - 500)
    book.want(PEER, 0.0, NOW_MS)
    assert [book.links(PEER)[name].known for name in ORDER] == [Known.UNKNOWN, Known.LINKED, Known.UNKNOWN]


def test_the_hedge_delay_is_learnt_from_acks() -> None:
    book = PeerBook()
    assert book.links(PEER)[WEBRTC].ack_delay_s() == HEDGE_MAX_S
    book.accepted(PEER, WEBRTC, 0.002, True, 0.0)
    assert 0.05 < book.links(PEER)[WEBRTC].ack_delay_s() < HEDGE_MAX_S
    for _ in range(40):
        book.acked(PEER, WEBRTC, 0.002)
    assert book.links(PEER)[WEBRTC].ack_delay_s() == HEDGE_MIN_S
    book.accepted(PEER, WEBRTC, 5.0, True, 0.0)
    assert book.links(PEER)[WEBRTC].ack_delay_s() == HEDGE_MIN_S, "timed acks count for more than a reported round trip"
    for _ in range(20):
        book.acked(PEER, WEBRTC, 2.0)
    assert book.links(PEER)[WEBRTC].ack_delay_s() == HEDGE_MAX_S


def test_the_stall_delay_is_never_shorter_than_the_hedge_delay() -> None:
    book = PeerBook()
    for _ in range(40):
        book.gap(PEER, WEBRTC, 0.001)
    assert book.links(PEER)[WEBRTC].stall_delay_s() == book.links(PEER)[WEBRTC].ack_delay_s() == HEDGE_MAX_S


def test_wanted_peers_are_probed_on_every_enabled_transport() -> None:
    book = PeerBook()
    book.want(PEER, 100.0, NOW_MS)
    due = book.due_probes([WEBRTC, WEBTORRENT], 100.0, trusted)
    assert due == [(PEER, WEBRTC), (PEER, WEBTORRENT)]
    book.dialled(PEER, WEBRTC, 100.0)
    book.linked(PEER, WEBTORRENT, 101.0)
    assert book.due_probes([WEBRTC, WEBTORRENT], 100.0 + PROBE_INTERVAL_S, trusted) == [(PEER, WEBRTC)]
    assert book.due_probes([WEBRTC], 100.0 + WANTED_S, trusted) == []


def test_nobody_dials_a_guest_or_a_peer_that_no_delivery_wants() -> None:
    book = PeerBook()
    book.want(guest_token("someone"), 0.0, NOW_MS)
    book.linked(PEER, WEBRTC, 0.0)
    assert book.due_probes([WEBRTC], 50.0, trusted) == []


def test_a_failed_dial_is_reported_again_for_a_second() -> None:
    book = PeerBook()
    book.dial_failed(PEER, WEBRTC, Cause.PEER_UNKNOWN, 10.0)
    assert book.recent_dial_failure(PEER, WEBRTC, 10.0 + DIAL_RETRY_S / 2) is Cause.PEER_UNKNOWN
    assert book.recent_dial_failure(PEER, WEBRTC, 10.0 + DIAL_RETRY_S) is None


def test_a_worker_that_was_not_there_is_asked_again_at_once() -> None:
    book = PeerBook()
    book.dial_failed(PEER, WEBRTC, Cause.WORKER_LOST, 10.0)
    assert book.recent_dial_failure(PEER, WEBRTC, 10.0) is None


def test_a_token_that_is_none_is_refused() -> None:
    with pytest.raises(SwarmbridgeError):
        PeerBook().want("nonsense", 0.0, NOW_MS)


def test_the_book_is_bounded() -> None:
    book = PeerBook()
    for number in range(MAX_PEERS + 1):
        book.want(guest_token(str(number)), 0.0, NOW_MS)
    book.linked(PEER, WEBRTC, 0.0)
    assert book.links(guest_token("0"))[WEBRTC].known is Known.UNKNOWN


def test_the_budget_lets_a_few_hedges_go_and_then_five_percent() -> None:
    budget = HedgeBudget()
    started = 0
    while budget.allows():
        budget.hedge_started()
        started += 1
    assert started == START_ALLOWANCE_BYTES // 2**20
    budget.delivery_ended(started, 8 * 2**20, 4 * 2**20)
    assert not budget.allows()
    assert budget.duplicate_share == pytest.approx(0.5)
    budget.delivery_ended(0, 20 * 2**20, 0)
    assert budget.allows()
