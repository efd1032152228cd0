"""What the manager costs between a worker and the chunk service: peers' requests with it and without it.

A request of a peer goes worker -> manager -> chunk; the other way measured here leaves the manager out. nats-server and
one manager are real processes; worker and chunk instance are this process and only their bus sides, so that what
differs between the two ways is the manager alone. Rounds of both alternate, so that a machine that changes its pace
changes it for both. With a body its ranges are pulled as a worker does: from the chunk instance, in both ways.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import cycle, product
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table

from ops.bench.bus_stage import BusStage, running_bus
from ops.bench.policies import PRODUCT
from ops.bench.samples import Spread, spread
from services.supervisor.machine.nats_process import find_binary
from shared.bus.bodies import BodyHolder, pull, release
from shared.bus.contract import Bus, Incoming
from shared.bus.messages.envelopes import ROLE_MEMBER, BodyRef, Inbound, InboundAnswer, Stamp
from shared.bus.messages.subjects import QUEUE_CHUNK, Subjects
from shared.content.messages import ManifestData, RequestManifest
from shared.ids import member_token
from shared.transports import TransportName

ROUNDS, QUICK_ROUNDS = 12, 2
REQUESTS = 150
"""In each round, one after another or CONCURRENT at a time."""

CONCURRENT = 32
CHUNK_BYTES = 2**20
HELD_BYTES = 256 * 2**20
PEERS = 64
"""So many ask, for each has its own rate."""

TIMEOUT_S = 10.0
TRANSPORT = TransportName.WEBRTC
WAYS = ("with the manager", "without it")
LOADS = ("header alone", "header alone, 32 at a time", "1 MiB pulled")


@dataclass(frozen=True, slots=True)
class Way:
    """latency: milliseconds of a request. cpu_ms: the manager's and the server's, a request; None = not known."""

    load: str
    way: str
    latency: Spread
    per_second: float
    manager_cpu_ms: float | None
    server_cpu_ms: float | None


@dataclass
class _Counted:
    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: list[tuple[float, float]] = field(default_factory=list)

    def row(self, load: str, way: str) -> Way:
        count = len(self.latencies_ms)
        known = len(self.cpu_s) > 0
        manager_s, server_s = (sum(part) for part in zip(*self.cpu_s, strict=True)) if known else (0.0, 0.0)
        return Way(
            load,
            way,
            spread(self.latencies_ms),
            round(count / self.seconds, 1),
            round(1000 * manager_s / count, 3) if known else None,
            round(1000 * server_s / count, 3) if known else None,
        )


class InboundBench:
    """A worker that asks and a chunk instance that answers, on one stage."""

    def __init__(self, stage: BusStage, worker: Bus, chunk: Bus, subjects: Subjects) -> None:
        self._stage = stage
        self._worker = worker
        self._chunk = chunk
        self._subjects = subjects
        self._holder = BodyHolder(chunk, subjects, max_total_bytes=HELD_BYTES)
        self._data = bytes(CHUNK_BYTES)
        self._with_body = False
        stamps = [Stamp(TRANSPORT.value, ROLE_MEMBER, member_token(bytes([n] * 32)), "link") for n in range(PEERS)]
        self._calls = cycle([Inbound(stamp, bytes(16), RequestManifest("00")) for stamp in stamps])

    async def start(self) -> None:
        await self._holder.start()
        await self._chunk.serve(self._subjects.chunk_message, Inbound, self._answer, queue=QUEUE_CHUNK)

    async def close(self) -> None:
        await self._holder.close()

    async def measure(self, rounds: int, tick: Callable[[], None]) -> list[Way]:
        """Both ways under each load, in alternation; what comes first in a round changes too."""
        counted = {(load, way): _Counted() for load, way in product(LOADS, WAYS)}
        for number in range(rounds):
            for load in LOADS:
                for way in WAYS if number % 2 else reversed(WAYS):
                    await self._round(load, way, counted[load, way])
            tick()
        return [counts.row(load, way) for (load, way), counts in counted.items()]

    async def _round(self, load: str, way: str, counted: _Counted) -> None:
        self._with_body = load == LOADS[2]
        at_a_time = CONCURRENT if load == LOADS[1] else 1
        subject = self._subjects.inbound(TRANSPORT) if way == WAYS[0] else self._subjects.chunk_message
        left = iter(range(REQUESTS))

        async def one_after_another() -> None:
            for _ in left:
                started = time.perf_counter()
                await self._ask(subject)
                counted.latencies_ms.append(1000 * (time.perf_counter() - started))

        before, started = self._stage.cpu_s(), time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(at_a_time)))
        counted.seconds += time.perf_counter() - started
        after = self._stage.cpu_s()
        if before is not None and after is not None:
            counted.cpu_s.append((after[0] - before[0], after[1] - before[1]))

    async def _ask(self, subject: str) -> None:
        reply = await self._worker.request(subject, next(self._calls), InboundAnswer, TIMEOUT_S)
        if reply.body is not None:
            await pull(self._worker, self._subjects, reply.body, timeout_s=TIMEOUT_S)
            await release(self._worker, self._subjects, reply.body)

    async def _answer(self, call: Inbound, incoming: Incoming) -> InboundAnswer:
        body: BodyRef | None = self._holder.hold(self._data, TRANSPORT.value) if self._with_body else None
        return InboundAnswer(ManifestData("00"), body)


async def bench(rounds: int, tick: Callable[[], None], nats_binary: str = "") -> list[Way]:
    """Raises: CannotStart."""
    with TemporaryDirectory(prefix="swarmbridge-bench-") as work:
        async with running_bus(Path(work), find_binary(nats_binary)) as stage:
            await stage.use(PRODUCT)
            measured = InboundBench(
                stage, await stage.connected(TRANSPORT.value), await stage.connected("chunk"), stage.subjects
            )
            await measured.start()
            try:
                return await measured.measure(rounds, tick)
            finally:
                await measured.close()


def tables(rows: list[Way]) -> Iterator[Table]:
    table = Table(
        title="A peer's request to the chunk service, with the manager between and without", title_justify="left"
    )
    for name in ("load", "way"):
        table.add_column(name)
    for name in ("n", "p50 ms", "p99 ms", "a second", "manager CPU ms", "nats-server CPU ms"):
        table.add_column(name, justify="right")
    for row in rows:
        known = ["-" if value is None else f"{value:.2f}" for value in (row.manager_cpu_ms, row.server_cpu_ms)]
        latency = row.latency
        table.add_row(
            row.load,
            row.way,
            str(latency.count),
            f"{latency.p50:.2f}",
            f"{latency.p99:.2f}",
            f"{row.per_second:.0f}",
            *known,
        )
    yield table


def as_objects(rows: list[Way]) -> list[dict[str, object]]:
    return [asdict(row) for row in rows]
