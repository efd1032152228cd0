"""Each way over which the same number of bytes goes from one process to another."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.bench.webtorrent.ends import ROOT, LegFailed, Taken, end, transfer
from ops.bench.webtorrent.torrent_file import write_torrent, write_zeros
from services.supervisor.machine.interrupts import unbroken
from services.supervisor.machine.nats_process import NatsServer, start_nats
from services.supervisor.machine.node import lay_out
from services.supervisor.machine.processes import Children
from services.supervisor.machine.rendezvous_process import start_rendezvous, write_document
from shared.bus.messages.conversations import ADMIN
from shared.bus.nats.users import make_users
from shared.settings.config import RendezvousSettings, TelemetrySettings

HERE = Path(__file__).resolve().parent
INTEROP = ROOT / "tests" / "interop"
MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
NODE = "bench"


@dataclass(frozen=True)
class Stage:
    """What legs meet at. document: names the tracker. nats_seed: the file of who may use the bus."""

    work: Path
    nats: NatsServer
    nats_seed: Path
    tracker: str
    document: Path

    @property
    def torrent(self) -> Path:
        return self.work / "zeros.torrent"

    def prepare(self, size_bytes: int) -> None:
        write_torrent(self.torrent, size_bytes)
        write_zeros(self.work / "seed", size_bytes)


@asynccontextmanager
async def running_stage(work: Path, nats_binary: Path) -> AsyncIterator[Stage]:
    """A nats-server and a tracker in `work`. Raises: CannotStart."""
    children = Children()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(lambda: unbroken(children.close()))
        users = make_users(work / "seeds", {NODE: ()})
        nats = await start_nats(
            children,
            binary=nats_binary,
            run_dir=work / "nats",
            store_dir=work / "nats" / "store",
            log_file=work / "nats-server.log",
            accounts=users.accounts,
        )
        seeds = users.of_node(NODE)
        await lay_out(NODE, nats.url, seeds)
        rendezvous = await start_rendezvous(
            children,
            settings=RendezvousSettings(),
            log_level=TelemetrySettings().log_level,
            home=work / "rendezvous",
            log_file=work / "rendezvous.log",
        )
        met = rendezvous.document([])
        write_document(work / "rendezvous.json", met)
        yield Stage(work, nats, seeds[ADMIN].node, met.webtorrent_trackers[0], work / "rendezvous.json")


async def raw(stage: Stage, size_bytes: int) -> Taken:
    return await _between(stage, python("end_raw"), size_bytes, {}, ("port",))


async def hop(stage: Stage, size_bytes: int) -> Taken:
    options = {"url": stage.nats.url, "seed": str(stage.nats_seed), "node": NODE}
    assert stage.nats.child.pid is not None
    return await _between(stage, python("end_hop"), size_bytes, options, ("body",), [stage.nats.child.pid])


async def wire_tcp(stage: Stage, size_bytes: int) -> Taken:
    taken = await _between(stage, python("end_wire"), size_bytes, {"document": ""}, ("endpoint",))
    return _over(taken, "wires_tcp", not_over="wires_channel")


async def wire_channel(stage: Stage, size_bytes: int) -> Taken:
    options = {"document": str(stage.document)}
    taken = await _between(stage, python("end_wire"), size_bytes, options, ("endpoint",))
    return _over(taken, "wires_channel", not_over="wires_tcp")


async def webtorrent_tcp(stage: Stage, size_bytes: int) -> Taken:
    options = {"torrent": str(stage.torrent), "announce": []}
    taken = await _between(stage, _node(stage), size_bytes, options, ("port",))
    return _over(taken, "wires_tcp", not_over="wires_channel")


async def webtorrent_rtc(stage: Stage, size_bytes: int) -> Taken:
    options = {"torrent": str(stage.torrent), "announce": [stage.tracker]}
    taken = await _between(stage, _node(stage), size_bytes, options, ())
    return _over(taken, "wires_channel", not_over="wires_tcp")


async def libtorrent_tcp(stage: Stage, size_bytes: int) -> Taken:
    folder = stage.work / "fetched"
    options = {"torrent": str(stage.torrent), "folder": str(stage.work / "seed")}
    try:
        return await _between(
            stage, python("end_libtorrent"), size_bytes, options, ("port",), received={"folder": str(folder)}
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Leg = Callable[[Stage, int], Awaitable[Taken]]
LEGS: dict[str, Leg] = {
    "raw TCP": raw,
    "NATS hop": hop,
    "our wire, TCP": wire_tcp,
    "webtorrent, TCP": webtorrent_tcp,
    "libtorrent, TCP": libtorrent_tcp,
    "our wire, data channel": wire_channel,
    "webtorrent, WebRTC": webtorrent_rtc,
}


def python(module: str) -> list[str]:
    return [sys.executable, "-P", "-m", f"ops.bench.webtorrent.{module}"]


def node_binary() -> Path:
    """Node 22 as the tests install it. Raises: LegFailed."""
    name = f"node-linux-{MACHINES.get(platform.machine(), 'x64')}"
    binary = INTEROP / "node_modules" / name / "bin" / "node"
    if not binary.exists():
        raise LegFailed("Node 22 and webtorrent are not installed: run tests/interop/install first")
    return binary


def _over(taken: Taken, kind: str, *, not_over: str) -> Taken:
    """Nodes choose by themselves what they link over: figures of another kind are none. Raises: LegFailed."""
    if not taken.measures.get(kind) or taken.measures.get(not_over):
        raise LegFailed(f"it did not go over {kind} alone: {dict(taken.measures)}")
    return taken


def _node(stage: Stage) -> list[str]:
    """Its script lies in `work`, beside the packages that it imports."""
    script = stage.work / "end_webtorrent.mjs"
    script.write_bytes((HERE / script.name).read_bytes())
    packages = stage.work / "node_modules"
    if not packages.exists():
        packages.symlink_to(INTEROP / "node_modules")
    return [str(node_binary()), str(script)]


async def _between(
    stage: Stage,
    command: list[str],
    size_bytes: int,
    options: dict[str, Any],
    reached_by: tuple[str, ...],
    others: list[int] | None = None,
    received: dict[str, Any] | None = None,
) -> Taken:
    """One transfer between two ends of a kind.

    reached_by: what the sender says that the receiver needs. others: more processes at work. received: options of the
    receiver alone.
    """
    log = stage.work / f"{Path(command[-1]).name.rpartition('.end_')[2]}.log"
    both = {"size": size_bytes, **options}
    async with end(command, {**both, "role": "send"}, log) as sender:
        said = await sender.heard()
        known = {name: said[name] for name in reached_by}
        async with end(command, {**both, **known, **(received or {}), "role": "receive"}, log) as receiver:
            await receiver.heard()
            return await transfer(receiver, [sender.pid, *(others or [])], size_bytes)
