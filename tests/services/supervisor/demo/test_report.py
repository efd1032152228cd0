"""The report is arithmetic over attempts and spans."""

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
    waterfall,
)
from services.supervisor.demo.tables import report_parts
from services.supervisor.machine.gateway_client import AttemptView, SpanView
from shared.telemetry import names
from shared.transports import TransportName


def attempt(transport: str, outcome: str, started_ms: int, **fields: Any) -> AttemptView:
    values: dict[str, Any] = {
        "delivery": f"{transport}{started_ms}",
        "number": 1,
        "cause": None,
        "elapsed_ms": 100.0,
        "bytes": 1_000_000,
        **fields,
    }
    return AttemptView(transport=transport, outcome=outcome, started_ms=started_ms, **values)


def span(span_id: str, parent_id: str, start_ms: int, end_ms: int, **attributes: str) -> SpanView:
    return SpanView(
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
            attempt("broadcast", "confirmed", 1, elapsed_ms=1.0),
            attempt("webrtc", "failed", 2, cause="no_link", bytes=0),
            attempt("webrtc", "confirmed", 3, elapsed_ms=10.0),
            attempt("webrtc", "confirmed", 4, elapsed_ms=20.0),
            attempt("webrtc", "confirmed", 5, elapsed_ms=90.0),
        ],
    )
    assert [(row.transport, row.outcome, row.cause, row.count, row.median_ms, row.bytes) for row in rows] == [
        ("webrtc", "confirmed", "", 3, 20.0, 3_000_000),
        ("webrtc", "failed", "no_link", 1, 100.0, 0),
        ("broadcast", "confirmed", "", 1, 1.0, 1_000_000),
    ]


def test_the_end_is_who_carried_most_of_the_last_hops() -> None:
    hops = [
        *(attempt("webrtc", "confirmed", at, elapsed_ms=50.0) for at in range(20)),
        *(attempt("webtorrent", "confirmed", 100 + at, elapsed_ms=100.0) for at in range(5)),
        attempt("webrtc", "confirmed", 900),
        attempt("broadcast", "failed", 950),
    ]
    assert ended_on(hops) == "webtorrent"
    assert ended_on(hops[:20]) == "webrtc"
    assert ended_on([]) == ""


def test_throughput_counts_only_the_time_in_which_a_transport_carried() -> None:
    first = [attempt("webrtc", "confirmed", 0, elapsed_ms=400.0), attempt("webrtc", "confirmed", 300, elapsed_ms=200.0)]
    second = [attempt("webrtc", "confirmed", 60_000, elapsed_ms=500.0), attempt("webtorrent", "failed", 0)]
    assert throughput_mb_per_s([first, second]) == {"webrtc": 3.0}  # 3 MB in 0.5 s and 0.5 s


def test_the_trace_is_one_that_a_fallback_saved() -> None:
    hops = [
        attempt("webrtc", "failed", 0, trace_id="lost"),
        attempt("webrtc", "failed", 0, trace_id="saved"),
        attempt("webtorrent", "confirmed", 1, trace_id="saved", fallback_from="webrtc"),
        attempt("webrtc", "confirmed", 0, trace_id="plain"),
    ]
    assert fallback_traces(hops) == ["saved"]
    assert fallback_traces(hops[:1]) == []


def test_the_waterfall_is_a_tree_in_order_of_time() -> None:
    rows = waterfall(
        [
            span("late", "root", 50, 90, **{names.ATTEMPT_OUTCOME: "confirmed"}),
            span("early", "root", 10, 40, **{names.ERROR_TYPE: "no_link", names.ATTEMPT_OUTCOME: "failed"}),
            span("root", "", 0, 100),
            span("below", "early", 20, 30),
            span("below", "early", 20, 30),
        ]
    )
    assert [(row.name, row.depth, row.start_ms, row.duration_ms) for row in rows] == [
        ("span root", 0, 0.0, 100.0),
        ("span early", 1, 10.0, 30.0),
        ("span below", 2, 20.0, 10.0),
        ("span late", 1, 50.0, 40.0),
    ]
    assert rows[1].cause == "no_link"
    assert waterfall([]) == []


def test_a_span_whose_parent_is_unknown_is_a_root() -> None:
    assert [row.depth for row in waterfall([span("a", "elsewhere", 0, 1)])] == [0]


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
        attempt("webtorrent", "confirmed", 5, fallback_from="webrtc", fallback_cause="silent"),  # before it
        attempt("webtorrent", "failed", 11, fallback_from="webrtc", fallback_cause="closed"),
        attempt("broadcast", "confirmed", 12, fallback_from="webtorrent", fallback_cause="closed"),
        attempt("webtorrent", "confirmed", 13, fallback_from="webrtc", fallback_cause="worker_lost"),
        attempt("webtorrent", "confirmed", 14, fallback_from="webrtc", fallback_cause="no_link"),
        attempt("webtorrent", "confirmed", 15, fallback_from="webrtc", fallback_cause="no_link"),
    ]
    answer = answer_to("killed", TransportName.WEBRTC, 10, hops)
    assert (answer.explained, answer.unexplained, answer.ok) == ({"no_link": 2, "worker_lost": 1}, 0, True)
    unexplained = attempt("broadcast", "confirmed", 16, fallback_from="webrtc", fallback_cause="other")
    assert not answer_to("killed", TransportName.WEBRTC, 10, [*hops, unexplained]).ok
    assert not answer_to("killed", TransportName.BROADCAST, 10, hops).ok


def report(**fields: Any) -> Report:
    values: dict[str, Any] = {
        "ok": True,
        "reason": "",
        "seconds": 20.0,
        "start_seconds": 5.0,
        "slowdown": 1.0,
        "faults": [],
        "processes": {"manager": 2},
        "files": [result()],
        "hops": hop_rows("file 1", [attempt("webrtc", "confirmed", 0)]),
        "throughput_mb_per_s": {"webrtc": 9.5},
        "trace": waterfall([span(str(n), "0" if n else "", n, n + 5) for n in range(40)]),
        "checks": checks([result()], []),
        **fields,
    }
    return Report(**values)


def printed(found: Report) -> str:
    out = io.StringIO()
    console = Console(file=out, width=110, color_system=None)
    for part in report_parts(found):
        console.print(part)
    return out.getvalue()


def test_the_report_reads_well_in_a_pipe() -> None:
    text = printed(report())
    assert "OK: 1 files" in text
    assert "9.5" in text
    assert "and 12 more spans" in text
    assert not re.search(r"[0-9a-f]{32}", text)


def test_a_busy_machine_is_said() -> None:
    assert "busy" not in printed(report())
    assert "on a busy machine (4.5 times the CPU time)" in printed(report(slowdown=4.5))


def test_a_failure_says_why_last() -> None:
    assert printed(report(ok=False, reason="webrtc was not back", hops=[], trace=[])).strip().endswith("not back")


def test_json_is_camel_case() -> None:
    document = msgspec.json.decode(msgspec.json.encode(report()))
    assert document["throughputMbPerS"] == {"webrtc": 9.5}
    assert document["files"][0]["sha256Ok"] is True
