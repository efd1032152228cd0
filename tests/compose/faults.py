"""What is done to a running node, and that it comes back from each: every transfer ends with the right bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from tests.compose.moves import SIZE_BYTES, Nodes, Part
from tests.compose.project import Failed, inspect, run, until

BACK_S = 90.0
CRASHED = ("webrtc", "webtorrent", "manager", "chunk", "nats", "rendezvous", "broadcast", "jaeger", "keeper")
ROLLED = ("manager", "chunk", "webrtc", "webtorrent", "broadcast", "gateway")
STORE = "/home/chunk/store"
WIPE = ("find", "/lost", "-mindepth", "1", "-delete")


def fault_parts(nodes: Nodes) -> list[Part]:
    expected = "the transfer ends with the right bytes, the container comes back healthy"
    crashes = [Part(f"kill -9 {one}", expected, 240, partial(_crash, nodes, one)) for one in CRASHED]
    return [
        *crashes,
        Part("kill -9 gateway", "it comes back, and still knows its files", 180, lambda: _gateway(nodes)),
        Part("pause webrtc", "another transport takes over", 180, lambda: _pause(nodes)),
        Part("network cut", "another transport takes over, WebRTC comes back", 240, lambda: _cut(nodes)),
        Part("disk full", "said, nothing half kept, and well again with room", 180, lambda: _disk_full(nodes)),
        Part("rolling restart", "transfers go on while each service is replaced", 400, lambda: _roll(nodes)),
        Part("nats restart", "transfers go on afterwards", 180, lambda: _nats(nodes)),
        Part("down and up", "the same peer ids, every file still there", 300, lambda: _down_up(nodes)),
        Part("nats loses its volume", "made again by the keeper, reported; puts work", 300, lambda: _amnesia(nodes)),
        Part("down without a volume", "`up` makes a node that serves", 300, lambda: _without_volume(nodes)),
    ]


def _healthy_again(nodes: Nodes) -> float:
    started_s = time.monotonic()
    until(lambda: nodes.a.all_healthy() and nodes.b.all_healthy(), BACK_S, "every container healthy")
    return time.monotonic() - started_s


def _during(nodes: Nodes, fault: Callable[[], object]) -> str:
    result = nodes.moved_while(fault, timeout_s=120.0)
    back_s = _healthy_again(nodes)
    return f"arrived whole by {result['byTransport']}, all healthy {back_s:.1f} s later"


def _crash(nodes: Nodes, service: str) -> str:
    return _during(nodes, lambda: nodes.a.crash(service))


def _gateway(nodes: Nodes) -> str:
    link, digest = nodes.file()
    nodes.b.finished(nodes.b.fetch(link), 60.0)
    nodes.b.crash("gateway")
    back_s = _healthy_again(nodes)
    if nodes.b.sha256(link) != digest:
        raise Failed("the file has changed")
    return f"all healthy after {back_s:.1f} s, the file as before"


def _pause(nodes: Nodes) -> str:
    (worker,) = nodes.a.containers("webrtc")

    def pause() -> None:
        run("docker", "pause", worker)

    try:
        result = nodes.moved_while(pause, timeout_s=120.0)
    finally:
        run("docker", "unpause", worker)
    back_s = _healthy_again(nodes)
    return f"arrived whole by {result['byTransport']}, all healthy {back_s:.1f} s after it was woken"


def _cut(nodes: Nodes) -> str:
    (worker,) = nodes.a.containers("webrtc")
    network = nodes.a.settings["SWARMBRIDGE_MESH_NETWORK"]
    try:
        result = nodes.moved_while(lambda: run("docker", "network", "disconnect", network, worker), timeout_s=120.0)
    finally:
        run("docker", "network", "connect", network, worker)

    def primary() -> bool:
        return "webrtc" in nodes.moved()["byTransport"]

    started_s = time.monotonic()
    until(primary, BACK_S, "WebRTC used again")
    return (
        f"arrived whole by {result['byTransport']}, WebRTC again {time.monotonic() - started_s:.1f} s after the cable"
    )


def _disk_full(nodes: Nodes) -> str:
    """A small file system over the store, in the container's own mount namespace: real writes meet a real ENOSPC."""
    (container,) = nodes.b.containers("chunk")
    inside = ("nsenter", "--target", inspect(container, "{{.State.Pid}}"), "--mount")
    link, digest = nodes.file()
    run(*inside, "mount", "-t", "tmpfs", "-o", "size=4m,uid=10001,gid=10001,mode=0700", "tmpfs", STORE)
    try:
        fetched = nodes.b.ended(nodes.b.fetch(link), 60.0)
        if fetched["state"] != "failed":
            raise Failed(f"a fetch without room ended as {fetched['state']}")
        try:
            nodes.b.put(b"0" * SIZE_BYTES)
        except Failed as error:
            refused = str(error)
        else:
            raise Failed("a put without room was accepted")
        until(lambda: nodes.b.healthy("chunk"), BACK_S, "the chunk service healthy")
    finally:
        run(*inside, "umount", STORE)
    nodes.b.finished(nodes.b.fetch(link), 60.0)
    if nodes.b.sha256(link) != digest:
        raise Failed("what arrived is not what was sent")
    return f"the fetch failed with {fetched['cause']}; {refused}; with room again the same file came whole"


