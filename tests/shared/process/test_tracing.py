"""A tracing backend that is down costs a process nothing but its spans: whatever way it is down."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shared.process.tracing import SHUTDOWN_WAIT_S

SPANS = 20_000
"""More than twice what the queue holds."""
MARGIN_S = 1.5
"""Threads that start, on a busy machine."""

PROCESS = """
import json, logging, sys, time
logging.disable()
from shared.process.tracing import MAX_QUEUED_SPANS, Telemetry
from shared.settings.config import TelemetrySettings
from shared.telemetry import tracer
telemetry = Telemetry("test", "test-1", "node", TelemetrySettings(otlp_endpoint=sys.argv[1]))
slowest = 0.0
for _ in range(int(sys.argv[2])):
    before = time.perf_counter()
    with tracer().start_as_current_span("work"):
        pass
    slowest = max(slowest, time.perf_counter() - before)
before = time.monotonic()
telemetry.flush_to_bus()
telemetry.shutdown()
print(json.dumps({"stopped": time.monotonic() - before, "slowest": slowest}))
"""


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield port


@contextlib.contextmanager
def failing() -> Iterator[int]:
    """Answers 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(500)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("backend", [black_hole, refusing, failing])
def test_a_dead_backend_holds_nobody_up(backend: object) -> None:
    with backend() as port:  # type: ignore[operator]
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, f"http://127.0.0.1:{port}", str(SPANS)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    report = json.loads(done.stdout)
    assert report["stopped"] < SHUTDOWN_WAIT_S + MARGIN_S
    assert report["slowest"] < SHUTDOWN_WAIT_S, "a span waited for the backend"
