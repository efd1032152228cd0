"""Start and stop OpenTelemetry in one process.

Spans go to the bus for the gateway's trace view, and over OTLP/HTTP where an endpoint is set. A dead backend
must cost nothing: with one down, `shutdown()` took 30 s (docs/telemetry.md), so it runs in a daemon thread that is
waited for briefly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from shared.process.bus_exporter import BusSpanExporter
from shared.settings.config import TelemetrySettings
from shared.version import VERSION

SHUTDOWN_WAIT_S = 1.0
"""A backend that works takes what is left in milliseconds; one that does not must leave a stop within 2 s."""

OTLP_TIMEOUT_S = 2
SCHEDULE_DELAY_MS = 250
MAX_QUEUED_SPANS = 8192


class Telemetry:
    """The process's tracer provider. `bus_exporter.run` is to be run by the process's tasks."""

    def __init__(self, service: str, instance: str, node: str, settings: TelemetrySettings) -> None:
        resource = Resource.create(
            {
                "service.name": f"swarmbridge-{service}",
                "service.namespace": "swarmbridge",
                "service.instance.id": instance,
                "service.version": VERSION,
                "swarmbridge.node": node,
            }
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.bus_exporter = BusSpanExporter(service, node)
        self._to_bus = BatchSpanProcessor(
            self.bus_exporter, max_queue_size=MAX_QUEUED_SPANS, schedule_delay_millis=SCHEDULE_DELAY_MS
        )
        self._provider.add_span_processor(self._to_bus)
        if settings.otlp_endpoint:
            self._provider.add_span_processor(_otlp_processor(settings.otlp_endpoint))
        trace.set_tracer_provider(self._provider)

    def flush_to_bus(self) -> None:
        """Hand what is batched to the bus exporter, which only queues it.

        Not to OTLP: a backend that is down would take SHUTDOWN_WAIT_S here, and as long again at the shutdown.
        """
        _bounded(lambda: self._to_bus.force_flush(int(SHUTDOWN_WAIT_S * 1000)))

    def shutdown(self) -> None:
        """Export what is left; waits at most SHUTDOWN_WAIT_S."""
        _bounded(self._provider.shutdown)


def _otlp_processor(endpoint: str) -> BatchSpanProcessor:
    # Imported here: 0.12 s and 22 MB that a process without a backend need not pay.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=OTLP_TIMEOUT_S)
    # The SDK's 5 s would leave the answered requests of a killed process as orphans.
    return BatchSpanProcessor(exporter, max_queue_size=MAX_QUEUED_SPANS, schedule_delay_millis=SCHEDULE_DELAY_MS)


def _bounded(action: Callable[[], object]) -> None:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(SHUTDOWN_WAIT_S)
