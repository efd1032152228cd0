"""How much memory a worker takes while it is attacked, by as many wires as it lets in. Prints its figures (`-s`).

The worker is a process of its own: what the attacker keeps is not counted. Bounds are from the limits, and generous.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.webtorrent.connection import HIGH_MARK_BYTES
from services.webtorrent.endpoints import Endpoint, parse_endpoint
from services.webtorrent.limits import MAX_HALF_OPEN, MAX_LINKS, MAX_LINKS_PER_ADDRESS
from services.webtorrent.swarm import MAX_KNOWN
from shared.wire.wstracker.messages import MAX_MESSAGE_BYTES
from tests.services.webtorrent.raw_peer import SWARM_SPACE, extended, handshake
from tests.services.webtorrent.swarm_parts import TrackerServer, tracker_server, write_document
from tests.services.webtorrent.test_hostile import BOMBS, FLOOD, OVERSIZE, REQUEST
from tests.services.webtorrent.test_poisoned import FORBIDDEN, LyingDhtNode, lying_dht, relayed_offer, say

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory a process has"),
]

MIB = 2**20
FRAME_BYTES = 66 * 1024
SLOW_READERS = 64
SETTLE_S = 0.5
SLACK_BYTES = 48 * MIB
"""What the interpreter, libtorrent and the allocator may take beside what the limits allow."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Victim:
    pid: int
    endpoint: Endpoint
    tracker: TrackerServer
    dht: LyingDhtNode
    open: list[Streams]

    def rss_bytes(self, which: str) -> int:
        """which: VmRSS now, VmHWM the most since `forget_peak`."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{which}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the worker has ended")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    async def wire(self, number: int, opening: bytes) -> Streams:
        """Each MAX_LINKS_PER_ADDRESS from another address. Waits for the worker's handshake or its end."""
        source = (f"127.0.1.{1 + number // MAX_LINKS_PER_ADDRESS}", 0)
        streams = await asyncio.open_connection(*self.endpoint, local_addr=source)
        self.open.append(streams)
        streams[1].write(opening)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await streams[0].readexactly(68)
        return streams

    async def hang_up(self) -> None:
        """Every wire of the attacker ends, and the worker has a moment to notice."""
        for _, writer in self.open:
            writer.transport.abort()
        self.open.clear()
        await asyncio.sleep(SETTLE_S)


@asynccontextmanager
async def victim(folder: Path) -> AsyncIterator[Victim]:
    poison = [(f"127.0.{10 + number // 100}.{number % 100 + 1}", 9) for number in range(150)]
    async with AsyncExitStack() as stack:
        tracker = await stack.enter_async_context(tracker_server())
        address, dht = await stack.enter_async_context(lying_dht(poison))
        document = write_document(folder / "document.json", trackers=[tracker.url], dht_nodes=[address])
        module = "tests.services.webtorrent.lone_worker"
        command = [sys.executable, "-m", module, str(document)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            endpoint = parse_endpoint((await process.stdout.readline()).decode().strip())
            assert endpoint is not None
            one = Victim(process.pid, endpoint, tracker, dht, [])
            async with asyncio.timeout(30):
                while not (tracker._sockets and dht.lookups):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)
            yield one
            await one.hang_up()
            process.stdin.close()
            assert await asyncio.wait_for(process.wait(), 30) == 0, "it ended by itself, in order"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def peer(number: int) -> bytes:
    return handshake(b"-XX0001-%012d" % number)


async def long_messages(one: Victim) -> None:
    """Every wire that there may be keeps a message of the longest kind that never ends."""
    for number in range(MAX_LINKS):
        _, writer = await one.wire(number, peer(number) + SWARM_SPACE)
        writer.write(extended(bytes(FRAME_BYTES), extended_id=1)[:-1])
        await writer.drain()


async def lengths_over_the_limit(one: Victim) -> None:
    for number in range(1_000):
        await one.wire(number % MAX_LINKS, peer(number) + OVERSIZE + bytes(10_000))
        await finish(one)


