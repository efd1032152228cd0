"""The demo's story: files go from A to B while their transports are killed, switched off and brought back.

Every turn is driven by what the nodes report over their HTTP API, as a person would drive it; the story knows
of no transport's inside. It waits for what it wants to see, moving one more file where one was not enough to see it,
and assumes no speed: its limits are for what will never come.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.supervisor.demo.report import CONFIRMED, SLOW_FACTOR, FaultAnswer, FileResult, answer_to, ended_on
from services.supervisor.demo.view import View
from shared.clock import unix_ms
from shared.gateway_api.async_client import AsyncGatewayClient
from shared.gateway_api.structs import HopView, Transfer, TransportStats
from shared.transports import TransportName

MIB = 2**20
POLL_INTERVAL_S = 0.02
"""Over TCP a chunk takes some milliseconds; a fault must hit the middle of a file."""
SLOW_POLL_INTERVAL_S = 0.1
STALLED_AFTER_S = 120.0
"""No progress for longer than every breaker, hedge and dial of the manager together, on a machine with work for ten."""
GIVE_UP_S = 180.0
"""For what takes some seconds on an idle machine: the primary's return, an answer to a fault."""
CHUNKS_BEFORE_KILL = 8
AGAIN_SIZE_MIB = 8
MAX_HOPS = 5_000
"""The gateway keeps no more."""
HOPS_SETTLE_S = 3.0
"""The hops stream is written behind the receipts: its last records have come where none came for so long."""
FLAG_WEBTORRENT = "webTorrentTransport"


class StoryFailed(Exception):
    """It did not hold; the text says what, without naming content."""


class Actor(Protocol):
    """What the story can do to a node; `Node` is one."""

    @property
    def api(self) -> AsyncGatewayClient: ...

    async def kill(self, service: str) -> None: ...

    def revive(self, service: str) -> None: ...


@dataclass(frozen=True)
class Fault:
    """Something that happens to the nodes when `after_chunks` chunks of a file are confirmed.

    lost: the transport that it takes away. taken_over_by: one that must carry chunks afterwards, None for any.
    """

    text: str
    lost: TransportName
    taken_over_by: TransportName | None
    after_chunks: int
    strike: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Part:
    """One file's part in the story."""

    label: str
    source: Path
    fault: Fault | None = None


