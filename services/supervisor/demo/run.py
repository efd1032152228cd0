"""`demo`: one NATS server, one rendezvous, two complete nodes, the story, the report; then nothing is left.

Everything lives in one temporary directory and in our own child processes. Both are gone when `demo` returns
or raises, whatever ended it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.supervisor.demo.report import (
    Report,
    checks,
    fallback_traces,
    hop_rows,
    throughput_mb_per_s,
)
from services.supervisor.demo.story import Happened, Story, StoryFailed
from services.supervisor.demo.view import View, choose_view
from services.supervisor.machine.interrupts import unbroken
from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.pair import NAMES, Pair
from services.supervisor.nursery.client import Nursery
from shared import exit_codes
from shared.gateway_api.errors import GatewayError
from shared.gateway_api.traces import SpanView, Waterfall, waterfall

TRACE_SETTLE_S = 10.0
"""Spans reach the gateway in batches, 250 ms at the node and 250 ms on the bus; twenty times that."""
MAX_TRACES = 8
POLL_INTERVAL_S = 0.2
TEMPORARY_PREFIX = "swarmbridge-demo-"


@dataclass(frozen=True)
class DemoOptions:
    """size_mib: of each of the three files. files: real ones to move as well. keep: leave homes and logs.

    nats_url: your own server, with JetStream; its accounts are not used, names keep the nodes apart.
    """

    size_mib: int
    files: Sequence[Path] = ()
    json: bool = False
    keep: bool = False
    nats_binary: str = ""
    nats_url: str = ""


async def demo(options: DemoOptions, nursery: Nursery | None = None) -> int:
    """Show it; nursery: as for `Pair`.

    Returns: the exit code. Raises: CannotStart; CancelledError after everything is cleaned up.
    """
    binary = None if options.nats_url else find_binary(options.nats_binary)
    view = choose_view(json=options.json)
    work = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
    pair = Pair(work, nursery=nursery, fork=False)
    try:
        (work / "sources").mkdir()
        report = await _play(pair, view, options, binary, work / "sources")
    finally:
        view.close()
        await unbroken(pair.clear(keep=options.keep))
    view.report(report)
    if options.keep:
        print(f"kept: {work}", file=sys.stderr)
    return exit_codes.OK if report.ok else exit_codes.FAILED


async def _play(pair: Pair, view: View, options: DemoOptions, binary: Path | None, sources: Path) -> Report:
    """Start everything, tell the story, report. Raises: CannotStart."""
    started_s = time.monotonic()
    view.say(f"starting {'nats-server, ' if binary else ''}a rendezvous and nodes A and B")
    await pair.start(binary, options.nats_url)
    start_seconds = time.monotonic() - started_s
    processes = pair.process_counts()
    view.say(f"{sum(processes.values())} processes are ready after {start_seconds:.1f} s")
    story = Story(pair.a, pair.b, view, sources, options.size_mib, list(options.files))
    reason = ""
    try:
        await story.tell()
    except StoryFailed as error:
        reason = str(error)
    except GatewayError as error:
        reason = f"a gateway answered {error.code}"
    trace = await _trace(pair, story.happened)
    happened = story.happened
    found = checks(happened.files, happened.faults)
    if not reason:
        failed = [check.name for check in found if not check.ok]
        reason = f"did not hold: {'; '.join(failed)}" if failed else ""
    return Report(
        ok=not reason,
        reason=reason,
        seconds=round(time.monotonic() - started_s, 1),
        start_seconds=round(start_seconds, 1),
        slowdown=round(happened.pace.slowdown, 1),
        processes=processes,
        files=happened.files,
        faults=happened.faults,
        hops=[
            row for file, hops in zip(happened.files, happened.hops, strict=True) for row in hop_rows(file.label, hops)
        ],
        throughput_mb_per_s=throughput_mb_per_s(happened.hops),
        trace=trace,
        checks=found,
    )


async def _trace(pair: Pair, happened: Happened) -> Waterfall | None:
    """One trace that a fallback saved, from both nodes' gateways; None where none was.

    It is shown and not judged: a queue of spans may drop some where there is no time to send them.
    """
    candidates = fallback_traces([hop for hops in happened.hops for hop in hops])
    give_up_s = time.monotonic() + TRACE_SETTLE_S
    best: tuple[str, list[SpanView]] = ("", [])
    while candidates:
        for trace_id in candidates[:MAX_TRACES]:
            try:
                spans = [span for node in (pair.a, pair.b) for span in await node.api.spans(trace_id)]
            except GatewayError:
                return _drawn(*best)
            if _is_whole(spans):
                return _drawn(trace_id, spans)
            best = max(best, (trace_id, spans), key=lambda found: len(found[1]))
        if time.monotonic() > give_up_s:
            break
        await asyncio.sleep(POLL_INTERVAL_S)
    return _drawn(*best)


def _drawn(trace_id: str, spans: list[SpanView]) -> Waterfall | None:
    """The whole trace without its ids: they lead nowhere once the demo has ended, and look like secrets."""
    if not spans:
        return None
    found = waterfall(trace_id, spans, fallback=True, max_rows=len(spans))
    rows = [msgspec.structs.replace(row, span_id="", parent_id="") for row in found.rows]
    return msgspec.structs.replace(found, trace_id="", rows=rows)


def _is_whole(spans: list[SpanView]) -> bool:
    """One root holds it all, and both nodes have sent their part."""
    known = {span.span_id for span in spans}
    roots = {span.span_id for span in spans if span.parent_id not in known}
    return len(roots) == 1 and {span.node for span in spans} >= set(NAMES)