async def bencode_bombs(one: Victim) -> None:
    for number in range(1_000):
        await one.wire(number % MAX_LINKS, peer(number) + extended(BOMBS[number % len(BOMBS)][0]))
        await finish(one)


async def endless_handshakes(one: Victim) -> None:
    for number in range(MAX_HALF_OPEN):
        await one.wire(number, peer(number) + extended(bytes(8_000))[:-1])


async def another_infohash(one: Victim) -> None:
    for number in range(1_000):
        await one.wire(number % MAX_LINKS, handshake(infohash=os.urandom(20)))
        await finish(one)


async def one_id_for_all(one: Victim) -> None:
    for number in range(1_000):
        await one.wire(number % MAX_LINKS, peer(0) + SWARM_SPACE)


async def requests_for_pieces(one: Victim) -> None:
    for number in range(256):
        _, writer = await one.wire(number, peer(number) + SWARM_SPACE + REQUEST * FLOOD)
        with suppress(ConnectionError):
            await writer.drain()


async def slow_readers(one: Victim) -> None:
    for number in range(SLOW_READERS):
        reader, writer = await one.wire(number, peer(number) + SWARM_SPACE)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(extended(b"go on", extended_id=1))
    await asyncio.sleep(1.0)


async def a_lying_tracker(one: Victim) -> None:
    for number in range(2_000):
        await say(one.tracker, relayed_offer(number, **{"swarm-space": {"wire": FORBIDDEN}}))
    long = json.dumps({"action": "announce", "info_hash": "x" * 20, "offer": "x" * (MAX_MESSAGE_BYTES - 200)})
    for _ in range(500):
        await say(one.tracker, long)


async def a_lying_dht(one: Victim) -> None:
    """150 endpoints an answer, other ones each time: of these 50 are taken, and MAX_KNOWN kept in all."""
    before = one.dht.lookups
    one.dht.change_peers = True
    async with asyncio.timeout(60):
        while one.dht.lookups < before + 2:
            await asyncio.sleep(0.1)


async def finish(one: Victim) -> None:
    reader, writer = one.open.pop()
    with suppress(ConnectionError):
        while await asyncio.wait_for(reader.read(65_536), 30):
            pass
    writer.close()


ATTACKS: list[tuple[Callable[[Victim], Awaitable[None]], int]] = [
    (lengths_over_the_limit, 0),
    (bencode_bombs, 0),
    (endless_handshakes, MAX_HALF_OPEN * 8 * 1024),
    (another_infohash, 0),
    (one_id_for_all, 0),
    (requests_for_pieces, 0),
    (slow_readers, SLOW_READERS * (HIGH_MARK_BYTES + 2 * 65_535)),
    (a_lying_tracker, 0),
    (a_lying_dht, MAX_KNOWN * 1024),
    (long_messages, MAX_LINKS * FRAME_BYTES),
    (long_messages, 0),
]
"""With the most bytes that the limits let it make the worker keep; what it took once serves the second time."""


async def test_memory_stays_within_what_the_limits_allow(tmp_path: Path) -> None:
    async with victim(tmp_path) as one:
        first = one.rss_bytes("VmRSS")
        print(f"\nat rest {first / MIB:.0f} MiB")
        for attack, allowed_bytes in ATTACKS:
            before = one.rss_bytes("VmRSS")
            one.forget_peak()
            await attack(one)
            await asyncio.sleep(SETTLE_S)
            most = one.rss_bytes("VmHWM") - before
            await one.hang_up()
            after = one.rss_bytes("VmRSS") - before
            name = attack.__name__.replace("_", " ")
            print(f"{name}: most {most / MIB:+.1f} MiB, after it {after / MIB:+.1f} MiB")
            assert most < allowed_bytes + SLACK_BYTES, name
        last = one.rss_bytes("VmRSS")
        print(f"at the end {last / MIB:.0f} MiB")
        assert last - first < 3 * SLACK_BYTES
