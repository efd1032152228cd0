"""The connections of the HTTP server: how many, and how long a request's head may take (docs/limits.md).

aiohttp bounds neither, so each connection's protocol is wrapped: it counts itself, and cuts a connection whose
request line and headers are not complete within HEADER_TIMEOUT_S or MAX_HEADER_BYTES. Bodies and answers are not its
business.

Who has shown the token keeps its place. Where all are taken, the connection that has been here longest without
showing it gives way to the new one, so that no number of strangers' connections keeps the operator out; where all
have shown it, the new one is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web

from services.gateway.http import limits

HEAD_END = b"\r\n\r\n"


class Connections:
    """A protocol factory for `loop.create_server`, around aiohttp's."""

    def __init__(self, server: Callable[[], asyncio.Protocol], max_connections: int = limits.MAX_CONNECTIONS) -> None:
        self._server = server
        self._max_connections = max_connections
        self._open: dict[asyncio.BaseProtocol, _Connection] = {}
        self.refused_count = 0

    def __len__(self) -> int:
        return len(self._open)

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self, self._server())

    def admit(self, connection: _Connection, inner: asyncio.Protocol) -> bool:
        if len(self._open) >= self._max_connections:
            self.refused_count += 1
            stranger = next((inner for inner, one in self._open.items() if not one.authenticated), None)
            if stranger is None:
                return False
            self._open.pop(stranger).abort()
        self._open[inner] = connection
        return True

    def authenticated(self, request: web.BaseRequest) -> None:
        """The request showed the token or a session: its connection gives way to nobody."""
        connection = self._open.get(cast(asyncio.BaseProtocol, request.protocol))
        if connection is not None:
            connection.authenticated = True

    def forget(self, inner: asyncio.Protocol) -> None:
        self._open.pop(inner, None)

    def request_ended(self, request: web.BaseRequest) -> None:
        """What comes next on this connection is the head of another request, unless a body is still coming."""
        connection = self._open.get(cast(asyncio.BaseProtocol, request.protocol))
        if connection is not None and request.content.is_eof():
            connection.expect_head()


class _Connection(asyncio.Protocol):
    """States: expecting a head (timer runs from its first byte; for the first head from the start), or not."""

    def __init__(self, owner: Connections, inner: asyncio.Protocol) -> None:
        self.authenticated = False
        self._owner = owner
        self._inner = inner
        self._admitted = False
        self._transport: asyncio.Transport | None = None
        self._head: bytearray | None = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._admitted = self._owner.admit(self, self._inner)
        if not self._admitted:
            self._transport.abort()
            return
        self._arm()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._admitted:
            return
        if self._head is not None and not self._head_may_go_on(data):
            assert self._transport is not None
            self._transport.abort()
            return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._admitted else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._admitted:
            self._owner.forget(self._inner)
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def abort(self) -> None:
        """Its place is needed: cut it off; `connection_lost` follows."""
        assert self._transport is not None
        self._transport.abort()

    def expect_head(self) -> None:
        self._head = bytearray()

    def _head_may_go_on(self, data: bytes) -> bool:
        """Track a head until its end. Returns: False when it is too long."""
        assert self._head is not None
        if self._timer is None:
            self._arm()
        self._head += data[: limits.MAX_HEADER_BYTES + 1]
        end = self._head.find(HEAD_END)
        if end < 0:
            return len(self._head) <= limits.MAX_HEADER_BYTES
        self._head = None
        self._disarm()
        return end <= limits.MAX_HEADER_BYTES

    def _arm(self) -> None:
        assert self._transport is not None
        self._timer = asyncio.get_running_loop().call_later(limits.HEADER_TIMEOUT_S, self._transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
