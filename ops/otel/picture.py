"""`python ops/otel/picture.py JAEGER_URL FILE.png`: a fallback as the real Jaeger page shows it, for the docs.

Finds through Jaeger's API a trace in which one hop failed and a later one was confirmed, over the most services, opens
it in Chromium and photographs it. Needs playwright (dependency group `interop`) and Chromium; Jaeger with its page,
as the official image has it.
"""

from __future__ import annotations

import json
import shutil
import sys
import urllib.parse
import urllib.request
from typing import Any

WIDTH, HEIGHT = 1180, 640
TIMEOUT_S = 30
SERVICE = "swarmbridge-manager"


def traces(url: str) -> list[dict[str, Any]]:
    """Those with a hop that failed."""
    query = {"service": SERVICE, "tags": json.dumps({"attempt.outcome": "failed"}), "limit": "500", "lookback": "6h"}
    with urllib.request.urlopen(f"{url}/api/traces?{urllib.parse.urlencode(query)}", timeout=TIMEOUT_S) as response:
        found: list[dict[str, Any]] = json.load(response)["data"]
    return found


def outcomes(trace: dict[str, Any]) -> list[str]:
    """Of its hops."""
    return [tag["value"] for span in trace["spans"] for tag in span["tags"] if tag["key"] == "attempt.outcome"]


def best(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The one that shows most on one screen. Raises: SystemExit where no fallback succeeded."""
    saved = [trace for trace in found if {"failed", "confirmed"} <= set(outcomes(trace))]
    if not saved:
        raise SystemExit("no trace with a failed and a confirmed hop; let a worker die while a file is on its way")
    return max(saved, key=lambda trace: (len(services(trace)), -len(trace["spans"])))


def services(trace: dict[str, Any]) -> set[str]:
    return {process["serviceName"] for process in trace["processes"].values()}


def photograph(url: str, trace_id: str, path: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(f"{url}/trace/{trace_id}")
        page.get_by_text("transport.attempt").first.wait_for(timeout=TIMEOUT_S * 1000)
        page.screenshot(path=path)
        browser.close()


def main() -> None:
    url, path = sys.argv[1].rstrip("/"), sys.argv[2]
    trace = best(traces(url))
    photograph(url, trace["traceID"], path)
    print(f"{path}: trace {trace['traceID']}, {len(trace['spans'])} spans, hops {', '.join(outcomes(trace))}")


if __name__ == "__main__":
    main()
