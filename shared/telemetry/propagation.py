"""W3C trace context in and out of a string field: envelopes and sealed frames carry `traceparent` in the body.

NATS headers would halve the message rate (docs/nats.md), and a frame has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()
_KEY = "traceparent"


def current_traceparent() -> str:
    """The running span's context as a `traceparent`, "" where no span is running."""
    if not trace.get_current_span().get_span_context().is_valid:
        return ""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(_KEY, "")


def context_of(traceparent: str) -> context.Context:
    """A context whose parent is `traceparent`; an empty context for "" or nonsense. Never the caller's own:
    nats-py runs callbacks in the context that was current at subscribe()."""
    return _PROPAGATOR.extract({_KEY: traceparent} if traceparent else {}, context=context.Context())


def link_to(traceparent: str) -> list[trace.Link]:
    """A span link to another node's trace, for propagation `link`; empty for "" or nonsense."""
    remote = trace.get_current_span(context_of(traceparent)).get_span_context()
    return [trace.Link(remote)] if remote.is_valid else []


@contextmanager
def attached(traceparent: str) -> Iterator[None]:
    """Run the block as a child of `traceparent` (of nothing for "")."""
    token = context.attach(context_of(traceparent))
    try:
        yield
    finally:
        context.detach(token)
