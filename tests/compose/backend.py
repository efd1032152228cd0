"""A tracing backend that is away, frozen, cut off or broken costs a node nothing: measured beside one that works."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.compose.moves import Nodes, Part
from tests.compose.project import Failed, inspect, run, until

OTLP_PORT = 4318
SLOWER_MS = 1500.0
"""A delivery that waited for the exporter even once would be slower by the 2 s that it waits for an answer."""
STOP_S = 2.0
"""What the backend may add to a stop."""
GROWN_MIB = 48.0
"""A process keeps at most 2,048 spans of some kilobytes; its memory moves by a few MiB between any two looks."""
BACK_S = 60.0
FILES = 2
IMAGE = "swarmbridge-init:local"
BROKEN = """
import http.server
class Broken(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.send_response(500)
        self.end_headers()
http.server.ThreadingHTTPServer(('', 4318), Broken).serve_forever()
"""


@dataclass(frozen=True)
class Seen:
    """elapsed_ms: median of the deliveries. stopped_s: of a manager. mib: memory of manager and chunk."""

    elapsed_ms: float
    stopped_s: float
    mib: float


def backend_parts(nodes: Nodes) -> list[Part]:
    expected = "no delivery slower, nothing grows, a stop as quick"
    return [Part("dead jaeger", f"stopped, frozen, black-holed, answering 500: {expected}", 400, lambda: _dead(nodes))]


def _dead(nodes: Nodes) -> str:
    ways: dict[str, Callable[[Nodes], AbstractContextManager[None]]] = {
        "stopped": _stopped,
        "frozen": _frozen,
        "black-holed": _black_hole,
        "answering 500": _broken,
    }
    beside = _look(nodes)
    seen = {"working": beside}
    for name, way in ways.items():
        with way(nodes):
            seen[name] = _look(nodes)
    until(lambda: nodes.b.healthy("jaeger"), BACK_S, "Jaeger healthy again")
    again = _look(nodes)
    seen["working again"] = again
    # Other work of the machine comes and goes: the slower of the two looks beside is what to compare with.
    beside_ms, beside_s = max(beside.elapsed_ms, again.elapsed_ms), max(beside.stopped_s, again.stopped_s)
    seen_text = "; ".join(f"{n} {s.elapsed_ms:.0f} ms, {s.stopped_s:.1f} s, {s.mib:.0f} MiB" for n, s in seen.items())
    for name, one in seen.items():
        slower_ms, longer_s = one.elapsed_ms - beside_ms, one.stopped_s - beside_s
        if slower_ms > SLOWER_MS or longer_s > STOP_S or one.mib - beside.mib > GROWN_MIB:
            raise Failed(f"with Jaeger {name}: {seen_text}")
    return f"a delivery, a manager's stop, memory of manager and chunk: {seen_text}"


def _look(nodes: Nodes) -> Seen:
    transfers = {nodes.moved()["id"] for _ in range(FILES)}
    took = [
        float(attempt["elapsedMs"])
        for transfer in transfers
        for attempt in nodes.b.api(f"hops?limit=200&transfer={transfer}")
        if attempt["outcome"] == "confirmed"
    ]
    mib = sum(_memory_mib(nodes, service) for service in ("manager", "chunk"))
    stopped_s = _stop(nodes)
    until(lambda: nodes.b.healthy("manager"), BACK_S, "the manager healthy")
    return Seen(statistics.median(took), stopped_s, mib)


def _stop(nodes: Nodes) -> float:
    """A manager's own time from SIGTERM to its end; the engine then starts it again."""
    (manager,) = nodes.b.containers("manager")
    pid = int(inspect(manager, "{{.State.Pid}}"))
    started_s = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{pid}").exists(), BACK_S, "the manager ended")
    return time.monotonic() - started_s


def _memory_mib(nodes: Nodes, service: str) -> float:
    """Resident memory of the service's one process, without the page cache that a cgroup counts too."""
    (container,) = nodes.b.containers(service)
    with open(f"/proc/{inspect(container, '{{.State.Pid}}')}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@contextmanager
def _stopped(nodes: Nodes) -> Iterator[None]:
    nodes.b.compose("stop", "jaeger")
    try:
        yield
    finally:
        nodes.b.compose("start", "jaeger")


@contextmanager
def _frozen(nodes: Nodes) -> Iterator[None]:
    (jaeger,) = nodes.b.containers("jaeger")
    run("docker", "pause", jaeger)
    try:
        yield
    finally:
        run("docker", "unpause", jaeger)


@contextmanager
def _black_hole(nodes: Nodes) -> Iterator[None]:
    """Packets to it vanish: nobody says that they do."""
    (jaeger,) = nodes.b.containers("jaeger")
    inside = ("nsenter", "--target", inspect(jaeger, "{{.State.Pid}}"), "--net", "iptables")
    rule = ("INPUT", "-p", "tcp", "--dport", str(OTLP_PORT), "-j", "DROP")
    run(*inside, "-A", *rule)
    try:
        yield
    finally:
        run(*inside, "-D", *rule)


@contextmanager
def _broken(nodes: Nodes) -> Iterator[None]:
    """In its stead, under its name, one that answers every batch with 500."""
    nodes.b.compose("stop", "jaeger")
    name, network = f"{nodes.b.name}-broken-jaeger", f"{nodes.b.name}_bus"
    try:
        run(
            *("docker", "run", "--detach", "--rm", "--name", name, "--network", network, "--network-alias", "jaeger"),
            *(IMAGE, "python", "-c", BROKEN),
        )
        yield
    finally:
        run("docker", "rm", "--force", name, either=True)
        nodes.b.compose("start", "jaeger")
