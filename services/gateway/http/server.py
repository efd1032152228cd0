"""The HTTP server: the application put together, its socket, and the two files that tell the CLI where it is.

*Cancellation*: `close` stops listening, ends event streams, gives open requests limits.SHUTDOWN_S.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from services.gateway.http import limits
from services.gateway.http.connections import Connections
from services.gateway.http.guard import Guard
from services.gateway.http.page import page_routes
from shared.process.listening import local_url, why_not_listening
from shared.process.run import CannotStart

ADDRESS_FILE = "gateway.json"
TOKEN_FILE = "gateway.token"  # noqa: S105 - a file's name
TOKEN_BYTES = 32
BACKLOG = 128


class HttpServer:
    """One listening socket and its application."""

    def __init__(self, guard: Guard, routes: Iterable[web.RouteDef]) -> None:
        self._application = web.Application(
            middlewares=[self._notify_connections, guard.middleware], client_max_size=limits.MAX_JSON_BYTES
        )
        self._application.add_routes([*routes, *guard.routes(), *page_routes()])
        self._runner = web.AppRunner(
            self._application,
            access_log=None,  # paths hold digests
            keepalive_timeout=limits.KEEPALIVE_S,
            shutdown_timeout=limits.SHUTDOWN_S,
            handler_cancellation=True,  # a caller that went away must not keep a download going
            max_line_size=limits.MAX_HEADER_BYTES,
            max_field_size=limits.MAX_HEADER_BYTES,
            lingering_time=limits.LINGER_S,
            # A few KiB that inflate to gigabytes would hold the loop for all: bodies come as they are or not at all.
            auto_decompress=False,
        )
        guard.on_authenticated = self._authenticated
        self._connections: Connections | None = None
        self._listener: asyncio.Server | None = None
        self.url = ""

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises: CannotStart with the one line for the person who started it."""
        await self._runner.setup()
        assert self._runner.server is not None
        self._connections = Connections(self._runner.server)
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connections, host, port, backlog=BACKLOG
            )
        except OSError as error:
            await self._runner.cleanup()
            raise CannotStart(f"error: {why_not_listening(error, 'gateway', host, port)}") from error
        bound_host, bound_port = self._listener.sockets[0].getsockname()[:2]
        self.url = local_url(bound_host, bound_port)

    @property
    def refused_connections(self) -> int:
        """How often a connection came while all places were taken."""
        return self._connections.refused_count if self._connections is not None else 0

    def _authenticated(self, request: web.BaseRequest) -> None:
        if self._connections is not None:
            self._connections.authenticated(request)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    @web.middleware
    async def _notify_connections(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            if self._connections is not None:
                self._connections.request_ended(request)


def read_token(path: Path) -> str:
    """The operator's token; made, for its owner alone, where there is none yet.

    Raises: CannotStart where the file is empty or cannot be used.
    """
    try:
        if not path.exists():
            _make_token(path)
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise CannotStart(f"error: the token file {path} cannot be used; see its owner and rights") from None
    if not token:
        raise CannotStart(f"error: the token file {path} is empty; remove it and start again")
    return token


def _make_token(path: Path) -> None:
    """Whole or not at all, and never over one that another gateway made in the meantime."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
