"""A TCP relay that keeps every byte that passes: what somebody between two nodes sees."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class TcpTap:
    """Relays each connection to `host:port`. seen: everything, both ways."""

    def __init__(self, host: str, port: int) -> None:
        self.seen = bytearray()
        self.connection_count = 0
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1") -> str:
        """Returns: `host:port` to connect to."""
        self._server = await asyncio.start_server(self._accept, host, 0)
        address = self._server.sockets[0].getsockname()
        return f"{address[0]}:{address[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._relay(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                self.seen += data
                target.write(data)
                await target.drain()
        target.close()
