"""Up, transfers between two projects over each transport, and scaling."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.compose.jaeger import Jaeger, instances
from tests.compose.project import Failed, Project, run, until

SIZE_BYTES = 12 * 2**20
LOAD_BYTES = 24 * 2**20
TRANSFER_S = 60.0
SCALED = ("manager", "chunk", "webrtc", "webtorrent")
CALM_LINES = 200
"""Of one container since it started, at info, with nothing wrong."""
NOISE = ("ERROR", "CRITICAL", "Traceback")
MESH_TRANSPORTS = ("webrtc", "webTorrent")
"""What two nodes on two buses can use; `broadcast` is for nodes on one bus."""


@dataclass(frozen=True)
class Part:
    """always: run whatever was asked for; the rest makes no sense without it."""

    name: str
    expected: str
    limit_s: int
    work: Callable[[], str]
    always: bool = False


@dataclass
class Nodes:
    """A holds files, B fetches them."""

    a: Project
    b: Project

    def file(self, size_bytes: int = SIZE_BYTES) -> tuple[str, str]:
        """A new file on A. Returns: its link and SHA-256."""
        content = os.urandom(size_bytes)
        return self.a.put(content), hashlib.sha256(content).hexdigest()

    def moved(self, size_bytes: int = SIZE_BYTES, timeout_s: float = TRANSFER_S) -> dict[str, Any]:
        """A new file from A to B, checked. Returns: the transfer."""
        return self.moved_while(lambda: None, size_bytes, timeout_s)

    def moved_while(
        self, fault: Callable[[], object], size_bytes: int = LOAD_BYTES, timeout_s: float = TRANSFER_S
    ) -> dict[str, Any]:
        """As `moved`; `fault` is done when the first chunk has arrived."""
        link, digest = self.file(size_bytes)
        transfer = self.b.fetch(link)
        until(lambda: self.b.api(f"transfers/{transfer}")["chunksDone"] >= 1, timeout_s, "the first chunk")
        fault()
        result = self.b.finished(transfer, timeout_s)
        if self.b.sha256(link) != digest:
            raise Failed("what arrived is not what was sent")
        return result


def jaeger_of(node: Project) -> Jaeger:
    return Jaeger(node.url("jaeger", 16686))


def move_parts(nodes: Nodes) -> list[Part]:
    return [
        Part("up", "both nodes healthy, trusting each other", 240, lambda: _up(nodes), always=True),
        Part("webrtc", "a file over WebRTC alone", 120, lambda: _over(nodes, "webrtc")),
        Part("webtorrent", "a file over the BitTorrent wire alone", 120, lambda: _over(nodes, "webTorrent")),
        Part("calm", "no error in any log, and few words", 60, lambda: _calm(nodes)),
        Part("scale up", "a file over more instances than one of each kind", 240, lambda: _scale_up(nodes)),
        Part("scale down", "a transfer in flight ends well", 240, lambda: _scale_down(nodes)),
    ]


def _up(nodes: Nodes) -> str:
    started_s = time.monotonic()
    nodes.a.up()
    first_s = time.monotonic() - started_s
    nodes.b.settings["SWARMBRIDGE_TRUST_MEMBERS"] = nodes.a.peer
    nodes.b.up()
    nodes.a.settings["SWARMBRIDGE_TRUST_MEMBERS"] = nodes.b.peer
    nodes.a.up()
    return f"A healthy after {first_s:.1f} s, pages at {nodes.a.url()} and {nodes.b.url()}"


def _over(nodes: Nodes, transport: str) -> str:
    nodes.b.set_transports(**{name: name == transport for name in MESH_TRANSPORTS})
    try:
        result = nodes.moved()
    finally:
        nodes.b.set_transports(**dict.fromkeys(MESH_TRANSPORTS, True))
    used = set(result["byTransport"])
    if used != {transport.lower()}:
        raise Failed(f"it came over {used}")
    return f"{SIZE_BYTES >> 20} MiB came over {transport.lower()}, SHA-256 right"


def _calm(nodes: Nodes) -> str:
    """What a node says at info after a start and some transfers."""
    loudest, lines = "", 0
    for container in nodes.a.compose("ps", "--quiet").split():
        said = run("docker", "logs", container, both=True).splitlines()
        wrong = [line for line in said if any(word in line for word in NOISE)]
        name = run("docker", "inspect", "--format", "{{.Name}}", container).strip()
        if wrong or len(said) > CALM_LINES:
            raise Failed(f"{name}: {len(said)} lines, of which {wrong[:3]}")
        if len(said) > lines:
            loudest, lines = name, len(said)
    return f"no error, at most {lines} lines ({loudest})"


def _scale_up(nodes: Nodes) -> str:
    for node in (nodes.a, nodes.b):
        node.up(webrtc=3, webtorrent=2, manager=2, chunk=2)
    stats = {t["id"]: t["workers"] for t in nodes.a.api("stats")["transports"]}
    if (stats["webrtc"], stats["webtorrent"]) != (3, 2):
        raise Failed(f"workers on the page: {stats}")
    names = {nodes.a.peer, nodes.b.peer}
    for _ in range(3):
        nodes.moved()
    if {nodes.a.peer, nodes.b.peer} != names:
        raise Failed("a peer id changed")
    counted = until(lambda: _counted(nodes), 60.0, "work counted by every instance")

    def at_work() -> dict[str, int]:
        traces = jaeger_of(nodes.b).traces("manager") + jaeger_of(nodes.b).traces("chunk")
        return {service: len(ids) for service, ids in instances(traces).items() if service in SCALED}

    before = dict.fromkeys(("manager", "chunk"), 2)
    until(lambda: all(at_work().get(service, 0) >= count for service, count in before.items()), 40.0, "all at work")
    return f"3 files, workers on the page {stats}, work by instance {counted}, instances with spans {at_work()}"


def _counted(nodes: Nodes) -> dict[str, list[int]] | None:
    """What each manager took and each chunk service worked on, by B; None until all of them did something."""
    nodes.moved(2**20)
    stats = nodes.b.api("stats")
    found = {"manager": stats["managers"]["taken"], "chunk": stats["chunkTransfers"]}
    if any(len(each) < 2 or not all(each.values()) for each in found.values()):
        return None
    by_worker = {t["id"]: [one["receivedBytes"] for one in t["instances"]] for t in stats["transports"]}
    return {**{name: list(each.values()) for name, each in found.items()}, **by_worker}


def _scale_down(nodes: Nodes) -> str:
    def shrink() -> None:
        nodes.a.up("--no-recreate", webrtc=1, webtorrent=1, manager=1, chunk=1)

    result = nodes.moved_while(shrink, 2 * LOAD_BYTES, 120.0)
    nodes.b.up("--no-recreate", webrtc=1, webtorrent=1, manager=1, chunk=1)
    return f"{2 * LOAD_BYTES >> 20} MiB arrived whole by {result['byTransport']}"