@dataclass
class Pace:
    """How busy the machine is, by work that was done anyway: its time by the clock over its CPU time."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def slowdown(self) -> float:
        return max(1.0, self.wall_s / self.cpu_s) if self.cpu_s else 1.0


@dataclass
class Happened:
    """What the story found so far, in order; also where it failed in the middle."""

    files: list[FileResult] = field(default_factory=list)
    hops: list[list[HopView]] = field(default_factory=list)
    faults: list[FaultAnswer] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)


class Story:
    """Tells the story once. `happened` holds what happened, whether `tell` returned or raised."""

    def __init__(self, a: Actor, b: Actor, view: View, sources: Path, size_mib: int, extra: list[Path]) -> None:
        self._a = a
        self._b = b
        self._view = view
        self._sources = sources
        self._size_mib = size_mib
        self._extra = extra
        self.happened = Happened()

    async def tell(self) -> None:
        """Raises: StoryFailed; GatewayError where a gateway refuses."""
        await self._meet()
        first = self._random_file("file 1", self._size_mib)
        second = self._random_file("file 2", self._size_mib)
        third = self._random_file("file 3", self._size_mib)
        await self._move(Part("file 1", first))
        chunks = _chunks(self._size_mib)
        killed = Fault(
            "the webrtc workers of both nodes are killed (SIGKILL)",
            TransportName.WEBRTC,
            None,
            min(CHUNKS_BEFORE_KILL, chunks // 3),
            self._kill_webrtc,
        )
        await self._suffer(Part("file 2", second, killed), killed)
        switched = Fault(
            "webtorrent is switched off by its flag on A",
            TransportName.WEBTORRENT,
            TransportName.BROADCAST,
            max(1, chunks // 2),
            self._switch_webtorrent_off,
        )
        await self._suffer(Part("file 3", third, switched), switched)
        await self._bring_back()
        for number, path in enumerate(self._extra, start=1):
            await self._move(Part(f"your file {number}", path))

    async def _suffer(self, part: Part, fault: Fault) -> None:
        """Move a file into which the fault strikes, and more until the answer to it is seen.

        One may not be enough: on a fast machine it is over before the fault strikes, on a slow one a hedge has
        everything in flight on another transport at that moment.
        """
        struck_ms, hops = await self._move(part)
        carried = set(self.happened.files[-1].by_transport)
        give_up_s = time.monotonic() + GIVE_UP_S
        number = 0
        while True:
            found = answer_to(fault.text, fault.lost, struck_ms, hops)
            seen = found.explained or found.unexplained
            if seen and (fault.taken_over_by is None or fault.taken_over_by in carried):
                break
            if time.monotonic() > give_up_s:
                break  # the checks say what is missing
            number += 1
            _, more = await self._move(self._once_more(part.label, number))
            hops = [*hops, *more]
            carried |= set(self.happened.files[-1].by_transport)
        self.happened.faults.append(found)

    def _once_more(self, label: str, number: int) -> Part:
        name = f"{label}, more {number}"
        return Part(name, self._random_file(name, AGAIN_SIZE_MIB))

    async def _meet(self) -> None:
        """Let the nodes find each other over one chunk, so that what follows shows transports and not dialling."""
        await self._move(Part("hello", self._random_file("hello", 1)))
        await self._until(self._webrtc_linked, "the nodes were not linked over webrtc")

    async def _kill_webrtc(self) -> None:
        await asyncio.gather(self._a.kill("webrtc"), self._b.kill("webrtc"))

    async def _switch_webtorrent_off(self) -> None:
        await self._a.api.set_flag(FLAG_WEBTORRENT, False)

    async def _bring_back(self) -> None:
        """Start the webrtc workers again and wait until the nodes are linked over it, and it carries chunks."""
        # Else a killed worker's last heartbeat would pass for a new one's.
        await self._until(self._webrtc_gone, "the killed webrtc workers were still counted")
        started_s = time.monotonic()
        self._view.say("webrtc is started again on both nodes, webtorrent is switched on again")
        self._a.revive("webrtc")
        self._b.revive("webrtc")
        await self._a.api.set_flag(FLAG_WEBTORRENT, True)
        await self._until(self._webrtc_linked, "webrtc was not back")
        self._view.say(f"webrtc is back after {time.monotonic() - started_s:.1f} s")
        part = Part("file 4", self._random_file("file 4", AGAIN_SIZE_MIB))
        number = 0
        give_up_s = time.monotonic() + GIVE_UP_S
        while True:
            await self._move(part)
            if TransportName.WEBRTC in self.happened.files[-1].by_transport:
                return
            if time.monotonic() > give_up_s:
                raise StoryFailed(f"webrtc was back, and carried nothing within {GIVE_UP_S:.0f} s")
            number += 1
            part = self._once_more("file 4", number)

    async def _until(self, holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        try:
            async with asyncio.timeout(GIVE_UP_S):
                while not await holds():  # noqa: ASYNC110 - another process knows it, there is no event to wait for
                    await asyncio.sleep(SLOW_POLL_INTERVAL_S)
        except TimeoutError:
            raise StoryFailed(f"{otherwise} within {GIVE_UP_S:.0f} s") from None

    async def _webrtc_gone(self) -> bool:
        return all(webrtc.workers == 0 for webrtc in await self._webrtc())

    async def _webrtc_linked(self) -> bool:
        return all(webrtc.workers > 0 and webrtc.connected_peers > 0 for webrtc in await self._webrtc())

    async def _webrtc(self) -> list[TransportStats]:
        return [(await node.api.transports())[TransportName.WEBRTC] for node in (self._a, self._b)]

    async def _move(self, part: Part) -> tuple[int, list[HopView]]:
        """Put a file on A, get it on B, and keep what is to be known of it.

        Returns: when its fault struck, in ms of the wall clock (0 where it has none), and its hops on B.
        """
        source_sha256 = await self._sha256(part.source)
        link = await self._put(part)
        started_s = time.monotonic()
        done, struck_ms = await self._fetch(part, link)
        seconds = time.monotonic() - started_s
        assert done.manifest
        hops = await self._hops(done)
        content_sha256 = await self._b.api.content_sha256(done.manifest)
        result = FileResult(
            label=part.label,
            bytes=done.bytes_total,
            seconds=round(seconds, 2),
            chunks=done.chunks_total,
            by_transport={name: count for name, count in done.by_transport.items() if count},
            ended_on=ended_on(hops),
            sha256_ok=content_sha256 == source_sha256,
        )
        self.happened.files.append(result)
        self.happened.hops.append(hops)
        self._view.moved(result)
        return struck_ms, hops

    async def _sha256(self, path: Path) -> str:
        """Of a file; and a look at the clocks, to say once when the machine has other things to do."""
        pace = self.happened.pace
        was_slow = pace.slowdown > SLOW_FACTOR
        digest, wall_s, cpu_s = await asyncio.to_thread(_timed_sha256, path)
        pace.wall_s += wall_s
        pace.cpu_s += cpu_s
        if pace.slowdown > SLOW_FACTOR and not was_slow:
            self._view.say(
                f"this machine is busy: work takes {pace.slowdown:.1f} times its CPU time; everything takes longer "
                "and is judged alike"
            )
        return digest

    async def _confirmed_chunks(self, transfer_id: str) -> int:
        """Chunks that the hops stream says are confirmed; progress is reported ten times a second only.

        Over TCP that would be too late: all of a file may be on its way by then. One delivery is the manifest's.
        """
        hops = await self._b.api.hops(transfer_id, MAX_HOPS)
        return len({one.delivery for one in hops if one.outcome == CONFIRMED}) - 1

    async def _put(self, part: Part) -> str:
        transfer_id = await self._a.api.put(part.source, part.source.name)
        done = await self._until_done(self._a.api, transfer_id, f"putting {part.label} on A", lambda _: None)
        if not done.link:
            raise StoryFailed(f"A gave no link to {part.label}")
        return done.link

    async def _fetch(self, part: Part, link: str) -> tuple[Transfer, int]:
        """Get it on B; the fault strikes on the way, or at the end where the way was too short."""
        strike = _Strike(part, self._view)
        carrier = _Carrier()
        self._view.moving(part.label)
        transfer_id = await self._b.api.fetch(link)

        async def progressed(now: Transfer) -> None:
            self._view.progress(part.label, now, carrier.of(now))
            if strike.pending and now.state == "running":
                await strike.when_due(max(now.chunks_done, await self._confirmed_chunks(transfer_id)), now.chunks_total)

        done = await self._until_done(self._b.api, transfer_id, f"getting {part.label} on B", progressed)
        await strike.at_last(done.chunks_total)
        return done, strike.struck_ms

    async def _until_done(
        self,
        api: AsyncGatewayClient,
        transfer_id: str,
        what: str,
        progressed: Callable[[Transfer], Awaitable[None] | None],
    ) -> Transfer:
        last_count, last_s = -1, time.monotonic()
        while True:
            now = await api.transfer(transfer_id)
            pending = progressed(now)
            if pending is not None:
                await pending
            if now.state == "done":
                return now
            if now.state == "failed":
                raise StoryFailed(f"{what} failed: {now.cause or 'other'}")
            if now.bytes_done != last_count:
                last_count, last_s = now.bytes_done, time.monotonic()
            elif time.monotonic() - last_s > STALLED_AFTER_S:
                raise StoryFailed(f"{what} stalled for {STALLED_AFTER_S:.0f} s at {now.chunks_done} chunks")
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _hops(self, done: Transfer) -> list[HopView]:
        """B's hops of the transfer, once those of every chunk are there, or no more come."""
        count, last_s = -1, time.monotonic()
        while True:
            hops = await self._b.api.hops(done.id, MAX_HOPS)
            confirmed = {one.delivery for one in hops if one.outcome == CONFIRMED}
            if len(hops) != count:
                count, last_s = len(hops), time.monotonic()
            if len(confirmed) >= done.chunks_total or time.monotonic() - last_s > HOPS_SETTLE_S:
                return hops
            await asyncio.sleep(SLOW_POLL_INTERVAL_S)

    def _random_file(self, label: str, size_mib: int) -> Path:
        path = self._sources / f"{label.replace(' ', '-')}.bin"
        with path.open("wb") as file:
            for _ in range(size_mib):
                file.write(os.urandom(MIB))
        return path