def _roll(nodes: Nodes) -> str:
    for service in ROLLED:
        restart = partial(nodes.a.compose, "up", "--detach", "--wait", "--no-deps", "--force-recreate", service)
        if service == "gateway":
            restart()
            nodes.moved()
        else:
            nodes.moved_while(restart, timeout_s=120.0)
    return f"a file arrived whole during each of {len(ROLLED)}"


def _nats(nodes: Nodes) -> str:
    result = nodes.moved_while(lambda: nodes.a.compose("restart", "nats"), timeout_s=120.0)
    back_s = _healthy_again(nodes)
    return f"arrived whole by {result['byTransport']}, all healthy {back_s:.1f} s later"


def _down_up(nodes: Nodes) -> str:
    peers, files = (nodes.a.peer, nodes.b.peer), len(nodes.b.api("files"))
    link, digest = nodes.file()
    nodes.b.finished(nodes.b.fetch(link), 60.0)
    started_s = time.monotonic()
    for node in (nodes.a, nodes.b):
        node.down()
    down_s = time.monotonic() - started_s
    for node in (nodes.a, nodes.b):
        node.up()
    if (nodes.a.peer, nodes.b.peer) != peers:
        raise Failed("a peer id changed")
    if nodes.b.sha256(link) != digest:
        raise Failed("the file has changed")
    now = len(nodes.b.api("files"))
    if now != files + 1:
        raise Failed(f"{now} files where {files + 1} were")
    nodes.moved()
    return f"down in {down_s:.1f} s; {now} files, peer ids and content as before; a new file moved"


def _amnesia(nodes: Nodes) -> str:
    link, digest = nodes.file()
    nodes.a.set_transports(webTorrent=False)
    nodes.a.compose("stop", "nats")
    run("docker", "run", "--rm", "--volume", f"{nodes.a.name}_nats-data:/lost", "swarmbridge-init:local", *WIPE)
    nodes.a.compose("start", "nats")
    started_s = time.monotonic()
    until(lambda: nodes.a.put(b"a file"), BACK_S, "a put")
    put_s = time.monotonic() - started_s
    lost = until(lambda: [d for d in nodes.a.api("diagnostics") if d["code"] == "storage-lost"], BACK_S, "a diagnostic")
    _healthy_again(nodes)
    if next(t for t in nodes.a.api("stats")["transports"] if t["id"] == "webtorrent")["enabled"]:
        raise Failed("a flag that was set is forgotten")
    nodes.a.set_transports(webTorrent=True)
    if nodes.a.sha256(link) != digest:
        raise Failed("the file has changed")
    nodes.moved()
    return f"a put after {put_s:.1f} s, {len(lost)} diagnostics, a flag and a file as before, a new file moved"


def _without_volume(nodes: Nodes) -> str:
    nodes.a.down()
    run("docker", "volume", "rm", f"{nodes.a.name}_nats-data")
    nodes.a.up()
    nodes.moved()
    return "streams and buckets made again, a new file moved"
