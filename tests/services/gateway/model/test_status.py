from __future__ import annotations

from typing import Any

import pytest

from services.gateway.model.status import WORKER_EXPIRY_S, StatusBoard, stats_of
from shared.bus.messages.records import MeetingPlace, WorkerStatus
from shared.errors import Cause
from shared.gateway_api.structs import ManagersView
from shared.hops.fold import TransportCounters
from shared.transports import TransportName

WEBRTC = TransportName.WEBRTC
NONE = TransportCounters()


def _status(worker: str = "w1", state: str = "ready", **changes: Any) -> WorkerStatus:
    values: dict[str, Any] = {
        "transport": "webrtc",
        "last_error": None,
        "peers": [],
        "enabled": True,
        "draining": False,
        "at_ms": 1,
    }
    return WorkerStatus(worker=worker, state=state, **{**values, **changes})


def _board(*statuses: WorkerStatus) -> StatusBoard:
    board = StatusBoard(started_s=-100)
    for status in statuses:
        board.apply(status, 0)
    return board


def test_no_worker_is_an_error_once_we_have_listened_for_long_enough() -> None:
    fresh = StatusBoard(started_s=0).transport(WEBRTC, True, NONE, 1)
    assert (fresh.state, fresh.last_error) == ("initializing", None)
    row = _board().transport(WEBRTC, True, NONE, 0)
    assert (row.state, row.last_error, row.workers) == ("error", "worker_lost", 0)


def test_while_the_bus_is_away_no_worker_is_missed() -> None:
    board = StatusBoard(0.0)
    counters = TransportCounters()
    board.hears(connected=False, now=10.0)
    row = board.transport(TransportName.WEBRTC, True, counters, 10.0)
    assert (row.state, row.last_error) == ("error", "bus_unavailable")
    board.hears(connected=True, now=20.0)
    row = board.transport(TransportName.WEBRTC, True, counters, 20.0 + WORKER_EXPIRY_S - 0.1)
    assert (row.state, row.last_error) == ("initializing", None)
    board.hears(connected=True, now=20.0 + WORKER_EXPIRY_S)
    row = board.transport(TransportName.WEBRTC, True, counters, 20.0 + WORKER_EXPIRY_S)
    assert (row.state, row.last_error) == ("error", "worker_lost")


def test_a_silent_worker_is_lost() -> None:
    board = _board(_status(peers=["a"]))
    assert board.transport(WEBRTC, True, NONE, WORKER_EXPIRY_S).connected_peers == 1
    row = board.transport(WEBRTC, True, NONE, WORKER_EXPIRY_S + 0.1)
    assert (row.state, row.last_error, row.connected_peers) == ("error", "worker_lost", 0)


def test_switched_off_is_idle_and_zero() -> None:
    counted = TransportCounters(fallback_count=3, last_fallback_ms=5, last_error="closed")
    row = _board(_status(state="active", peers=["a"], last_error=Cause.CLOSED)).transport(WEBRTC, False, counted, 0)
    assert (row.state, row.enabled, row.fallback_count, row.last_fallback_at) == ("idle", False, 0, None)
    assert (row.last_error, row.connected_peers, row.fallback_causes) == (None, 0, {})


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["ready", "active"], "active"),
        (["ready", "initializing", "idle"], "ready"),
        (["active", "degraded"], "degraded"),
        (["error", "active"], "degraded"),
        (["error", "error"], "error"),
        (["idle", "initializing"], "initializing"),
    ],
)
def test_one_degraded_worker_makes_the_transport_degraded(states: list[str], expected: str) -> None:
    board = _board(*(_status(f"w{index}", state) for index, state in enumerate(states)))
    assert board.transport(WEBRTC, True, NONE, 0).state == expected


def test_the_reason_is_the_degraded_workers() -> None:
    row = _board(
        _status("w1", "active", last_error=Cause.CLOSED, at_ms=9),
        _status("w2", "degraded", last_error=Cause.IMPORT_FAILED, at_ms=1),
    ).transport(WEBRTC, True, NONE, 0)
    assert (row.state, row.last_error) == ("degraded", "import_failed")


def test_a_draining_worker_speaks_only_when_alone() -> None:
    leaving = _status("w1", "degraded", draining=True)
    assert _board(leaving, _status("w2", "active")).transport(WEBRTC, True, NONE, 0).state == "active"
    row = _board(leaving).transport(WEBRTC, True, NONE, 0)
    assert (row.state, row.draining) == ("degraded", 1)


