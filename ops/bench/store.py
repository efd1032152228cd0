"""What storing and fetching cost, end to end and in the store alone.

*put*: a file from the API to the end of its transfer on node A. *get*: the same file from A to B over whichever
transport is first. CPU is that of all processes named `chunk` of the node at work. *index*: what a put or fetch asks of
a store that is full, beside a whole listing of it, which is what it took before there was a counter and an index.
Linux only: it reads /proc.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from services.chunk.quota import Quota
from services.chunk.store import ChunkStore
from services.supervisor.machine.interrupts import unbroken
from services.supervisor.machine.nats_process import find_binary
from services.supervisor.machine.node import Node
from services.supervisor.machine.pair import Pair

MIB = 2**20
FILE_MIB = 128
QUICK_FILE_MIB = 32
ROUNDS = 5
QUICK_ROUNDS = 2
OBJECT_COUNTS = (1_000, 40_000)
OBJECT_BYTES = 64
"""Of each made-up object: what is measured is how many there are."""
FILE_CHUNKS = 10_000
"""Chunks of the file whose fetch asks what is here already."""
SAMPLES = 20
POLL_S = 0.02
TRANSFER_LIMIT_S = 300.0


class StoreFailed(Exception):
    """A transfer failed; the text is its cause."""


class Transferred(msgspec.Struct, rename="camel"):
    """Medians of putting and of getting one file. cpu_s_per_gb: of the chunk service, for 10^9 bytes."""

    what: str
    rounds: int
    file_mib: int
    mb_per_s: float
    cpu_s_per_gb: float


class Indexed(msgspec.Struct, rename="camel"):
    """Medians, ms, at so many objects in the store. room_ms: does a file fit. among_ms: which of FILE_CHUNKS are."""

    objects: int
    listing_ms: float
    room_ms: float
    among_ms: float


class StoreReport(msgspec.Struct, rename="camel"):
    transfers: list[Transferred]
    index: list[Indexed]


async def measure(*, quick: bool, nats_binary: str = "") -> StoreReport:
    """Raises: StoreFailed; CannotStart."""
    file_mib, rounds = (QUICK_FILE_MIB, QUICK_ROUNDS) if quick else (FILE_MIB, ROUNDS)
    transfers = await measure_transfers(file_mib, rounds, nats_binary)
    return StoreReport(transfers, [await measure_index(count) for count in OBJECT_COUNTS])


async def measure_transfers(file_mib: int, rounds: int, nats_binary: str = "") -> list[Transferred]:
    """Two nodes of their own, one file after another, each of fresh bytes. Raises: StoreFailed; CannotStart."""
    work = Path(tempfile.mkdtemp(prefix="swarmbridge-bench-"))
    pair = Pair(work)
    taken: dict[str, list[tuple[float, float]]] = {"put": [], "get": []}
    try:
        await pair.start(find_binary(nats_binary))
        for number in range(rounds):
            source = work / f"file-{number}"
            source.write_bytes(os.urandom(file_mib * MIB))
            link, seconds, cpu_s = await _timed(pair.a, pair.a.api.put(source, source.name))
            taken["put"].append((seconds, cpu_s))
            _, seconds, cpu_s = await _timed(pair.b, pair.b.api.fetch(link))
            taken["get"].append((seconds, cpu_s))
            digest = link.partition(":")[2][:64]
            if await pair.b.api.content_sha256(digest) != hashlib.sha256(source.read_bytes()).hexdigest():
                raise StoreFailed("integrity_mismatch")
            source.unlink()
    finally:
        await unbroken(pair.clear())
    gigabytes = file_mib * MIB / 1e9
    return [
        Transferred(
            what,
            rounds,
            file_mib,
            1000 * gigabytes / statistics.median(seconds for seconds, _ in found),
            statistics.median(cpu_s for _, cpu_s in found) / gigabytes,
        )
        for what, found in taken.items()
    ]


async def measure_index(count: int) -> Indexed:
    with tempfile.TemporaryDirectory(prefix="swarmbridge-bench-") as folder:
        names = [os.urandom(32).hex() for _ in range(count)]
        for name in names:
            path = Path(folder) / "c" / name[:2] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(OBJECT_BYTES))
        refs = [f"chunk-{name}" for name in names][: FILE_CHUNKS // 2]
        refs += [f"chunk-{os.urandom(32).hex()}" for _ in range(FILE_CHUNKS - len(refs))]
        store = ChunkStore.open(folder, Path(folder))
        quota = Quota(store.holdings, 2**62)

        async def room() -> None:
            async with quota.room_for(FILE_CHUNKS * MIB):
                pass

        async def among() -> None:
            store.holdings.among(refs)

        listing_ms = await _median_ms(store.list_all, 3)
        return Indexed(count, listing_ms, await _median_ms(room, SAMPLES), await _median_ms(among, SAMPLES))


def show(report: StoreReport, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        return
    console = Console()
    for table in _tables(report):
        console.print(table)
        console.print()


def _tables(report: StoreReport) -> Iterator[Table]:
    table = _table("Transfers, medians", "what", ("rounds", "file MiB", "MB/s", "chunk's CPU s/GB"))
    for row in report.transfers:
        values = str(row.rounds), str(row.file_mib), f"{row.mb_per_s:.0f}", f"{row.cpu_s_per_gb:.1f}"
        table.add_row(row.what, *values)
    yield table
    table = _table(
        "The store's index, medians, ms", "objects", ("listing", "room for a file", f"{FILE_CHUNKS} refs here?")
    )
    for found in report.index:
        table.add_row(str(found.objects), f"{found.listing_ms:.1f}", f"{found.room_ms:.3f}", f"{found.among_ms:.2f}")
    yield table


def _table(title: str, first: str, numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


async def _timed(node: Node, start: Awaitable[str]) -> tuple[str, float, float]:
    """start: gives the transfer's id. Returns: its link, seconds, and CPU seconds of the node's chunk processes."""
    started_s, before_s = time.monotonic(), _cpu_s(node)
    link = await _ended(node, await start)
    return link, time.monotonic() - started_s, _cpu_s(node) - before_s


async def _ended(node: Node, transfer_id: str) -> str:
    """Returns: the transfer's link."""
    async with asyncio.timeout(TRANSFER_LIMIT_S):
        while True:
            transfer = await node.api.transfer(transfer_id)
            if transfer.state == "failed":
                raise StoreFailed(transfer.cause or "other")
            if transfer.state == "done":
                return transfer.link or ""
            await asyncio.sleep(POLL_S)


def _cpu_s(node: Node) -> float:
    pids = [child.pid for child in node.processes("chunk") if child.pid is not None]
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime, stime: fields 14 and 15 of proc_pid_stat(5)
    return ticks / os.sysconf("SC_CLK_TCK")


async def _median_ms(work: Callable[[], Awaitable[object]], samples: int) -> float:
    taken: list[float] = []
    for _ in range(samples):
        started_s = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(taken)
