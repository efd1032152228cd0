"""What the webtorrent worker can lack, really taken away from real nodes, and what still gets a file across.

A package is taken away by one of its name that cannot be imported, in the worker's own process; servers by their end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from services.supervisor.machine.node import Node
from services.supervisor.machine.ports import free_port
from services.supervisor.machine.processes import Child
from services.supervisor.machine.rendezvous_process import write_document
from shared.gateway_api.structs import TransportStats
from shared.settings.rendezvous import load_document
from tests.e2e.why_scene import POLL_S, Json, Scene, hops_of

WORKER = "webtorrent"
TRACKERS = "webtorrentTrackers"
ENV_WIRE_PORT = "SWARMBRIDGE_WEBTORRENT_PORT"

DEADLINE_S = 60.0
"""For a worker that is executed, not forked: it takes 3 s here, beside another one, on a machine four times slower."""

Look = Callable[[Node, str, str], Awaitable[None]]
"""Wait until a node shows its webtorrent transport in a state (2nd) for a cause (3rd)."""


async def shown(node: Node, state: str, cause: str) -> None:
    """`Look` at the API alone."""
    await until_row(node, lambda row: (row.state, row.last_error) == (state, cause))


async def without_libtorrent(scene: Scene, look: Look) -> None:
    """No DHT at either end: a tracker leads them to each other, and to TCP."""
    await taken_away(scene, ["libtorrent"])
    await delivered_by_tcp(scene, look, "import_failed")
    b = scene.nodes.b
    await until_row(b, lambda row: [place.state for place in row.places if place.list == TRACKERS] == ["open"])
    assert not await measured(b, "dht_nodes")


async def without_aiortc(scene: Scene, look: Look) -> None:
    """No data channels at either end."""
    await taken_away(scene, ["aiortc"])
    await delivered_by_tcp(scene, look, "import_failed")
    for node in (scene.nodes.a, scene.nodes.b):
        for what in ("offers_made", "offers_answered", "wires_channel"):
            assert not await measured(node, what), what


async def without_both(scene: Scene, look: Look) -> None:
    """Nothing but a tracker and TCP."""
    await taken_away(scene, ["libtorrent", "aiortc"])
    await delivered_by_tcp(scene, look, "import_failed")


async def without_tracker_and_dht(scene: Scene, look: Look) -> None:
    """Every server ends while they know each other; then B's worker is killed, and A comes to where it knew it.

    B has its port set: else it would come back at another one.
    """
    a, b = scene.nodes.a, scene.nodes.b
    file = Path(a.plan.config.rendezvous.document)
    document = load_document(str(file)).document
    # No DHT node of the document lives, from the start: what libtorrent has heard of, it keeps.
    dead = [f"{host}:{free_port(WORKER, host, socket.SOCK_DGRAM)}" for host in ("127.0.0.2", "127.0.0.3")]
    write_document(file, msgspec.structs.replace(document, dht_nodes=dead))
    port = free_port(WORKER, b.plan.config.webtorrent.host)
    await scene.only(WORKER)
    await asyncio.gather(restarted(a, {}), restarted(b, {ENV_WIRE_PORT: str(port)}))
    await linked(a, 1)
    await scene.nodes.rendezvous().stop()
    for node in (a, b):
        await look(node, "degraded", "signalling_unavailable")
    worker = the_worker(b)
    await worker.kill()
    await linked(a, 0)
    await until_row(b, lambda row: not row.instances)  # else the old one's last words are taken for the new one's
    worker.start()
    await linked(a, 1)
    await look(b, "degraded", "signalling_unavailable")
    await delivered(scene, WORKER)
    for node in (a, b):
        await look(node, "degraded", "signalling_unavailable")
        await until_row(node, lambda row: {place.state for place in row.places} <= {"waiting", "connecting"})
    scene.nodes.rendezvous().start()
    write_document(file, document)
    await well(b)


async def without_the_worker(scene: Scene, look: Look) -> None:
    """The broadcast shim delivers."""
    await scene.only(WORKER, "broadcast")
    worker = the_worker(scene.nodes.b)
    await worker.kill()
    await look(scene.nodes.b, "error", "worker_lost")
    await delivered(scene, "broadcast")
    worker.start()
    await well(scene.nodes.b)
    await scene.only(WORKER)


async def everything_is_back(scene: Scene) -> None:
    """With every part there, nothing is shown as missing."""
    await asyncio.gather(restarted(scene.nodes.a, {}), restarted(scene.nodes.b, {}))
    for node in (scene.nodes.a, scene.nodes.b):
        await well(node)


# ── what these are made of ──────────────────────────────────────────────────────────────────────────────────


async def taken_away(scene: Scene, packages: Sequence[str]) -> None:
    """Start the webtorrent workers of both nodes again, without these packages."""
    await scene.only(WORKER)
    settings = {"PYTHONPATH": shadow(scene.folder, packages)}
    await asyncio.gather(restarted(scene.nodes.a, settings), restarted(scene.nodes.b, settings))


async def delivered_by_tcp(scene: Scene, look: Look, cause: str) -> None:
    """A file comes with a wire over TCP there, while both nodes show why they are degraded, before it and after."""
    for node in (scene.nodes.a, scene.nodes.b):
        await look(node, "degraded", cause)
        await linked(node, 1)
    await delivered(scene, WORKER)
    for node in (scene.nodes.a, scene.nodes.b):
        await look(node, "degraded", cause)
        # Two that dialled each other at once have two.
        await until_row(node, lambda row: row.instances[0].measures["wires_tcp"] >= 1)


async def delivered(scene: Scene, transport: str) -> Json:
    """B gets a new file over this transport alone. Returns: the verdict."""
    transfer = await scene.got(2)
    confirmed: list[Json] = []
    found: Json = {}
    async with asyncio.timeout(DEADLINE_S):
        while not confirmed:  # records come by their own way
            found = await scene.why(transfer)
            confirmed = [row for row in found["timeline"] if row["outcome"] == "confirmed"]
            await asyncio.sleep(POLL_S)
    assert {row["transport"] for row in confirmed} == {transport}, found["timeline"]
    assert hops_of(found, transport)
    return found


async def restarted(node: Node, settings: dict[str, str]) -> None:
    """Start its webtorrent worker again, with these variables and nothing of earlier ones.

    Executed, not forked: what a nursery has loaded already cannot be missing.
    """
    worker = the_worker(node)
    before = {instance.id for instance in (await node.api.transports())[WORKER].instances}
    await worker.stop()
    inherited = {
        name: value for name, value in worker.program.environment.items() if name not in ("PYTHONPATH", ENV_WIRE_PORT)
    }
    worker.program = dataclasses.replace(worker.program, module="", environment={**inherited, **settings})
    worker.start()
    # One that has ended is shown until it is missed.
    await until_row(node, lambda row: [instance.id in before for instance in row.instances] == [False])


async def well(node: Node) -> None:
    """Wait until its workers are; the transport's own last error may be one of a file's way, long over."""
    await until_row(
        node,
        lambda row: row.state in ("ready", "active") and [one.last_error for one in row.instances] == [None],
    )


async def linked(node: Node, peers: int) -> None:
    await until_row(node, lambda row: row.connected_peers == peers)


async def measured(node: Node, what: str) -> float:
    """One number of its webtorrent worker; 0 where there is none."""
    (instance,) = (await node.api.transports())[WORKER].instances
    return instance.measures.get(what, 0.0)


async def until_row(node: Node, ready: Callable[[TransportStats], bool]) -> None:
    """Wait until a node's view of its webtorrent transport is as wanted."""
    row: TransportStats | None = None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not ready(row := (await node.api.transports())[WORKER]):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(row) from None


def the_worker(node: Node) -> Child:
    (worker,) = node.processes(WORKER)
    return worker


def shadow(folder: Path, packages: Sequence[str]) -> str:
    """Where packages of these names are that cannot be imported."""
    root = folder / f"without-{'-'.join(packages)}"
    for name in packages:
        package = root / name
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text('raise ImportError("not for this test")\n')
    return str(root)
