"""What the demo found: hops, throughput, checks and a verdict, all derived from the hops stream. Pure.

Nothing here can name content or a place: files are called by their part in the story, never by hash or link.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from shared.errors import Cause
from shared.gateway_api.structs import HopView
from shared.gateway_api.traces import Waterfall
from shared.transports import ORDER, TransportName

BYTES_A_MB = 1e6
CONFIRMED = "confirmed"
_EXPLAINING = frozenset(Cause) - {Cause.OTHER}
SLOW_FACTOR = 2.0
"""A computation that takes twice its CPU time shares its processor with somebody."""
END_HOPS = 4
END_SHARE = 4
"""The end of a file: its last quarter, at least four chunks."""


class Row(msgspec.Struct, rename="camel"):
    """The report's parts; as JSON, camelCase like the API."""


class FileResult(Row):
    """One file's way from A to B. by_transport: confirmed bytes. ended_on: who carried its end."""

    label: str
    bytes: int
    seconds: float
    chunks: int
    by_transport: dict[str, int]
    ended_on: str
    sha256_ok: bool


class HopRow(Row):
    """Hops of one file over one transport that ended alike. median_ms: of their durations."""

    file: str
    transport: str
    outcome: str
    cause: str
    count: int
    median_ms: float
    bytes: int


class FaultAnswer(Row):
    """What became of a fault: deliveries that another transport took over and confirmed, by the reason given for it."""

    fault: str
    transport: str
    explained: dict[str, int]
    unexplained: int

    @property
    def ok(self) -> bool:
        return bool(self.explained) and not self.unexplained


class Check(Row):
    name: str
    ok: bool


class Report(Row):
    """The whole story. processes: service -> count. reason: why not ok, empty otherwise.

    slowdown: how many times its CPU time a computation took on this machine meanwhile; 1 where it is idle.
    """

    ok: bool
    reason: str
    seconds: float
    start_seconds: float
    slowdown: float
    processes: dict[str, int]
    files: list[FileResult]
    faults: list[FaultAnswer]
    hops: list[HopRow]
    throughput_mb_per_s: dict[str, float]
    trace: Waterfall | None
    checks: list[Check]


def hop_rows(label: str, hops: Iterable[HopView]) -> list[HopRow]:
    """Hops of one file, those that ended alike together, in the transports' order, most frequent first."""
    groups: dict[tuple[str, str, str], list[HopView]] = defaultdict(list)
    for hop in hops:
        groups[hop.transport, hop.outcome, hop.cause or ""].append(hop)
    rows = [
        HopRow(
            label,
            transport,
            outcome,
            cause,
            len(group),
            round(statistics.median(one.elapsed_ms for one in group), 1),
            sum(one.bytes for one in group),
        )
        for (transport, outcome, cause), group in groups.items()
    ]
    order = {name: number for number, name in enumerate(ORDER)}
    return sorted(rows, key=lambda row: (order.get(row.transport, len(order)), -row.count, row.outcome, row.cause))  # type: ignore[call-overload]


def ended_on(hops: Iterable[HopView]) -> str:
    """The transport that carried the end of a file: most bytes of its last confirmed hops; "" where none was.

    Not the very last hop alone: a hedge may carry a single chunk over another transport at any time.
    """
    confirmed = [hop for hop in hops if hop.outcome == CONFIRMED]
    confirmed.sort(key=lambda hop: hop.started_ms + hop.elapsed_ms)
    carried: dict[str, int] = defaultdict(int)
    for hop in confirmed[-max(END_HOPS, len(confirmed) // END_SHARE) :]:
        carried[hop.transport] += hop.bytes
    return max(carried, key=lambda name: carried[name], default="")


def throughput_mb_per_s(files: Iterable[Sequence[HopView]]) -> dict[str, float]:
    """Confirmed megabytes a second by transport, over the time in which a confirmed hop of it was in flight."""
    moved: dict[str, int] = defaultdict(int)
    spans_ms: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for hop in (hop for hops in files for hop in hops if hop.outcome == CONFIRMED):
        moved[hop.transport] += hop.bytes
        spans_ms[hop.transport].append((hop.started_ms, hop.started_ms + hop.elapsed_ms))
    return {
        str(name): round(moved[name] / BYTES_A_MB / (_covered(spans_ms[name]) / 1000), 1)
        for name in ORDER
        if _covered(spans_ms[name]) > 0
    }


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of these intervals."""
    total = 0.0
    end = float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def answer_to(fault: str, transport: TransportName, since_ms: int, hops: Iterable[HopView]) -> FaultAnswer:
    """How a fault that struck a transport at `since_ms` (wall clock) was answered.

    A hop that was on its way when the fault struck ends with it: what counts is the hop that took over, which
    began afterwards, was confirmed, and names the transport that was left and why. `other` explains nothing.
    """
    causes = Counter(
        one.fallback_cause or ""
        for one in hops
        if one.fallback_from == transport and one.outcome == CONFIRMED and one.started_ms >= since_ms
    )
    explained = {cause: count for cause, count in causes.most_common() if cause in _EXPLAINING}
    return FaultAnswer(fault, transport, explained, causes.total() - sum(explained.values()))


def checks(files: Sequence[FileResult], faults: Sequence[FaultAnswer]) -> list[Check]:
    """What must hold of the files that were moved, and of the faults that struck meanwhile.

    Not on which transport a given file ends: on a busy machine a slow chunk may go over another one at any time.
    """
    found = [Check(f"SHA-256 of {file.label}", file.sha256_ok) for file in files]
    found += [Check(_answer_in_words(fault), fault.ok) for fault in faults]
    carried = {name for file in files for name, count in file.by_transport.items() if count > 0}
    found += [Check(f"{name} carried confirmed chunks", name in carried) for name in ORDER]
    return found


def _answer_in_words(fault: FaultAnswer) -> str:
    causes = {**fault.explained, **({"unexplained": fault.unexplained} if fault.unexplained else {})}
    causes_text = ", ".join(f"{cause} {count}" for cause, count in causes.items()) or "none"
    return f"{fault.transport} lost: fallbacks took over and say why ({causes_text})"


def fallback_traces(hops: Iterable[HopView]) -> list[str]:
    """The trace ids of deliveries that a fallback saved, those with most hops first."""
    counts: dict[str, int] = defaultdict(int)
    saved: set[str] = set()
    for hop in hops:
        counts[hop.trace_id] += 1
        if hop.fallback_from and hop.outcome == CONFIRMED:
            saved.add(hop.trace_id)
    saved.discard("")
    return sorted(saved, key=lambda trace: (counts[trace], trace), reverse=True)
