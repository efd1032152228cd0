"""Traces: names, set-up and propagation."""

from __future__ import annotations

from opentelemetry import trace

TRACER_NAME = "swarmbridge"


def tracer() -> trace.Tracer:
    """The process's tracer; a no-op one until `Telemetry` is set up (tests, the CLI)."""
    return trace.get_tracer(TRACER_NAME)
