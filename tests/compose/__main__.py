"""`make test-compose`: two nodes under docker compose, moved, scaled, harmed and looked at in a real Jaeger.

    python -m tests.compose [--keep] [PART...]     PART: words of the names of the parts to run, all without

Installs an engine, Compose, a base image and stand-ins for official images where they are missing (machine/), builds
the images, and ends with no container, volume or network of its own left. Exit code 0 where every part held.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.compose.backend import backend_parts
from tests.compose.faults import fault_parts
from tests.compose.moves import Nodes, Part, move_parts
from tests.compose.observe import observe_parts
from tests.compose.project import ROOT, Project, run
from tests.compose.reach import reach_parts
from tests.compose.report import Report
from tests.compose.traces import trace_parts
from tests.compose.trust import trust_parts
from tests.compose.upgrade import upgrade_parts

BASE_IMAGE = "python:3.13-slim-trixie"
NETWORK = "swarmbridge-test-mesh"
NAMES = ("swarmbridge-test-a", "swarmbridge-test-b")
MACHINE = Path(__file__).parent / "machine"
CACHE = Path(
    os.environ.get("SWARMBRIDGE_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swarmbridge"
)
OVERLAY = "ops/compose/shared-mesh.yaml"


def main(arguments: list[str]) -> int:
    """Returns: the exit code."""
    keep = "--keep" in arguments
    wanted = [word for word in arguments if not word.startswith("-")]
    report = Report()
    CACHE.mkdir(parents=True, exist_ok=True)
    # Two runs would build the same tags and use the same names: the second waits.
    lock = (CACHE / "test-compose.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with lock, tempfile.TemporaryDirectory() as work:
        nodes = _nodes(Path(work))
        if not report.part("machine", "engine, Compose and images", 900, _machine):
            return report.close()
        try:
            if not report.part("build", "an image a service", 600, lambda: _build(nodes)):
                return report.close()
            for part in _parts(nodes):
                if not wanted or part.always or any(word in part.name for word in wanted):
                    held = report.part(part.name, part.expected, part.limit_s, part.work)
                    if part.always and not held:
                        break
        finally:
            if not keep:
                report.part("the end", "nothing of ours left", 180, lambda: _clear(nodes))
    return report.close()


def _parts(nodes: Nodes) -> list[Part]:
    """Those that leave a node other than they found it come last."""
    kinds = (
        move_parts,
        trust_parts,
        reach_parts,
        observe_parts,
        trace_parts,
        backend_parts,
        fault_parts,
        upgrade_parts,
    )
    return [part for kind in kinds for part in kind(nodes)]


def _nodes(work: Path) -> Nodes:
    """Node A is the meeting place of both."""
    document = work / "rendezvous.json"
    document.write_text(
        json.dumps(
            {
                "peerServers": [{"url": "http://rendezvous.a:9000/"}],
                "webtorrentTrackers": ["ws://rendezvous.a:9000/announce"],
            }
        )
    )
    # The engine mounts it into containers that run as another user.
    os.chmod(work, 0o755)
    os.chmod(document, 0o644)

    def project(name: str, node: str) -> Project:
        return Project(
            name,
            {
                "SWARMBRIDGE_NODE_ID": node,
                "SWARMBRIDGE_DOCUMENT": str(document),
                "SWARMBRIDGE_MESH_NETWORK": NETWORK,
                "SWARMBRIDGE_TELEMETRY_PROPAGATION": "join",
                "SWARMBRIDGE_SAMPLE_PERCENT": "100",
            },
            (OVERLAY,),
        )

    return Nodes(project(NAMES[0], "a"), project(NAMES[1], "b"))


def _machine() -> str:
    started_s = time.monotonic()
    for script in (["engine.sh"], ["base_image.sh", BASE_IMAGE], ["stand_ins.sh"]):
        run(str(MACHINE / script[0]), *script[1:], timeout_s=900.0)
    return f"there after {time.monotonic() - started_s:.0f} s"


def _build(nodes: Nodes) -> str:
    _clear(nodes)  # of a run that was killed
    run("docker", "network", "create", NETWORK)
    nodes.a.compose("build", timeout_s=600.0)
    sizes = run("docker", "image", "ls", "--format", "{{.Repository}} {{.Size}}", "--filter", "reference=swarmbridge-*")
    return ", ".join(sorted(line.removeprefix("swarmbridge-") for line in sizes.splitlines()))


def _clear(nodes: Nodes) -> str:
    for node in (nodes.b, nodes.a):
        node.down(volumes=True)
    if run("docker", "network", "ls", "--quiet", "--filter", f"name=^{NETWORK}$"):
        run("docker", "network", "rm", NETWORK)
    label = "label=com.docker.compose.project"
    left = [run("docker", "ps", "--all", "--quiet", "--filter", f"{label}={node.name}") for node in (nodes.a, nodes.b)]
    return f"containers left: {len(''.join(left).split())}"


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
