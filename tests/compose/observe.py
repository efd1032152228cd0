"""The overlay with Prometheus and Grafana, by the real Prometheus: it scrapes, rules load, every query answers.

Grafana itself runs where its image can be had.
"""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.compose.moves import Nodes, Part
from tests.compose.project import ROOT, Failed, Project, run, until

OVERLAY = "ops/compose/observe.yaml"
DASHBOARD = ROOT / "ops/compose/observe/grafana/dashboards/swarmbridge.json"
ALERTS = ROOT / "ops/compose/observe/alerts.yaml"
STAND_INS = Path(__file__).parent / "machine" / "stand_ins.sh"
GRAFANA = "grafana/grafana:12.2.1"
SCRAPED_S = 40.0
NAME = re.compile(r"\bswarmbridge_[a-z_]+")


def observe_parts(nodes: Nodes) -> list[Part]:
    return [Part("prometheus", "scrapes, its rules load, every panel has its series", 300, lambda: _observe(nodes))]


def _observe(nodes: Nodes) -> str:
    run(str(STAND_INS), "prometheus", timeout_s=300.0)
    node = nodes.a
    before = node.overlays
    node.overlays = (*before, OVERLAY)
    has_grafana = bool(run("docker", "image", "ls", "--quiet", GRAFANA).strip())
    services = ["prometheus", "gateway", *(["grafana"] if has_grafana else [])]
    try:
        node.compose("up", "--detach", "--wait", "--wait-timeout", "120", *services)
        nodes.moved()
        said = _looked(node)
    except Failed as error:
        raise Failed(f"{error}; Prometheus: {node.compose('logs', '--tail', '20', 'prometheus')}") from None
    finally:
        node.overlays = before
        node.up("--remove-orphans")
    return f"{said}; Grafana {'healthy' if has_grafana else 'not run: its image is not here'}"


def _looked(node: Project) -> str:
    url = node.url("prometheus", 9090)

    def asked(path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as response:
            return json.load(response)["data"]

    until(lambda: [t for t in asked("targets")["activeTargets"] if t["health"] == "up"], SCRAPED_S, "a scrape")
    rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
    if not rules or any(rule["health"] == "err" for rule in rules):
        raise Failed(f"rules: {[(rule['name'], rule['health'], rule.get('lastError')) for rule in rules]}")
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    for query in queries:
        asked("query", query=query)  # an error is an HTTP error
    # By what the scrape says there is: a counter of something that never happened has no series.
    wanted = {_family(name) for name in NAME.findall(" ".join(queries) + ALERTS.read_text())}
    until(lambda: wanted <= {_family(name) for name in asked("metadata")}, SCRAPED_S, f"metrics {sorted(wanted)}")
    moved = until(lambda: asked("query", query="sum(swarmbridge_sent_bytes_total) > 0"), SCRAPED_S, "bytes counted")
    return f"{len(rules)} rules, {len(queries)} queries over {len(wanted)} metrics, {moved[0]['value'][1]} bytes sent"


def _family(name: str) -> str:
    return name.removesuffix("_total")