def test_peers_and_refusals_over_workers() -> None:
    board = _board(
        _status("w1", peers=["a", "b"], refused={"busy": 2}),
        _status("w2", peers=["b"], refused={"busy": 1, "too_large": 1}),
        _status("w3", transport="broadcast", peers=["b"]),
    )
    row = board.transport(WEBRTC, True, NONE, 0)
    assert (row.connected_peers, row.workers, row.refused) == (2, 2, {"busy": 3, "too_large": 1})
    assert board.peers(0) == {"a": ["webrtc"], "b": ["webrtc", "broadcast"]}


def test_the_last_failed_hop_is_the_last_error_when_no_worker_has_one() -> None:
    counted = TransportCounters(last_error="timeout")
    assert _board(_status()).transport(WEBRTC, True, counted, 0).last_error == "timeout"


def test_only_a_change_of_meaning_is_news() -> None:
    board = _board()
    assert board.apply(_status(at_ms=1), 0)
    assert not board.apply(_status(at_ms=2, bytes_in=5), 1)
    assert board.apply(_status(state="active"), 2)


def test_the_sums_agree_with_the_rows() -> None:
    board = _board(_status(), _status("w2", transport="webtorrent"))
    stats = stats_of(
        [
            board.transport(WEBRTC, True, TransportCounters(fallback_count=2, last_fallback_ms=7), 0),
            board.transport(TransportName.WEBTORRENT, True, TransportCounters(fallback_count=1, last_fallback_ms=9), 0),
        ],
        ManagersView(),
        {"chunk-1": 4, "chunk-2": 3},
    )
    assert (stats.transport_fallbacks, stats.last_transport_fallback_at) == (3, 9)
    assert stats.chunk_transfers == {"chunk-1": 4, "chunk-2": 3}


def test_bytes_count_what_lost_workers_moved_and_begin_again_when_switched_off() -> None:
    board = _board(_status("w1", bytes_in=10, bytes_out=100), _status("w2", bytes_out=5), _status("w1", bytes_out=150))
    row = board.transport(WEBRTC, True, NONE, WORKER_EXPIRY_S + 1)
    assert (row.workers, row.received_bytes, row.sent_bytes) == (0, 10, 155)
    board.apply(_status("w1", bytes_in=3, bytes_out=7), WORKER_EXPIRY_S + 1)  # started again, counting from nothing
    row = board.transport(WEBRTC, True, NONE, WORKER_EXPIRY_S + 1)
    assert (row.received_bytes, row.sent_bytes) == (13, 162)
    board.apply(_status("w1", enabled=False), WORKER_EXPIRY_S + 1)
    row = board.transport(WEBRTC, True, NONE, WORKER_EXPIRY_S + 1)
    assert (row.received_bytes, row.sent_bytes) == (0, 0)


def test_a_last_error_has_its_time_and_goes_when_the_worker_has_recovered() -> None:
    board = _board(_status(last_error=Cause.DIAL_TIMEOUT, last_error_ms=77))
    row = board.transport(WEBRTC, True, NONE, 0)
    assert (row.last_error, row.last_error_at) == ("dial_timeout", 77)
    board.apply(_status(), 0)
    row = board.transport(WEBRTC, True, NONE, 0)
    assert (row.last_error, row.last_error_at) == (None, None)


def test_each_worker_and_each_member_of_the_document_has_its_own_state() -> None:
    places = [
        MeetingPlace("peer_servers", 0, "open", None, 5),
        MeetingPlace("peer_servers", 1, "waiting", Cause.CLOSED, 6, 9),
    ]
    board = _board(_status("w2", peers=["a"], bytes_out=8), _status("w1", "degraded", places=places))
    row = board.transport(WEBRTC, True, NONE, 0)
    assert [(one.id, one.state, one.peers, one.sent_bytes) for one in row.instances] == [
        ("w1", "degraded", 0, 0),
        ("w2", "ready", 1, 8),
    ]
    assert [(one.worker, one.index, one.state, one.cause, one.retry_at) for one in row.places] == [
        ("w1", 0, "open", None, None),
        ("w1", 1, "waiting", "closed", 9),
    ]
