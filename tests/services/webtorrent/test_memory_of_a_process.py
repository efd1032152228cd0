"""How much memory the whole worker process takes, seals and all, where handshakes never end: once, and again and again.

`test_memory_under_attack` has the transport alone. Prints its figures (`-s`); bounds are from the limits, and generous.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from services.webtorrent.limits import MAX_HALF_OPEN, MAX_LINKS_PER_ADDRESS
from shared.bus.messages.envelopes import Accepted, SendRequest
from shared.content.messages import RequestChunk
from shared.wire.peerwire.extended import SEAL_KEY, SEAL_VERSION
from tests.fakes.waiting import until
from tests.fakes.worker_node import WorkerNode
from tests.services.webtorrent.raw_peer import extended, handshake
from tests.services.webtorrent.test_processes import HOST, WIRE, WITHIN_S, Workers, dial, free_ports, node, remote

__all__ = ["remote"]

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory a process has"),
]

MIB = 2**20
ROUNDS = 150
"""With what a wire may keep of an extended handshake 75 MiB in all: kept, it would show."""
SEALS = 256
FIRST_SEAL = 1_000
"""From addresses of their own: of the others some wires may not be seen to be gone yet."""
SLACK_BYTES = 48 * MIB
PART_BYTES = 8_000
SEALED = extended(b"d1:md11:swarm-spacei3ee%d:%si%dee" % (len(SEAL_KEY), SEAL_KEY, SEAL_VERSION))
KEPT_A_SEAL_BYTES = 128 * 1024
"""A session, its queues and its timers; one record of the longest kind."""


def rss_bytes(pid: int, which: str) -> int:
    """which: VmRSS now, VmHWM the most since the peak was forgotten."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the worker has ended")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def wire(port: int, number: int, opening: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Each MAX_LINKS_PER_ADDRESS from another address. Waits for the worker's handshake, or its end."""
    source = (f"127.0.1.{1 + number // MAX_LINKS_PER_ADDRESS}", 0)
    reader, writer = await asyncio.open_connection(HOST, port, local_addr=source)
    writer.write(handshake(b"-XX0001-%012d" % number) + opening)
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readexactly(68)
    return reader, writer


def refused(workers: Workers) -> dict[str, int]:
    (status,) = workers.statuses.values()
    return status.refused


async def handshakes_again_and_again(port: int) -> None:
    """All half-open places but one, which is an honest peer's; each time hung up on in the middle of a message."""
    for _ in range(ROUNDS):
        opening = extended(bytes(PART_BYTES))[:-1]
        wires = [await wire(port, number, opening) for number in range(MAX_HALF_OPEN - 1)]
        for _, writer in wires:
            writer.transport.abort()


async def seals_that_never_end(port: int) -> None:
    """Wires that say they seal, and then nothing: they are links of the transport, and of nobody above it."""
    wires = [await wire(port, number, SEALED) for number in range(FIRST_SEAL, FIRST_SEAL + SEALS)]
    for reader, writer in wires:
        with suppress(ConnectionError):
            while await asyncio.wait_for(reader.read(65_536), WITHIN_S):
                pass
        writer.close()


async def test_handshakes_and_seals_that_never_end(tmp_path: Path, remote: WorkerNode) -> None:
    port = free_ports(1)
    async with node(tmp_path) as workers:
        workers.may_answer.set()
        await workers.start(port, 1)
        pid = workers.processes[0].pid
        await dial(remote, workers, port)
        first = rss_bytes(pid, "VmRSS")
        print(f"\nat rest {first / MIB:.0f} MiB")
        for attack, allowed_bytes in (
            (handshakes_again_and_again, MAX_HALF_OPEN * 8 * 1024),
            (seals_that_never_end, SEALS * KEPT_A_SEAL_BYTES),
        ):
            before = rss_bytes(pid, "VmRSS")
            forget_peak(pid)
            await attack(port)
            most = rss_bytes(pid, "VmHWM") - before
            print(f"{attack.__name__.replace('_', ' ')}: most {most / MIB:+.1f} MiB, {refused(workers)}")
            assert most < allowed_bytes + SLACK_BYTES, attack.__name__
        await until(lambda: refused(workers).get("unauthenticated") == SEALS, WITHIN_S)
        # The honest peer has lost nothing by it.
        link = remote.subjects.link(WIRE, workers.identity.token)
        call = SendRequest(b"r" * 16, "manager-1", 1, RequestChunk("a-chunk"))
        await remote.caller.request(link, call, Accepted, timeout_s=10.0)
        await until(lambda: len(remote.answers) == 1, WITHIN_S)