class _Strike:
    """Lets a part's fault happen once, when it is due."""

    def __init__(self, part: Part, view: View) -> None:
        self._part = part
        self._view = view
        self.pending = part.fault is not None
        self.struck_ms = 0

    async def when_due(self, confirmed_chunks: int, chunks_total: int) -> None:
        fault = self._part.fault
        if fault is not None and fault.after_chunks <= confirmed_chunks < chunks_total:
            await self._strike(fault, confirmed_chunks)

    async def at_last(self, chunks: int) -> None:
        """A machine that moves the whole file between two looks gets its fault all the same; the next file feels it."""
        if self.pending and self._part.fault is not None:
            await self._strike(self._part.fault, chunks)

    async def _strike(self, fault: Fault, confirmed_chunks: int) -> None:
        self.pending = False
        self.struck_ms = unix_ms()
        await fault.strike()
        self._view.fault(f"{fault.text}, {confirmed_chunks} chunks of {self._part.label} being confirmed")


class _Carrier:
    """Which transport carries now: the one whose confirmed bytes grew last."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._name = ""

    def of(self, now: Transfer) -> str:
        grown = {name: count - self._last.get(name, 0) for name, count in now.by_transport.items()}
        if any(count > 0 for count in grown.values()):
            self._name = max(grown, key=lambda name: grown[name])
        self._last = dict(now.by_transport)
        return self._name


def _chunks(size_mib: int) -> int:
    """swarm-space's chunks are 1 MiB of plaintext."""
    return size_mib


def _timed_sha256(path: Path) -> tuple[str, float, float]:
    """Returns: the digest, and how long it took by the clock and in CPU time, in seconds."""
    wall_s, cpu_s = time.monotonic(), time.thread_time()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, time.monotonic() - wall_s, time.thread_time() - cpu_s
