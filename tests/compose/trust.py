"""What a container may do: no root, no secret but its own, and on the bus its own part, by its own credentials."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.compose.moves import Nodes, Part
from tests.compose.project import LONG_RUNNING, Failed, Project, inspect, run

PROBE = Path(__file__).parent / "probes" / "forbidden.py"
IMAGE = "swarmbridge-init:local"
PROBE_S = 60.0
ON_THE_BUS = ("chunk", "manager", "webrtc", "webtorrent", "broadcast", "gateway", "keeper")
IMAGES = (*(name for name in LONG_RUNNING if name not in ("jaeger", "nats", "keeper")), "init")
TLS = "ops/compose/tls.yaml"


def trust_parts(nodes: Nodes) -> list[Part]:
    return [
        Part("hardening", "no root, no capability, nothing writable", 60, lambda: _hard(nodes)),
        Part("secrets", "none in images, environment, inspect or logs", 90, lambda: _secrets(nodes)),
        Part("permissions", "by its own credentials each does its part and no other", 180, lambda: _permissions(nodes)),
        Part("another node", "its bus is not reached, and refuses our users", 90, lambda: _another(nodes)),
        Part("tls", "switched on: nobody is served in clear, a file moves; and off again", 240, lambda: _tls(nodes)),
    ]


def _hard(nodes: Nodes) -> str:
    containers = nodes.a.compose("ps", "--all", "--quiet").split()
    for container in containers:
        name = inspect(container, "{{.Name}}")
        said = inspect(
            container,
            "{{.Config.User}}|{{.HostConfig.ReadonlyRootfs}}|{{.HostConfig.CapDrop}}|{{.HostConfig.SecurityOpt}}|"
            "{{.HostConfig.Memory}}|{{.HostConfig.NanoCpus}}|{{.HostConfig.PidsLimit}}|"
            '{{index .HostConfig.LogConfig.Config "max-size"}}',
        )
        user, read_only, dropped, security, memory, cpus, pids, log = said.split("|")
        if user != "10001:10001" or read_only != "true" or "ALL" not in dropped or "no-new" not in security or not log:
            raise Failed(f"{name}: {said}")
        if "0" in (memory, cpus, pids) or "<nil>" in pids:
            raise Failed(f"{name} has no limits: {said}")
    seen = nodes.a.compose(
        "exec", "-T", "webrtc", "sh", "-c", "ls /secret; touch /app/x 2>/dev/null && echo writable; true"
    )
    if seen.split() != ["bus.seed"]:
        raise Failed(f"webrtc sees {seen.split()}")
    return f"{len(containers)} containers looked at"


def _in_volume(volume: str, *command: str, network: str = "none", mounts: tuple[str, ...] = ()) -> str:
    """Run a command of our own image with a volume at /secret."""
    extra = [part for mount in mounts for part in ("--volume", mount)]
    return run(
        *("docker", "run", "--rm", "--network", network, "--volume", f"{volume}:/secret:ro", *extra, IMAGE, *command),
        timeout_s=PROBE_S,
    )


def _secrets(nodes: Nodes) -> str:
    """Every secret of the node, looked for in everything that the engine tells about its containers and images."""
    node = nodes.a
    files = _in_volume(f"{node.name}_init", "find", "/secret", "-name", "*.seed", "-o", "-name", "*.token").split()
    text = _in_volume(f"{node.name}_init", "sh", "-c", 'for file; do cat "$file"; echo; done', "sh", *files)
    root = base64.b64decode(_in_volume(f"{node.name}_init", "base64", "-w0", "/secret/root.key"))
    secrets = [*text.split(), root.hex(), base64.b64encode(root).decode()]
    if len(secrets) < len(ON_THE_BUS) + 3:
        raise Failed(f"only {len(secrets)} secrets were found to look for")
    places = {}
    for container in node.compose("ps", "--all", "--quiet").split():
        name = inspect(container, "{{.Name}}")
        places[f"inspect of {name}"] = run("docker", "inspect", container)
        places[f"log of {name}"] = run("docker", "logs", container, both=True)
    for image in IMAGES:
        places[f"image {image}"] = run("docker", "image", "inspect", f"swarmbridge-{image}:local")
        places[f"history of {image}"] = run("docker", "image", "history", "--no-trunc", f"swarmbridge-{image}:local")
    places["compose config"] = node.compose("config")
    leaks = [place for place, said in places.items() if any(secret in said for secret in secrets)]
    if leaks:
        raise Failed(f"a secret in {leaks}")
    # What an image holds as files: built from a context that has none, so none of the names may be there.
    for image in IMAGES:
        found = run(
            *("docker", "run", "--rm", "--network", "none", "--entrypoint", "find", f"swarmbridge-{image}:local"),
            *("/", "-xdev", "(", "-name", "*.seed", "-o", "-name", "*.token", "-o", "-name", "root.key", ")"),
            either=True,
        )
        if found.strip():
            raise Failed(f"image {image} holds {found.split()}")
    return f"{len(secrets)} secrets looked for in {len(places)} places and the files of {len(IMAGES)} images"


def _probe(credentials: Project, bus_of: Project, service: str, url: str = "nats://nats:4222") -> dict[str, Any]:
    said = _in_volume(
        f"{credentials.name}_secrets-{service}",
        *("python", "/probe.py", credentials.settings["SWARMBRIDGE_NODE_ID"], service, url),
        network=f"{bus_of.name}_bus",
        mounts=(f"{PROBE}:/probe.py:ro",),
    )
    found: dict[str, Any] = json.loads(said)
    return found


def _permissions(nodes: Nodes) -> str:
    tried = 0
    for service in ON_THE_BUS:
        found = _probe(nodes.a, nodes.a, service)
        if found["connected"] or found["allowed"] or found["refused"]:
            raise Failed(f"{service}: {found}")
        tried += int(found["tried"])
    return f"{tried} subjects tried by {len(ON_THE_BUS)} users: refused what is another's, let in to what is theirs"


def _another(nodes: Nodes) -> str:
    for service in ("gateway", "keeper"):
        found = _probe(nodes.a, nodes.b, service)
        if "authorization" not in found["connected"].lower():
            raise Failed(f"B's bus let A's {service} in: {found}")
    (nats,) = nodes.b.containers("nats")
    address = inspect(nats, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    reach = "import socket,sys; s=socket.socket(); s.settimeout(2); sys.exit(s.connect_ex((sys.argv[1], 4222)) == 0)"
    for service in ("webrtc", "webtorrent", "broadcast", "gateway", "chunk", "rendezvous"):
        nodes.a.compose("exec", "-T", service, "python", "-c", reach, address)
    return "refused by B's server when put on its network, and not to be reached from six of A's containers"


def _tls(nodes: Nodes) -> str:
    plain = nodes.a.overlays
    nodes.a.overlays = (*plain, TLS)
    try:
        nodes.a.up()
        in_clear = _probe(nodes.a, nodes.a, "gateway")["connected"]
        if not in_clear:
            raise Failed("the server serves in clear")
        nodes.moved()
        seen = nodes.a.compose("exec", "-T", "webrtc", "ls", "/secret").split()
        if sorted(seen) != ["bus.seed", "ca.pem"]:
            raise Failed(f"webrtc sees {seen}")
    finally:
        nodes.a.overlays = plain
        nodes.a.up()
    found = _probe(nodes.a, nodes.a, "gateway")
    if found["connected"]:
        raise Failed(f"not off again: {found['connected']}")
    nodes.moved()
    return f"a plain client was answered {in_clear!r}; files moved with it and without"
