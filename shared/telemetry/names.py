"""Every span, attribute, metric and diagnostic name. Low cardinality, and nothing that tells content or place:
no hash, ref, infohash, candidate, SDP, address or token is ever a value of these (docs/trust.md).

Messaging names follow OpenTelemetry's semantic conventions 1.44.
"""

from __future__ import annotations

SPAN_GATEWAY_TRANSFER = "gateway.transfer"
SPAN_CHUNK_TRANSFER = "chunk.transfer"
SPAN_CHUNK_FETCH = "chunk.fetch"
SPAN_CHUNK_PUT = "chunk.put"
SPAN_CHUNK_SERVE = "chunk.serve"
SPAN_CHUNK_VERIFY = "chunk.verify"
SPAN_TRANSPORT_HOP = "transport.attempt"
"""A hop. Spans, their attributes and the metric say *attempt*, which whoever reads them elsewhere knows."""
SPAN_TRANSPORT_DIAL = "transport.dial"
SPAN_LINK_REQUEST = "link.request"
SPAN_LINK_SERVE = "link.serve"

HOP_NUMBER = "attempt.number"
HOP_OUTCOME = "attempt.outcome"
HOP_HEDGED = "attempt.hedged"
FALLBACK_REASON = "fallback.reason"
FALLBACK_FROM = "fallback.from"
ERROR_TYPE = "error.type"
TRANSPORT = "swarmbridge.transport"
PEER_NAME = "swarmbridge.peer"
TRANSFER = "swarmbridge.transfer"
REQUEST_KIND = "swarmbridge.request"
BODY_BYTES = "swarmbridge.body_bytes"
FOUND = "swarmbridge.found"
CHAOS_INJECTED = "chaos.injected"
CHAOS_DELAY_MS = "chaos.delay_ms"

MESSAGING_SYSTEM = "messaging.system"
MESSAGING_OPERATION = "messaging.operation.name"
MESSAGING_TEMPLATE = "messaging.destination.template"

DIAGNOSTIC_FALLBACK = "transport-fallback"
DIAGNOSTIC_STORAGE_LOST = "storage-lost"

METRIC_FALLBACKS = "swarmbridge_transport_fallbacks_total"
METRIC_HOPS = "swarmbridge_transport_attempts_total"
METRIC_CONFIRMED_BYTES = "swarmbridge_confirmed_bytes_total"
METRIC_RECEIVED_BYTES = "swarmbridge_received_bytes_total"
METRIC_SENT_BYTES = "swarmbridge_sent_bytes_total"
METRIC_STATE = "swarmbridge_transport_state"
METRIC_PEERS = "swarmbridge_connected_peers"
METRIC_BLOCKED_PEERS = "swarmbridge_blocked_peers"
METRIC_MANAGERS = "swarmbridge_managers"
METRIC_DELIVERIES = "swarmbridge_deliveries_in_flight"
METRIC_DELIVERIES_REFUSED = "swarmbridge_deliveries_refused_total"
METRIC_REFUSED = "swarmbridge_refused_total"
METRIC_MEASURE = "swarmbridge_transport_measure"
METRIC_CHAOS = "swarmbridge_chaos_total"
METRIC_HTTP_REFUSED = "swarmbridge_http_connections_refused_total"

_TRACED_WORDS = frozenset({"route", "link", "inbound", "dial"})
_TRACED_CHUNK_CALLS = frozenset({"message", "put", "fetch"})


def template(subject: str) -> str | None:
    """The low-cardinality name of a bus subject whose messages are worth a span, None for the others.

    Bodies, pings, replies and events are untraced: they are many, and the span around them tells their time.
    """
    parts = subject.split(".")
    if len(parts) < 4 or parts[0] != "sb":
        return None
    kind = parts[2]
    if kind == "link":
        return f"sb.{{node}}.link.{parts[3]}.{{peer}}"
    if kind in _TRACED_WORDS or (kind == "chunk" and parts[3] in _TRACED_CHUNK_CALLS):
        return f"sb.{{node}}.{kind}.{parts[3]}"
    return None
