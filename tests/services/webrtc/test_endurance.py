"""Peers that die or stand still, and links that come and go: noticed in time, and nothing piles up.

CYCLES and MIB may be set in the environment: 200 and 1024 are what is meant, fewer keep a test run short.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from shared.clock import monotonic
from shared.errors import Cause
from shared.rtc import link as rtc_link
from shared.transport.contract import LinkUp
from tests.fakes.waiting import until
from tests.services.webrtc.conftest import MakeNode
from tests.services.webrtc.node import Node
from tests.services.webrtc.peer_server import FakePeerServer
from tests.services.webrtc.remote_end import MIB, RECORD
from tests.services.webrtc.test_workers import ready

CYCLES = int(os.environ.get("CYCLES", "20"))
WARM_UP = 5
SIZE_MIB = int(os.environ.get("MIB", "48"))
GROWTH_MIB = 32
DEAD_AFTER_S = 4.5
SLOW_S = 4.0
"""What a machine with much else to do may add."""
STOPPED_S = 2.0


@asynccontextmanager
async def remote_peer(node: Node, server: FakePeerServer, folder: Path, *flags: str) -> AsyncIterator[Far]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.services.webrtc.remote_end", str(folder), str(server.port), node.key.hex(), *flags),
        stdout=asyncio.subprocess.PIPE,
    )
    far = Far(process)
    try:
        await until(lambda: node.worker.ups, timeout_s=60)
        assert await far.says() == "up"
        yield far
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Far:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def says(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


def _went(node: Node, which: str) -> bool:
    return bool(getattr(node.worker, which))


def rss_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


@pytest.mark.timeout(120)
@pytest.mark.parametrize("flags", [(), ("--send",)])
async def test_a_killed_peer_is_missed(
    make_node: MakeNode, server: FakePeerServer, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Whether it was quiet or in the middle of sending: consent is what ends its link."""
    node = await make_node("near")
    await ready(node)
    async with remote_peer(node, server, tmp_path, *flags) as far:
        far.signal(signal.SIGKILL)
        started = monotonic()
        await until(lambda: node.worker.downs, timeout_s=DEAD_AFTER_S + SLOW_S)
        print(f"missed after {monotonic() - started:.1f} s")
        assert node.worker.downs[0].cause is Cause.CLOSED
        assert not node.worker.transport.meeting_places()[0].cause


@pytest.mark.timeout(300)
async def test_open_and_close_leave_nothing(make_node: MakeNode) -> None:
    a, b = await make_node("a"), await make_node("b")
    await ready(a, b)
    seen: list[tuple[int, int, float]] = []
    for cycle in range(WARM_UP + CYCLES):
        # A source may make two OFFERs a second for long; what is measured here is what a link leaves behind.
        dialer, listener = (a, b) if cycle % 2 else (b, a)
        dialer.worker.events.clear()
        listener.worker.events.clear()
        while not dialer.worker.ups:
            with contextlib.suppress(Exception):
                await dialer.worker.transport.dial(listener.hint, 3)
            await asyncio.sleep(0.05)
        await until(partial(_went, listener, "ups"))
        await dialer.worker.transport.send(dialer.worker.ups[0].link, RECORD)
        await dialer.worker.transport.close(dialer.worker.ups[0].link, Cause.CLOSED)
        await until(partial(_went, a, "downs"))
        await until(partial(_went, b, "downs"))
        if cycle >= WARM_UP:
            await until(lambda: not any(task.get_name().startswith("rtc") for task in asyncio.all_tasks()))
            seen.append((len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), rss_mib()))
    tasks, handles, memory = zip(*seen, strict=True)
    print(f"{CYCLES} cycles: tasks {tasks[0]} -> {tasks[-1]}, handles {handles[0]} -> {handles[-1]}", end=", ")
    print(f"memory {memory[0]:.1f} -> {memory[-1]:.1f} MiB")
    assert min(tasks[-5:]) <= max(tasks[:5])
    assert min(handles[-5:]) <= max(handles[:5])
    assert memory[-1] - memory[0] < GROWTH_MIB


@pytest.mark.timeout(1200)
async def test_a_stopped_peer_costs_little_memory_and_loses_nothing(
    make_node: MakeNode, server: FakePeerServer, tmp_path: Path
) -> None:
    """Stopped for less than consent lasts: `send` waits, and everything arrives once it goes on. SIZE_MIB a link."""
    node = await make_node("near")
    await ready(node)
    async with remote_peer(node, server, tmp_path) as far:
        [up] = [event for event in node.worker.events if isinstance(event, LinkUp)]
        transport, sent = node.worker.transport, 0
        before = most = rss_mib()

        async def send_all() -> None:
            nonlocal sent
            while sent < SIZE_MIB * MIB:
                await transport.send(up.link, RECORD)
                sent += len(RECORD)

        sending = asyncio.create_task(send_all())
        await until(lambda: sent > 4 * MIB, timeout_s=60)
        far.signal(signal.SIGSTOP)
        stopped_at = monotonic()
        while monotonic() - stopped_at < STOPPED_S:
            await asyncio.sleep(0.1)
            most = max(most, rss_mib())
        held = sent
        await asyncio.sleep(0.2)
        assert sent == held, "the sender waits"
        far.signal(signal.SIGCONT)
        while not sending.done():
            await asyncio.wait({sending}, timeout=1.0)
            most = max(most, rss_mib())
        sending.result()
        async with asyncio.timeout(120):
            while int(await far.says()) < sent - MIB:
                pass
        assert node.worker.downs == []
        print(f"{SIZE_MIB} MiB in one link, stopped in the middle: memory grew by {most - before:.1f} MiB at most")
        assert most - before < GROWTH_MIB
        assert rtc_link.HIGH_MARK_BYTES < GROWTH_MIB * MIB
