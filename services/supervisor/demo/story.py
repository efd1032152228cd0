"""The demo's story: files go from A to B while their transports are killed, switched off and brought back.

Every turn is driven by what the nodes report over their HTTP API, as a person would drive it; the story knows
of no transport's inside.
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

from services.supervisor.demo.report import CONFIRMED, FileResult, ended_on
from services.supervisor.demo.view import View
from services.supervisor.machine.gateway_client import AttemptView, GatewayClient, TransferView, TransportView
from shared.transports import TransportName

MIB = 2**20
POLL_INTERVAL_S = 0.02
"""Over TCP a chunk takes some milliseconds; a fault must hit the middle of a file."""
SLOW_POLL_INTERVAL_S = 0.1
STALLED_AFTER_S = 45.0
"""No progress for longer than every breaker, hedge and dial of the manager together."""
BACK_WITHIN_S = 15.0
"""The primary is back within 10 s of its recovery (DESIGN 3), and its workers need a start before."""
CHUNKS_BEFORE_KILL = 8
RETURN_SIZE_MIB = 8
MAX_ATTEMPTS = 5_000
"""The gateway keeps no more."""
ATTEMPTS_SETTLE_S = 3.0
"""The attempts stream is written behind the receipts: how long its last records may take to show."""
FLAG_WEBTORRENT = "webTorrentTransport"


class StoryFailed(Exception):
    """It did not hold; the text says what, without naming content."""


class Actor(Protocol):
    """What the story can do to a node; `Node` is one."""

    @property
    def api(self) -> GatewayClient: ...

    async def kill(self, service: str) -> None: ...

    def revive(self, service: str) -> None: ...


@dataclass(frozen=True)
class Fault:
    """Something that happens to the nodes when `after_chunks` chunks of a file are confirmed."""

    text: str
    after_chunks: int
    strike: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Part:
    """One file's part in the story. expected_on: the transport that must carry its end, "" for any."""

    label: str
    source: Path
    expected_on: str
    fault: Fault | None = None


@dataclass
class Told:
    """What the story found so far, in order; also where it failed in the middle."""

    files: list[FileResult] = field(default_factory=list)
    attempts: list[list[AttemptView]] = field(default_factory=list)


