"""What is kept of the past for views; the oldest goes first."""

from __future__ import annotations

MAX_HOPS = 5000
MAX_DIAGNOSTICS = 200
MAX_TRACES = 400
MAX_SPANS = 60_000
MAX_SPANS_A_TRACE = 6000
