from __future__ import annotations

from services.gateway.model.metrics import MetricTotals, render
from services.gateway.model.status import StatusBoard
from shared.attempts.fold import TransportCounters
from shared.bus.messages.records import Attempt, WorkerStatus
from shared.errors import Cause
from shared.gateway_api.structs import ManagersView
from shared.transports import TransportName


def _attempt(transport: str, outcome: str, cause: Cause | None = None, left: str = "", count: int = 0) -> Attempt:
    return Attempt("d", 1, transport, "peer-a", outcome, cause, left, cause, False, 5, 1.0, count, "t", "x", "m")


def _status(worker: str, refused: dict[str, int]) -> WorkerStatus:
    return WorkerStatus(worker, "webrtc", "ready", None, ["a"], True, False, 1, refused)


def test_the_text_that_prometheus_reads() -> None:
    totals = MetricTotals()
    totals.attempts.apply(_attempt("webrtc", "failed", Cause.CLOSED), 1)
    totals.attempts.apply(_attempt("webtorrent", "confirmed", Cause.CLOSED, "webrtc", 100), 2)
    totals.apply_status(_status("w1", {"too_large": 2}))
    board = StatusBoard(-100)
    managers = ManagersView(2, 7, {"busy": 3})
    board.apply(_status("w1", {}), 0)
    rows = [board.transport(TransportName.WEBRTC, True, TransportCounters(), 0)]
    lines = render(totals, rows, managers, 2).splitlines()
    for line in (
        "# TYPE swarmbridge_transport_fallbacks_total counter",
        'swarmbridge_transport_fallbacks_total{from="webrtc",cause="closed"} 1',
        'swarmbridge_transport_attempts_total{transport="webrtc",outcome="failed"} 1',
        'swarmbridge_confirmed_bytes_total{transport="webtorrent"} 100',
        'swarmbridge_refused_total{transport="webrtc",cause="too_large"} 2',
        'swarmbridge_transport_state{transport="webrtc",state="ready"} 1',
        'swarmbridge_transport_state{transport="webrtc",state="error"} 0',
        'swarmbridge_connected_peers{transport="webrtc"} 1',
        "# TYPE swarmbridge_blocked_peers gauge",
        "swarmbridge_blocked_peers 2",
        "swarmbridge_managers 2",
        "swarmbridge_deliveries_under_way 7",
        'swarmbridge_deliveries_refused_total{cause="busy"} 3',
    ):
        assert line in lines


def test_refusals_never_go_back() -> None:
    totals = MetricTotals()
    for counts in ({"busy": 3}, {"busy": 5}, {}, {"busy": 1}, {"busy": 1}):
        totals.apply_status(_status("w1", counts))
    totals.apply_status(_status("w2", {"busy": 10}))
    assert totals.refused["webrtc", "busy"] == 5 + 1 + 10


def test_faults_done_on_purpose_are_a_family_of_their_own() -> None:
    totals = MetricTotals()
    for count in (2, 3, 1):
        chaos = {"drop": count, "ignored": 1}
        totals.apply_status(WorkerStatus("w1", "webrtc", "ready", None, [], True, False, 1, chaos=chaos))
    assert 'swarmbridge_chaos_total{transport="webrtc",fault="drop"} 4' in render(totals, [], ManagersView(), 0)
    assert 'swarmbridge_chaos_total{transport="webrtc",fault="ignored"} 1' in render(totals, [], ManagersView(), 0)


def test_a_label_cannot_break_the_format() -> None:
    totals = MetricTotals()
    totals.apply_status(_status("w1", {'a"b\n\\': 1}))
    assert 'cause="a\\"b\\n\\\\"' in render(totals, [], ManagersView(), 0)