class Story:
    """Tells the story once. `told` holds what happened, whether `tell` returned or raised."""

    def __init__(self, a: Actor, b: Actor, view: View, sources: Path, size_mib: int, extra: list[Path]) -> None:
        self._a = a
        self._b = b
        self._view = view
        self._sources = sources
        self._size_mib = size_mib
        self._extra = extra
        self.told = Told()

    async def tell(self) -> None:
        """Raises: StoryFailed; GatewayError where a gateway refuses."""
        await self._meet()
        first = self._random_file("file 1", self._size_mib)
        second = self._random_file("file 2", self._size_mib)
        third = self._random_file("file 3", self._size_mib)
        await self._move(Part("file 1", first, TransportName.WEBRTC))
        killed = Fault("the webrtc workers of both nodes are killed (SIGKILL)", CHUNKS_BEFORE_KILL, self._kill_webrtc)
        await self._move(Part("file 2", second, TransportName.WEBTORRENT, killed))
        half = max(1, _chunks(self._size_mib) // 2)
        switched = Fault("webtorrent is switched off by its flag on A", half, self._switch_webtorrent_off)
        await self._move(Part("file 3", third, TransportName.BROADCAST, switched))
        await self._bring_back()
        await self._move(Part("file 4", self._random_file("file 4", RETURN_SIZE_MIB), TransportName.WEBRTC))
        for number, path in enumerate(self._extra, start=1):
            await self._move(Part(f"your file {number}", path, ""))

    async def _meet(self) -> None:
        """Let the nodes find each other over one chunk, so that what follows shows transports and not dialling."""
        await self._move(Part("hello", self._random_file("hello", 1), ""))
        await self._until(self._webrtc_linked, "the nodes were not linked over webrtc")

    async def _kill_webrtc(self) -> None:
        await asyncio.gather(self._a.kill("webrtc"), self._b.kill("webrtc"))

    async def _switch_webtorrent_off(self) -> None:
        await self._a.api.set_flag(FLAG_WEBTORRENT, False)

    async def _bring_back(self) -> None:
        """Start the webrtc workers again and wait until the nodes are linked over it."""
        # Else a killed worker's last heartbeat would pass for a new one's.
        await self._until(self._webrtc_gone, "the killed webrtc workers were still counted")
        started_s = time.monotonic()
        self._view.say("webrtc is started again on both nodes, webtorrent is switched on again")
        self._a.revive("webrtc")
        self._b.revive("webrtc")
        await self._a.api.set_flag(FLAG_WEBTORRENT, True)
        await self._until(self._webrtc_linked, "webrtc was not back")
        self._view.say(f"webrtc is back after {time.monotonic() - started_s:.1f} s")

    async def _until(self, holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        try:
            async with asyncio.timeout(BACK_WITHIN_S):
                while not await holds():  # noqa: ASYNC110 - another process tells it, there is no event to wait for
                    await asyncio.sleep(SLOW_POLL_INTERVAL_S)
        except TimeoutError:
            raise StoryFailed(f"{otherwise} within {BACK_WITHIN_S:.0f} s") from None

    async def _webrtc_gone(self) -> bool:
        return all(webrtc.workers == 0 for webrtc in await self._webrtc())

    async def _webrtc_linked(self) -> bool:
        return all(webrtc.workers > 0 and webrtc.connected_peers > 0 for webrtc in await self._webrtc())

    async def _webrtc(self) -> list[TransportView]:
        return [(await node.api.transports())[TransportName.WEBRTC] for node in (self._a, self._b)]

    async def _move(self, part: Part) -> None:
        """Put a file on A, get it on B, and keep what is to be known of it."""
        source_sha256 = await asyncio.to_thread(_sha256, part.source)
        link = await self._put(part)
        started_s = time.monotonic()
        done = await self._fetch(part, link)
        seconds = time.monotonic() - started_s
        assert done.manifest
        attempts = await self._attempts(done)
        content_sha256 = await self._b.api.content_sha256(done.manifest)
        result = FileResult(
            label=part.label,
            bytes=done.bytes_total,
            seconds=round(seconds, 2),
            chunks=done.chunks_total,
            by_transport={name: count for name, count in done.by_transport.items() if count},
            expected_on=part.expected_on,
            ended_on=ended_on(attempts),
            sha256_ok=content_sha256 == source_sha256,
        )
        self.told.files.append(result)
        self.told.attempts.append(attempts)
        self._view.moved(result)

    async def _confirmed_chunks(self, transfer_id: str) -> int:
        """Chunks that the attempts stream says are confirmed; progress is told ten times a second only.

        Over TCP that would be too late: all of a file may be on its way by then. One delivery is the manifest's.
        """
        attempts = await self._b.api.attempts(transfer_id, MAX_ATTEMPTS)
        return len({one.delivery for one in attempts if one.outcome == CONFIRMED}) - 1

    async def _put(self, part: Part) -> str:
        transfer_id = await self._a.api.put(part.source, part.source.name)
        done = await self._until_done(self._a.api, transfer_id, f"putting {part.label} on A", lambda _: None)
        if not done.link:
            raise StoryFailed(f"A gave no link to {part.label}")
        return done.link

    async def _fetch(self, part: Part, link: str) -> TransferView:
        """Get it on B; the fault strikes on the way."""
        strike = _Strike(part, self._view)
        carrier = _Carrier()
        self._view.moving(part.label)
        transfer_id = await self._b.api.fetch(link)

        async def progressed(now: TransferView) -> None:
            self._view.progress(part.label, now, carrier.of(now))
            if strike.pending and now.state == "running":
                await strike.when_due(max(now.chunks_done, await self._confirmed_chunks(transfer_id)), now.chunks_total)

        done = await self._until_done(self._b.api, transfer_id, f"getting {part.label} on B", progressed)
        strike.must_have_struck()
        return done

    async def _until_done(
        self,
        api: GatewayClient,
        transfer_id: str,
        what: str,
        progressed: Callable[[TransferView], Awaitable[None] | None],
    ) -> TransferView:
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

    async def _attempts(self, done: TransferView) -> list[AttemptView]:
        """B's hops of the transfer, once those of every chunk are there."""
        give_up_s = time.monotonic() + ATTEMPTS_SETTLE_S
        while True:
            attempts = await self._b.api.attempts(done.id, MAX_ATTEMPTS)
            confirmed = {one.delivery for one in attempts if one.outcome == CONFIRMED}
            if len(confirmed) >= done.chunks_total or time.monotonic() > give_up_s:
                return attempts
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

    async def when_due(self, confirmed_chunks: int, chunks_total: int) -> None:
        fault = self._part.fault
        if fault is not None and fault.after_chunks <= confirmed_chunks < chunks_total:
            self.pending = False
            await fault.strike()
            self._view.fault(f"{fault.text}, {confirmed_chunks} chunks of {self._part.label} being confirmed")

    def must_have_struck(self) -> None:
        if self.pending:
            raise StoryFailed(f"{self._part.label} was over before its fault could strike")


class _Carrier:
    """Which transport carries now: the one whose confirmed bytes grew last."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._name = ""

    def of(self, now: TransferView) -> str:
        grown = {name: count - self._last.get(name, 0) for name, count in now.by_transport.items()}
        if any(count > 0 for count in grown.values()):
            self._name = max(grown, key=lambda name: grown[name])
        self._last = dict(now.by_transport)
        return self._name


def _chunks(size_mib: int) -> int:
    """swarm-space's chunks are 1 MiB of plaintext (FACTS 2)."""
    return size_mib


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
