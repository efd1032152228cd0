"""Two processes at the ends of one transfer, as this process drives them.

An end says one line of JSON when it serves (what the other needs to reach it), or when it is loaded and waits. The
receiver begins at a line on its standard input and says one line when all has come:
`{"firstByteS": s, "seconds": s}`, both since it began. An end leaves when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.settings.config import child_environment

ROOT = Path(__file__).resolve().parents[3]
READY_LIMIT_S = 30.0
TRANSFER_LIMIT_S = 600.0
END_LIMIT_S = 5.0
LOG_CHARACTERS = 600


class LegFailed(Exception):
    """An end died, or did not finish in time; the text is what it said last."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One transfer. first_byte_s, seconds: since the receiver began. cpu_s: of all processes of the leg.

    measures: what the receiver's transport counted when the last byte had come.
    """

    size_bytes: int
    first_byte_s: float
    seconds: float
    cpu_s: float
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def mb_per_s(self) -> float:
        """From the first byte to the last, 10^6 bytes a second: how the ends met is in first_byte_s."""
        return self.size_bytes / 1e6 / max(self.seconds - self.first_byte_s, 1e-9)

    @property
    def cpu_s_per_gb(self) -> float:
        return self.cpu_s / (self.size_bytes / 1e9)


class End:
    """One process of a leg."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    async def heard(self, limit_s: float = READY_LIMIT_S) -> dict[str, Any]:
        """Its next line. Raises: LegFailed."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(limit_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise LegFailed(f"{self._log.stem}: {self._log.read_text()[-LOG_CHARACTERS:] or 'silent'}")
        said: dict[str, Any] = json.loads(line)
        return said

    async def begin(self) -> dict[str, Any]:
        """Let the receiver begin, and wait for its result. Raises: LegFailed."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"{}\n")
        return await self.heard(TRANSFER_LIMIT_S)

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def end(command: Sequence[str], options: dict[str, Any], log: Path, cwd: Path = ROOT) -> AsyncIterator[End]:
    """Start one end; it is gone afterwards. log: takes what it says on standard error."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*command, json.dumps(options)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=cwd,
            env=child_environment({"PYTHONPATH": str(ROOT)}),
        )
    started = End(process, log)
    try:
        yield started
    finally:
        await started.close()


async def transfer(receiver: End, others: Iterable[int], size_bytes: int) -> Taken:
    """Let the receiver fetch. others: processes whose CPU counts beside its own. Raises: LegFailed."""
    pids = [receiver.pid, *others]
    before_s = cpu_s(pids)
    said = await receiver.begin()
    return Taken(size_bytes, said["firstByteS"], said["seconds"], cpu_s(pids) - before_s, said.get("measures", {}))


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds so far of processes that are alive; Linux only."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])  # utime, stime: fields 14 and 15 of proc_pid_stat(5)
    return ticks / os.sysconf("SC_CLK_TCK")
