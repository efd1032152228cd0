from __future__ import annotations

import msgspec

from services.gateway.model.metrics import OPEN_METRICS, PLAIN, Metrics, MetricTotals, render
from services.gateway.model.status import StatusBoard
from shared.bus.messages.records import HopRecord, WorkerStatus
from shared.errors import Cause
from shared.gateway_api.structs import ManagersView, TransportStats
from shared.hops.fold import TransportCounters
from shared.transports import TransportName


def _hop(transport: str, outcome: str, cause: Cause | None = None, left: str = "", count: int = 0) -> HopRecord:
    return HopRecord("d", 1, transport, "peer-a", outcome, cause, left, cause, False, 5, 1.0, count, "t", "x", "m")


def _status(worker: str, refused: dict[str, int]) -> WorkerStatus:
    return WorkerStatus(worker, "webrtc", "ready", None, ["a"], True, False, 1, refused)


def page(totals: MetricTotals, rows: list[TransportStats], managers: ManagersView, blocked_count: int) -> str:
    text, content_type = render(Metrics(totals, rows, managers, blocked_count), "*/*")
    assert content_type == PLAIN
    return text.decode()


def test_the_text_that_prometheus_reads() -> None:
    totals = MetricTotals()
    totals.apply_hop(_hop("webrtc", "failed", Cause.CLOSED), 1)
    totals.apply_hop(_hop("webtorrent", "confirmed", Cause.CLOSED, "webrtc", 100), 2)
    totals.apply_status(_status("w1", {"too_large": 2}))
    board = StatusBoard(-100)
    managers = ManagersView(2, 7, {"busy": 3})
    board.apply(_status("w1", {}), 0)
    rows = [board.transport(TransportName.WEBRTC, True, TransportCounters(), 0)]
    lines = page(totals, rows, managers, 2).splitlines()
    for line in (
        "# TYPE swarmbridge_transport_fallbacks_total counter",
        'swarmbridge_transport_fallbacks_total{cause="closed",from="webrtc"} 1.0',
        'swarmbridge_transport_attempts_total{outcome="failed",transport="webrtc"} 1.0',
        'swarmbridge_confirmed_bytes_total{transport="webtorrent"} 100.0',
        'swarmbridge_refused_total{cause="too_large",transport="webrtc"} 2.0',
        'swarmbridge_transport_state{state="ready",transport="webrtc"} 1.0',
        'swarmbridge_transport_state{state="error",transport="webrtc"} 0.0',
        'swarmbridge_connected_peers{transport="webrtc"} 1.0',
        "# TYPE swarmbridge_blocked_peers gauge",
        "swarmbridge_blocked_peers 2.0",
        "swarmbridge_managers 2.0",
        "swarmbridge_deliveries_in_flight 7.0",
        'swarmbridge_deliveries_refused_total{cause="busy"} 3.0',
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
    assert 'swarmbridge_chaos_total{fault="drop",transport="webrtc"} 4.0' in page(totals, [], ManagersView(), 0)
    assert 'swarmbridge_chaos_total{fault="ignored",transport="webrtc"} 1.0' in page(totals, [], ManagersView(), 0)


def test_a_label_cannot_break_the_format() -> None:
    totals = MetricTotals()
    totals.apply_status(_status("w1", {'a"b\n\\': 1}))
    assert 'cause="a\\"b\\n\\\\"' in page(totals, [], ManagersView(), 0)


def test_open_metrics_lead_from_a_counter_to_the_trace_of_its_latest_hop() -> None:
    totals = MetricTotals()
    for trace_id in ("ab" * 16, "cd" * 16):
        record = msgspec.structs.replace(_hop("webtorrent", "confirmed", Cause.CLOSED, "webrtc"), trace_id=trace_id)
        totals.apply_hop(record, 2_500)
    text, content_type = render(Metrics(totals, [], ManagersView(), 0), f"{OPEN_METRICS},*/*;q=0.1")
    assert content_type == OPEN_METRICS
    lines = text.decode().splitlines()
    exemplar = f'# {{trace_id="{"cd" * 16}"}} 1.0 2.5'
    assert f'swarmbridge_transport_fallbacks_total{{cause="closed",from="webrtc"}} 2.0 {exemplar}' in lines
    outcome = 'swarmbridge_transport_attempts_total{outcome="confirmed",transport="webtorrent"} 2.0'
    assert f"{outcome} {exemplar}" in lines
    assert lines[-1] == "# EOF"


def test_bytes_each_way_never_go_back() -> None:
    totals = MetricTotals()
    for sent in (5, 9, 2):  # the last after a restart, or a switch off and on
        totals.apply_status(WorkerStatus("w1", "webrtc", "ready", None, [], True, False, 1, bytes_in=1, bytes_out=sent))
    assert 'swarmbridge_sent_bytes_total{transport="webrtc"} 11.0' in page(totals, [], ManagersView(), 0)
    assert 'swarmbridge_received_bytes_total{transport="webrtc"} 1.0' in page(totals, [], ManagersView(), 0)
