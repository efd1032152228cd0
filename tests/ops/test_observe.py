"""Dashboard and alert rules ask for metrics that the gateway has: a name that nobody sends draws an empty picture."""

from __future__ import annotations

import re

from shared.telemetry import names
from tests.architecture.imports import ROOT

OBSERVE = ROOT / "ops" / "compose" / "observe"


def test_every_metric_that_is_asked_for_exists() -> None:
    sent = {value for name, value in vars(names).items() if name.startswith("METRIC_")}
    asked = {
        (path.name, metric)
        for path in OBSERVE.rglob("*")
        if path.suffix in (".json", ".yml", ".yaml")
        for metric in re.findall(r"\bswarmbridge_[a-z_]+", path.read_text())
    }
    assert asked
    assert not [(file, metric) for file, metric in asked if metric not in sent]
