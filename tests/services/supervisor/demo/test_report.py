"""The report is arithmetic over hops and spans."""

from __future__ import annotations

import io
import re
from typing import Any

import msgspec
from rich.console import Console

from services.supervisor.demo.report import (
    Check,
    FaultAnswer,
    FileResult,
    Report,
    answer_to,
    checks,
    ended_on,
    fallback_traces,
    hop_rows,
    throughput_mb_per_s,
)
from services.supervisor.demo.tables import report_parts
from shared.gateway_api.structs import HopView
from shared.gateway_api.traces import SpanView, waterfall
from shared.transports import TransportName


def hop(transport: str, outcome: str, started_ms: int, **fields: Any) -> HopView:
    values: dict[str, Any] = {
        "delivery": f"{transport}{started_ms}",
        "number": 1,
        "cause": None,
        "elapsed_ms": 100.0,
        "bytes": 1_000_000,
        **fields,
    }
    return HopView(transport=transport, outcome=outcome, started_ms=started_ms, **values)


def span(span_id: str, parent_id: str, start_ms: int, end_ms: int, **attributes: str) -> SpanView:
    return SpanView(
        trace_id="ab" * 16,
        span_id=span_id,
        parent_id=parent_id,
        name=f"span {span_id}",
        service="manager",
        node="a",
        start_ns=start_ms * 10**6,
        end_ns=end_ms * 10**6,
        status="unset",
        attributes=dict(attributes),
    )


def result(**fields: Any) -> FileResult:
    values: dict[str, Any] = {
        "label": "file 1",
        "bytes": 4,
        "seconds": 1.0,
        "chunks": 1,
        "by_transport": {"webrtc": 4, "webtorrent": 1, "broadcast": 2},
        "ended_on": "webrtc",
        "sha256_ok": True,
        **fields,
    }
    return FileResult(**values)


def test_hops_that_ended_alike_are_one_row() -> None:
    rows = hop_rows(
        "file 1",
        [
            hop("broadcast", "confirmed", 1, elapsed_ms=1.0),
            hop("webrtc", "failed", 2, cause="no_link", bytes=0),
            hop("webrtc", "confirmed", 3, elapsed_ms=10.0),
            hop("webrtc", "confirmed", 4, elapsed_ms=20.0),
            hop("webrtc", "confirmed", 5, elapsed_ms=90.0),
        ],
    )
    assert [(row.transport, row.outcome, row.cause, row.count, row.median_ms, row.bytes) for row in rows] == [
        ("webrtc", "confirmed", "", 3, 20.0, 3_000_000),
        ("webrtc", "failed", "no_link", 1, 100.0, 0),
        ("broadcast", "confirmed", "", 1, 1.0, 1_000_000),
    ]


def test_the_end_is_who_carried_most_of_the_last_hops() -> None:
    hops = [
        *(hop("webrtc", "confirmed", at, elapsed_ms=50.0) for at in range(20)),
        *(hop("webtorrent", "confirmed", 100 + at, elapsed_ms=100.0) for at in range(5)),
        hop("webrtc", "confirmed", 900),
        hop("broadcast", "failed", 950),
    ]
    assert ended_on(hops) == "webtorrent"
    assert ended_on(hops[:20]) == "webrtc"
    assert ended_on([]) == ""


def test_throughput_counts_only_the_time_in_which_a_transport_carried() -> None:
    first = [hop("webrtc", "confirmed", 0, elapsed_ms=400.0), hop("webrtc", "confirmed", 300, elapsed_ms=200.0)]
    second = [hop("webrtc", "confirmed", 60_000, elapsed_ms=500.0), hop("webtorrent", "failed", 0)]
    assert throughput_mb_per_s([first, second]) == {"webrtc": 3.0}  # 3 MB in 0.5 s and 0.5 s


def test_the_trace_is_one_that_a_fallback_saved() -> None:
    hops = [
        hop("webrtc", "failed", 0, trace_id="lost"),
        hop("webrtc", "failed", 0, trace_id="saved"),
        hop("webtorrent", "confirmed", 1, trace_id="saved", fallback_from="webrtc"),
        hop("webrtc", "confirmed", 0, trace_id="plain"),
    ]
    assert fallback_traces(hops) == ["saved"]
    assert fallback_traces(hops[:1]) == []


