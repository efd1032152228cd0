"""The benchmark's arithmetic and its command line; what it measures is measured by running it."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ops.bench.app import MEASUREMENTS, parse
from ops.bench.bus_stage import Throughput
from ops.bench.ladder import main as ladder
from ops.bench.plan import BUS_FAULTS, EXPLICIT, FULL, NODE_FAULTS, QUICK, SILENT
from ops.bench.policies import POLICIES, PRODUCT
from ops.bench.report import Report, show
from ops.bench.rounds import Rounds
from ops.bench.samples import Measured, Sample, percentile, ratio, row, sample_of, spread
from ops.bench.start import Cost, tables, tree
from ops.bench.start import Row as StartRow
from ops.bench.store import Indexed, StoreReport, Transferred, measure_index
from ops.bench.store import show as show_store
from shared.bus.messages.envelopes import HopReceipt, Receipt
from shared.errors import Cause

HELP_LIMIT_S = 30


def hop(number: int, transport: str, outcome: str, started_ms: int, elapsed_ms: float, size: int = 0) -> HopReceipt:
    return HopReceipt(number, transport, outcome, None, started_ms, elapsed_ms, -1.0, size, False)


def receipt(*hops: HopReceipt, outcome: str = "confirmed") -> Receipt:
    return Receipt(bytes(16), outcome, None, list(hops), 0.0)


def good(elapsed_ms: float, *, on_primary: bool = False, skipped: bool = False) -> Sample:
    return Sample(elapsed_ms, confirmed=True, on_primary=on_primary, skipped=skipped)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.01) == 7
    assert percentile([], 0.5) == 0


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_percentiles_are_in_order_and_within(values: list[float]) -> None:
    found = [percentile(values, share) for share in (0.5, 0.95, 0.99)]
    assert found == sorted(found)
    assert set(found) <= set(values)
    for share, value in zip((0.5, 0.95, 0.99), found, strict=True):
        assert sum(one <= value for one in values) >= share * len(values) - 1e-9


def test_a_receipt_says_where_the_time_went() -> None:
    given = receipt(
        hop(1, "webrtc", "cancelled", 1_000, 50.0, 300),
        hop(2, "webtorrent", "confirmed", 1_031, 9.0, 700),
    )
    sample = sample_of(given, 45.0)
    assert sample == Sample(45.0, True, 31.0, 9.0, 1_000, 300, on_primary=False, skipped=False)


def test_a_skipped_first_transport_is_not_a_fallback() -> None:
    given = receipt(hop(1, "webrtc", "skipped", 900, 0.0), hop(2, "webtorrent", "confirmed", 1_000, 9.0, 700))
    sample = sample_of(given, 12.0)
    assert sample.skipped
    assert sample.left_after_ms == 0


def test_a_receipt_without_a_confirmation_is_a_failure() -> None:
    given = Receipt(bytes(16), "failed", Cause.TIMEOUT, [hop(1, "webrtc", "failed", 0, 9.0)], 0.0)
    assert not sample_of(given, 10_000.0).confirmed


def test_added_is_against_the_median_without_the_fault() -> None:
    faulty = [good(40), good(60), good(11, on_primary=True), good(12, skipped=True), Sample(9_000, confirmed=False)]
    found = row("fault", PRODUCT.name, "bus", Measured([good(9), good(10), good(30)], faulty))
    assert found.added == spread([30, 50])
    assert (found.failed, found.missed, found.skipped) == (1, 1, 1)


def test_staying_may_be_right() -> None:
    found = row("slow", PRODUCT.name, "bus", Measured([good(10)], [good(400, on_primary=True)]), may_stay=True)
    assert (found.added.p50, found.missed) == (390, 0)


def test_duplicates_are_a_share_of_all_answer_bytes() -> None:
    one = Sample(1.0, True, answer_bytes=1_000, duplicate_bytes=250)
    two = Sample(1.0, True, answer_bytes=1_000, duplicate_bytes=0)
    assert row("fault", PRODUCT.name, "bus", Measured([], [one, two])).duplicate_percent == 12.5


def test_a_ratio_needs_something_to_divide_by() -> None:
    assert ratio(10, 25) == 2.5
    assert ratio(-1, 25) is None
    assert ratio(0, 25) is None


def test_rounds_end_by_number_and_by_time_but_there_is_always_one() -> None:
    ticked: list[str] = []
    assert list(Rounds(3, 60.0, lambda: ticked.append("tick"))) == [0, 1, 2]
    assert len(ticked) == 3
    assert list(Rounds(3, 0.0)) == [0]


@pytest.mark.parametrize("plan", [FULL, QUICK])
def test_every_fault_is_planned_under_every_policy(plan: object) -> None:
    assert plan in (FULL, QUICK)
    chosen = FULL if plan is FULL else QUICK
    for fault, policy in itertools.product((*NODE_FAULTS, *BUS_FAULTS), POLICIES):
        assert chosen.rounds(fault, policy) > 0
    assert {*EXPLICIT, *SILENT} <= {*NODE_FAULTS, *BUS_FAULTS}


def test_the_report_is_shown_and_is_json() -> None:
    report = Report({"cores": "2"}, quick=True)
    report.rows = [
        row(fault, policy.name, "nodes", Measured([good(10)], [good(20)]))
        for fault in NODE_FAULTS
        for policy in POLICIES
    ]
    report.throughput = [Throughput(1, 1_000.0, None, 1.0, 2.0, 0, 50.0, None)]
    report.problems = ["killed worker: no link"]
    out = io.StringIO()
    show(report, Console(file=out, width=150))
    assert "ladder-250ms" in out.getvalue()
    assert "aim met" in out.getvalue()
    assert "not measured: killed worker" in out.getvalue()
    decoded = json.loads(report.as_json())
    assert len(decoded["rows"]) == len(NODE_FAULTS) * len(POLICIES)
    assert all(aim["met"] for aim in decoded["aims"])
    assert 3 + len(POLICIES) * (len(NODE_FAULTS) + len(BUS_FAULTS)) == MEASUREMENTS


def test_a_missed_aim_says_so() -> None:
    report = Report({}, quick=True, rows=[row("refused", PRODUCT.name, "bus", Measured([good(10)], [good(99)]))])
    assert [aim.met for aim in report.aims()] == [False]


def test_wrong_arguments_are_refused() -> None:
    assert parse(["fallback", "--quick", "--json"]).quick
    for wrong in ([], ["fallback", "--fast"], ["nothing"]):
        with pytest.raises(SystemExit, match="2"):
            parse(wrong)
    with pytest.raises(SystemExit, match="2"):
        ladder([])


def test_help_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops.bench", "fallback", "--help"],
        capture_output=True,
        text=True,
        timeout=HELP_LIMIT_S,
        check=True,
    )
    assert "--quick" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_below_a_process_is_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in tree(os.getpid())
        child.communicate(b"\n")
    assert tree(child.pid) == []


def test_starts_are_reported_side_by_side() -> None:
    out = io.StringIO()
    for table in tables(
        [StartRow("one node (up)", way, 3, Cost(1.94, 2.77, 287.1, 10)) for way in ("executed", "forked")]
    ):
        Console(file=out, width=100).print(table)
    text = out.getvalue()
    assert text.index("executed") < text.index("forked")
    assert "1.9" in text
    assert "287" in text


def test_start_has_a_command_line() -> None:
    assert parse(["start", "--quick", "--json"]).command == "start"


def test_store_has_a_command_line_and_says_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["store", "--quick", "--json"]).command == "store"
    report = StoreReport([Transferred("put", 5, 128, 123.4, 1.25)], [Indexed(40_000, 300.0, 0.003, 1.5)])
    show_store(report, as_json=False)
    shown = capsys.readouterr().out
    assert "put" in shown
    assert "123" in shown
    assert "40000" in shown
    show_store(report, as_json=True)
    assert '"cpuSPerGb":1.25' in capsys.readouterr().out


async def test_the_stores_index_is_measured_on_a_store_of_its_own() -> None:
    measured = await measure_index(50)
    assert measured.objects == 50
    assert min(measured.listing_ms, measured.room_ms, measured.among_ms) > 0
