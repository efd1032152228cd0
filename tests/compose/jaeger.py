"""What the real Jaeger says through its own API: services, traces by tag, and who called whom."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections import Counter
from typing import Any

TIMEOUT_S = 10.0
PREFIX = "swarmbridge-"

Edge = tuple[str, str]
"""(service of the parent span, service of its child), without our prefix."""


class Jaeger:
    """One Jaeger's query API."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **query: str) -> Any:
        address = f"{self._url}/api/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
            return json.load(response)["data"]

    def services(self) -> set[str]:
        return {name.removeprefix(PREFIX) for name in self.get("services") or ()}

    def traces(self, service: str, tags: dict[str, str] | None = None, limit: int = 200) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(
            "traces", service=PREFIX + service, tags=json.dumps(tags or {}), limit=str(limit), lookback="1h"
        )
        return found or []


def edges(traces: list[dict[str, Any]]) -> Counter[Edge]:
    """Parent-child edges between different services: the matrix, as counts of spans."""
    found: Counter[Edge] = Counter()
    for trace in traces:
        service = {key: process["serviceName"].removeprefix(PREFIX) for key, process in trace["processes"].items()}
        of_span = {span["spanID"]: service[span["processID"]] for span in trace["spans"]}
        for span in trace["spans"]:
            for reference in span["references"]:
                parent = of_span.get(reference["spanID"])
                here = service[span["processID"]]
                if reference["refType"] == "CHILD_OF" and parent is not None and parent != here:
                    found[parent, here] += 1
    return found


def follows_own_parent(traces: list[dict[str, Any]]) -> int:
    """Spans whose reference within their own trace is no CHILD_OF: each would look like a root."""
    return sum(
        reference["refType"] != "CHILD_OF" and reference["traceID"] == trace["traceID"]
        for trace in traces
        for span in trace["spans"]
        for reference in span["references"]
    )


def roots(trace: dict[str, Any]) -> int:
    """Spans without a parent in the same trace."""
    ids = {span["spanID"] for span in trace["spans"]}
    return sum(
        not any(r["traceID"] == trace["traceID"] and r["spanID"] in ids for r in span["references"])
        for span in trace["spans"]
    )


def linked_from(traces: list[dict[str, Any]], trace_id: str) -> int:
    """Traces with a reference to that one."""
    return sum(any(r["traceID"] == trace_id for span in trace["spans"] for r in span["references"]) for trace in traces)


def instances(traces: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Which instances of each service did something."""
    found: dict[str, set[str]] = {}
    for trace in traces:
        for process in trace["processes"].values():
            name = process["serviceName"].removeprefix(PREFIX)
            found.setdefault(name, set()).update(
                tag["value"] for tag in process["tags"] if tag["key"] == "service.instance.id"
            )
    return found