def test_checks_fail_where_the_story_did_not_hold() -> None:
    answered = FaultAnswer("killed", "webrtc", {"worker_lost": 2}, 0)
    assert all(check.ok for check in checks([result()], [answered]))
    assert Check("SHA-256 of file 1", False) in checks([result(sha256_ok=False)], [])
    assert Check("webtorrent carried confirmed chunks", False) in checks([result(by_transport={"webrtc": 4})], [])
    for silent in (FaultAnswer("killed", "webrtc", {}, 0), FaultAnswer("killed", "webrtc", {"closed": 9}, 1)):
        assert not all(check.ok for check in checks([result()], [silent]))


def test_a_file_may_end_on_any_transport() -> None:
    """On a busy machine a slow chunk is hedged: what was promised is that it arrives, and that we can say why."""
    assert all(check.ok for check in checks([result(ended_on="broadcast")], []))


def test_a_fault_is_answered_by_the_hops_that_took_over_after_it() -> None:
    hops = [
        hop("webtorrent", "confirmed", 5, fallback_from="webrtc", fallback_cause="silent"),  # before it
        hop("webtorrent", "failed", 11, fallback_from="webrtc", fallback_cause="closed"),
        hop("broadcast", "confirmed", 12, fallback_from="webtorrent", fallback_cause="closed"),
        hop("webtorrent", "confirmed", 13, fallback_from="webrtc", fallback_cause="worker_lost"),
        hop("webtorrent", "confirmed", 14, fallback_from="webrtc", fallback_cause="no_link"),
        hop("webtorrent", "confirmed", 15, fallback_from="webrtc", fallback_cause="no_link"),
    ]
    answer = answer_to("killed", TransportName.WEBRTC, 10, hops)
    assert (answer.explained, answer.unexplained, answer.ok) == ({"no_link": 2, "worker_lost": 1}, 0, True)
    unexplained = hop("broadcast", "confirmed", 16, fallback_from="webrtc", fallback_cause="other")
    assert not answer_to("killed", TransportName.WEBRTC, 10, [*hops, unexplained]).ok
    assert not answer_to("killed", TransportName.BROADCAST, 10, hops).ok


def report(**fields: Any) -> Report:
    spans = [span(str(n), "0" if n else "", n, n + 5) for n in range(40)]
    values: dict[str, Any] = {
        "ok": True,
        "reason": "",
        "seconds": 20.0,
        "start_seconds": 5.0,
        "slowdown": 1.0,
        "faults": [],
        "processes": {"manager": 2},
        "files": [result()],
        "hops": hop_rows("file 1", [hop("webrtc", "confirmed", 0)]),
        "throughput_mb_per_s": {"webrtc": 9.5},
        "trace": waterfall("", spans, fallback=True, max_rows=40),
        "checks": checks([result()], []),
        **fields,
    }
    return Report(**values)


def printed(found: Report) -> str:
    out = io.StringIO()
    console = Console(file=out, width=110, color_system=None)
    for part in report_parts(found, 110):
        console.print(part)
    return out.getvalue()


def test_the_report_reads_well_in_a_pipe() -> None:
    text = printed(report())
    assert "OK: 1 files" in text
    assert "9.5" in text
    assert "12 more spans" in text
    assert not re.search(r"[0-9a-f]{32}", text)


def test_a_busy_machine_is_said() -> None:
    assert "busy" not in printed(report())
    assert "on a busy machine (4.5 times the CPU time)" in printed(report(slowdown=4.5))


def test_a_failure_says_why_last() -> None:
    assert printed(report(ok=False, reason="webrtc was not back", hops=[], trace=None)).strip().endswith("not back")


def test_json_is_camel_case() -> None:
    document = msgspec.json.decode(msgspec.json.encode(report()))
    assert document["throughputMbPerS"] == {"webrtc": 9.5}
    assert document["files"][0]["sha256Ok"] is True
