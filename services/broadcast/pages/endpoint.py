"""Where pages come: their script and their sockets, on one port that the workers of a node share.

    {url}/broadcast.js   the script, for pages of any origin: it holds nothing, and its socket is refused elsewhere
    {url}/pages          the socket; `?token=`

With a port of its own (not 0) the port is opened with SO_REUSEPORT: the system spreads new sockets over the workers,
and one that is gone gets none.

Cancellation: `close` stops listening first, so that pages that are sent away (1001) come to another worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
from collections.abc import Callable
from importlib import resources

from aiohttp import web
from aiohttp.typedefs import Handler

from services.broadcast.pages.limits import (
    DRAIN_S,
    MAX_FRAME_BYTES,
    MAX_SOCKETS,
    PAGE_BURST,
    PAGE_MESSAGES_PER_S,
    PAGE_PING_S,
    PAGE_QUEUE_BYTES,
    PAGE_QUEUE_MESSAGES,
)
from shared.clock import Clock
from shared.process.listening import local_url
from shared.settings.config import BroadcastSettings
from shared.websocket.admission import Admission
from shared.websocket.forwarded import networks
from shared.websocket.machine import Machine
from shared.websocket.server import SocketLimits, SocketServer

SCRIPT = "broadcast.js"
SOCKETS_PATH = "/pages"
PAGE_SOCKETS = SocketLimits(
    MAX_FRAME_BYTES,
    PAGE_MESSAGES_PER_S,
    PAGE_BURST,
    PAGE_QUEUE_BYTES,
    PAGE_QUEUE_MESSAGES,
    ping_s=PAGE_PING_S,
)
MAX_HEADER_BYTES = 16 * 1024
KEEPALIVE_S = 15.0


class PagesEndpoint:
    """One worker's port for pages. `start`, then `close` once."""

    def __init__(
        self,
        settings: BroadcastSettings,
        token: str,
        machine: Machine,
        clock: Clock,
        on_slowed: Callable[[int], None],
        limits: SocketLimits = PAGE_SOCKETS,
    ) -> None:
        self._settings = settings
        admission = Admission(
            MAX_SOCKETS, settings.max_sockets_per_address, origins=frozenset(settings.origins), token=token
        )
        proxies = networks(settings.trusted_proxies)
        self.sockets = SocketServer("pages", machine, admission, limits, clock, proxies=proxies, on_slowed=on_slowed)
        application = web.Application()
        application.add_routes([web.get(f"/{SCRIPT}", _script()), web.get(SOCKETS_PATH, self.sockets.handle)])
        self._runner = web.AppRunner(
            application,
            access_log=None,  # URLs carry the token
            auto_decompress=False,  # nothing here has a body
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=DRAIN_S,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        self._site: web.TCPSite | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen. Raises: OSError: the port is taken, or the host is not ours."""
        host, port = self._settings.host, self._settings.port
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_port=True if port else None)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._site = site
        self.sockets.start()
        bound_host, bound_port = self._runner.addresses[0][:2]
        self.url = self._settings.url or local_url(bound_host, bound_port)

    async def close(self) -> None:
        """Take no more pages, send away those that are here."""
        if self._site is not None:
            await self._site.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self.sockets.close()
        await self._runner.cleanup()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _script() -> Handler:
    body = resources.files("services.broadcast").joinpath("static", SCRIPT).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "no-cache",
        # A module of another origin is only loaded with both.
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }

    async def handler(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="text/javascript", charset="utf-8", headers=headers)

    return handler
