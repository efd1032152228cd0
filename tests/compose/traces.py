"""What the real Jaeger holds of a transfer: who called whom, and what hangs together."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from tests.compose.jaeger import Edge, Jaeger, edges, follows_own_parent, linked_from, roots
from tests.compose.moves import LOAD_BYTES, Nodes, Part, jaeger_of
from tests.compose.project import Failed, until

SAMPLED_WITHIN_S = 40.0
"""Tail sampling waits 5 s for a trace to be whole; spans leave every 250 ms."""
TRIES = 5

MATRIX: set[Edge] = {
    ("gateway", "chunk"),
    ("chunk", "manager"),
    ("manager", "webrtc"),
    ("manager", "webtorrent"),
    ("manager", "broadcast"),
}
"""Of the node that fetches, as in the picture of the README."""
SERVING: set[Edge] = {("webrtc", "manager"), ("webtorrent", "manager"), ("manager", "chunk")}
"""Of the node that is asked, whose spans are in its own Jaeger, and in one trace with the other's by `join`."""


def trace_parts(nodes: Nodes) -> list[Part]:
    return [
        Part("edges", "parents and children as drawn, over six services", 180, lambda: _edges(nodes)),
        Part("fallback found", "a fallback by service, cause and outcome", 120, lambda: _fallback(nodes)),
        Part("hangs together", "every delivery of a file reached from the file's trace", 120, lambda: _together(nodes)),
    ]


def _edges(nodes: Nodes) -> str:
    for only in ("webrtc", "webTorrent", "broadcast"):
        nodes.b.set_transports(**{name: name == only for name in ("webrtc", "webTorrent", "broadcast")})
        if only == "broadcast":
            link, _ = nodes.file(2**20)
            transfer = nodes.b.fetch(link)  # nobody is there: the dial is what makes the edge
            time.sleep(2.0)
            nodes.b.api(f"transfers/{transfer}", "DELETE")
        else:
            nodes.moved()
    nodes.b.set_transports(webrtc=True, webTorrent=True, broadcast=True)
    fetching, serving = jaeger_of(nodes.b), jaeger_of(nodes.a)
    for jaeger, wanted in ((fetching, MATRIX), (serving, SERVING)):
        try:
            until(partial(_has, jaeger, wanted), SAMPLED_WITHIN_S, "edges")
        except Failed:
            raise Failed(f"edges missing: {_missing(jaeger, wanted)}") from None
    traces = fetching.traces("chunk") + fetching.traces("gateway")
    if follows_own_parent(traces):
        raise Failed(f"{follows_own_parent(traces)} spans follow their own parent")
    many = [roots(trace) for trace in traces if roots(trace) != 1]
    if many:
        raise Failed(f"{len(many)} of {len(traces)} traces have not one root: {many[:5]}")
    found = edges(traces + fetching.traces("manager"))
    return ", ".join(f"{parent}>{child} {count}" for (parent, child), count in sorted(found.items()))


def _missing(jaeger: Jaeger, wanted: set[Edge]) -> set[Edge]:
    traces = [t for service in ("gateway", "chunk", "manager") for t in jaeger.traces(service, limit=1000)]
    return wanted - set(edges(traces))


def _has(jaeger: Jaeger, wanted: set[Edge]) -> bool:
    return not _missing(jaeger, wanted)


def _fallback(nodes: Nodes) -> str:
    # The worker that serves A's links dies with requests on them: B's manager goes on over the next transport.
    # A fast machine has moved the file before the worker is dead: then with another one.
    for _ in range(TRIES):
        nodes.moved_while(lambda: nodes.a.crash("webrtc"), 4 * LOAD_BYTES, timeout_s=120.0)
        until(nodes.a.all_healthy, SAMPLED_WITHIN_S, "the worker back")
        if any(a["outcome"] == "failed" for a in nodes.b.api("hops?limit=200")):
            break
    jaeger = jaeger_of(nodes.b)

    def saved() -> list[dict[str, Any]]:
        found = jaeger.traces("manager", {"attempt.outcome": "failed"}, limit=1000)
        return [trace for trace in found if "confirmed" in _said(trace, "attempt.outcome")]

    found = until(saved, SAMPLED_WITHIN_S, "a trace with a failed and a confirmed hop")
    causes = sorted({cause for trace in found for cause in _said(trace, "error.type")})
    for cause in causes:
        if not jaeger.traces("manager", {"error.type": cause}):
            raise Failed(f"nothing is found by error.type={cause}")
    return (
        f"{len(found)} traces in which a later hop was confirmed, found by outcome and by each of the causes {causes}"
    )


def _said(trace: dict[str, Any], key: str) -> set[str]:
    """What the hops of a trace say for an attribute."""
    hops = [span for span in trace["spans"] if span["operationName"].startswith("transport.attempt")]
    return {tag["value"] for span in hops for tag in span["tags"] if tag["key"] == key}


def _together(nodes: Nodes) -> str:
    transfer = nodes.moved()
    jaeger, tag = jaeger_of(nodes.b), {"swarmbridge.transfer": transfer["id"]}
    chunks = int(transfer["chunksTotal"])

    def found() -> int:
        roots_found = jaeger.traces("gateway", tag)
        if len(roots_found) != 1:
            return 0
        linked = linked_from(jaeger.traces("chunk", tag), str(roots_found[0]["traceID"]))
        return linked if linked >= chunks else 0

    linked = until(found, SAMPLED_WITHIN_S, "the file's trace and its deliveries")
    return f"{linked} deliveries of {chunks} chunks and their manifest link to one trace, found by its transfer"
