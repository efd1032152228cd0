"""A TCP relay that keeps every byte that passes: what somebody between two nodes sees, and may meddle with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

HANDSHAKE_BYTES = 68
EXTENDED = 20
Meddle = Callable[[bytes], bytes]
"""One BitTorrent message with its length prefix -> what is sent on instead."""


class MessageCutter:
    """Cuts a BitTorrent stream into its handshake and messages (BEP 3)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begun = False

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        whole = []
        while (length := self._next_length()) is not None and len(self._buffer) >= length:
            whole.append(bytes(self._buffer[:length]))
            del self._buffer[:length]
            self._begun = True
        return whole

    def _next_length(self) -> int | None:
        if not self._begun:
            return HANDSHAKE_BYTES
        return 4 + int.from_bytes(self._buffer[:4], "big") if len(self._buffer) >= 4 else None


def is_frame(message: bytes) -> bool:
    """Whether it is an extended message of an extension, not the extended handshake (BEP 10)."""
    return len(message) > 6 and message[4] == EXTENDED and message[5] != 0


class TcpTap:
    """Relays each connection to `host:port`. seen: everything, both ways. meddle: with what comes back."""

    def __init__(self, host: str, port: int) -> None:
        self.seen = bytearray()
        self.meddle: Meddle | None = None
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
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        for source, target, back in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._relay(source, target, back))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, back: bool) -> None:
        cutter = MessageCutter()
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                self.seen += data
                for message in cutter.feed(data):
                    target.write(self.meddle(message) if back and self.meddle else message)
                await target.drain()
        target.close()
