"""Traces: names, set-up and propagation."""

from __future__ import annotations

from functools import lru_cache

from opentelemetry import trace

TRACER_NAME = "swarmbridge"


def tracer() -> trace.Tracer:
    """The process's tracer; a no-op one until `Telemetry` is set up (tests, the CLI)."""
    return _tracer_of(trace.get_tracer_provider())


@lru_cache(maxsize=1)
def _tracer_of(provider: trace.TracerProvider) -> trace.Tracer:
    """Kept: the SDK makes another tracer each time it is asked for one (5 % of a busy manager's time in a profile)."""
    return provider.get_tracer(TRACER_NAME)
