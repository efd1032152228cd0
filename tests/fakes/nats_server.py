"""A real nats-server for tests: the one in the virtual environment, on a free loopback port, JetStream in a folder.

    async with nats_server(tmp_path) as server:
        bus = await nats_bus.connect(server.url, "chunk-1")

`stop`, `start`, `kill`, `freeze` and `thaw` act on this one process, by its id.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.ports import free_port

READY_TIMEOUT_S = 10.0
POLL_S = 0.02

PLAIN = """
jetstream {{ store_dir: "{store}", max_file_store: 1GB, max_memory_store: 256MB }}
max_payload: 2MB
max_pending: 64MB
ping_interval: "2s"
ping_max: 2
"""
"""Everyone may do everything, in one account. Limits as in production (docs/limits.md)."""


@dataclass
class NatsServer:
    """config: nats-server's own syntax; `{store}` in it is replaced by the JetStream folder."""

    directory: Path
    config: str = PLAIN
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start (again, on the same port and folder) and wait until it accepts connections."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "nats.conf"
        path.write_text(self.config.format(store=self.directory / "jetstream"))
        with (self.directory / "nats.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).parent / "nats-server"),
                *("-a", "127.0.0.1", "-p", str(self.port), "-c", str(path)),
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not await self._accepts():
                if self.process.returncode is not None:
                    raise RuntimeError("nats-server ended: " + (self.directory / "nats.log").read_text()[-2000:])
                await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def _accepts(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        line = await reader.readline()
        writer.close()
        return line.startswith(b"INFO")


@asynccontextmanager
async def nats_server(directory: Path, config: str = PLAIN) -> AsyncIterator[NatsServer]:
    """A running server; killed, by its process id, at the end."""
    server = NatsServer(directory, config)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()
