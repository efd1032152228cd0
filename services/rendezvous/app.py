"""The rendezvous put together: PeerServer, WebSocket tracker, document and health on one port.

    {path}                 tracker (WebSocket), else a few words about the server
    {path}announce         tracker (WebSocket), with or without a slash at its end
    {path}peerjs           PeerServer (WebSocket)
    {path}{key}/id         a fresh random id, whatever the key, as peer does
    {path}{key}/peers      the registered ids; 401 unless `rendezvous.list_peers`
    OPTIONS of any         what another origin's page may do
    {path}rendezvous.json  the document
    /healthz               counts

Alone it needs no bus. With one, all instances are one meeting place (`instances`).

Cancellation: `close` drains: new sockets get 503, open ones 1001, and what has not ended by DRAIN_S is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid

from aiohttp import web

from services.rendezvous.document import DocumentSource
from services.rendezvous.instances import Instances
from services.rendezvous.limits import (
    DRAIN_S,
    KEEPALIVE_S,
    MAX_HEADER_BYTES,
    MAX_LINE_BYTES,
    PEER_SOCKETS,
    TRACKER_SOCKETS,
)
from services.rendezvous.machines import PeerServerMachine, TrackerMachine
from shared.bus.contract import Bus
from shared.clock import Clock, monotonic
from shared.errors import Cause, TransportError
from shared.process.listening import local_url, why_not_listening
from shared.settings.config import RendezvousSettings
from shared.tasks.ending import end_tasks
from shared.websocket.admission import Admission
from shared.websocket.forwarded import Network, networks
from shared.websocket.server import SocketLimits, SocketServer
from shared.wire.peerjs.server import DEFAULT_KEY, PeerServer
from shared.wire.wstracker.tracker import Tracker

NAME = "swarmbridge rendezvous"
DESCRIPTION = (
    "A place to meet: PeerServer signalling for PeerJS clients and a WebSocket tracker for WebTorrent clients."
)
WEBSITE = "https://peerjs.com/"
"""Of the protocol; clients and monitors look for these three keys, which npm's `peer` has."""
ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}
"""Pages of any origin meet here; nothing that is served depends on who asks."""
PREFLIGHT = {
    **ANY_ORIGIN,
    "Access-Control-Allow-Methods": "GET,HEAD,OPTIONS",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Max-Age": "86400",
}


class Rendezvous:
    """One rendezvous. `start`, then `close` once."""

    def __init__(
        self,
        settings: RendezvousSettings,
        *,
        peer_limits: SocketLimits = PEER_SOCKETS,
        tracker_limits: SocketLimits = TRACKER_SOCKETS,
        clock: Clock = monotonic,
        bus: Bus | None = None,
    ) -> None:
        """A rendezvous document that cannot be read is no reason not to start: /healthz says so.

        Args: bus: the account `mesh`, where other instances are; None = this one is alone.
        """
        self._settings = settings
        self._path = f"/{settings.path.strip('/')}/".replace("//", "/")
        self._proxies: list[Network] = networks(settings.trusted_proxies)
        self._document = DocumentSource(settings.document, self._path, self._proxies)
        linked = bus is not None
        self._peers = PeerServer(linked=linked)
        self._tracker = Tracker(random.sample, linked=linked)
        peers, tracker = PeerServerMachine(self._peers), TrackerMachine(self._tracker)
        self._peer_sockets = SocketServer(
            "peerserver", peers, self._admission(), peer_limits, clock, proxies=self._proxies
        )
        self._tracker_sockets = SocketServer(
            "tracker", tracker, self._admission(), tracker_limits, clock, proxies=self._proxies
        )
        self._instances: Instances | None = None
        if bus is not None:
            self._instances = Instances(bus, self._peers, self._tracker, self._flush, clock)
            peers.on_link, tracker.on_news = self._instances.carry_out, self._instances.tell
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,  # URLs carry tokens
            # A few hundred KB of deflate hold the event loop for seconds, and nothing here has a body to read.
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=DRAIN_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        self.url = ""

    async def start(self) -> None:
        """Listen on the settings' host and port; `url` tells where.

        Raises: TransportError: it cannot; the text is for the person who started it.
        """
        host, port = self._settings.host, self._settings.port
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise TransportError(Cause.REFUSED, why_not_listening(error, "rendezvous", host, port)) from error
        if self._instances is not None:
            await self._instances.start()
        self._peer_sockets.start()
        self._tracker_sockets.start()
        bound_host, bound_port = self._runner.addresses[0][:2]
        self.url = local_url(bound_host, bound_port)

    async def close(self) -> None:
        """Drain and stop listening. Takes at most about DRAIN_S."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await asyncio.gather(self._peer_sockets.close(), self._tracker_sockets.close())
        if self._instances is not None:
            await self._instances.close()
        await self._runner.cleanup()

    def _flush(self) -> None:
        self._peer_sockets.flush()
        self._tracker_sockets.flush()

    async def failed(self) -> None:
        """Return when a part of it broke that it cannot serve without; the owner stops it then."""
        parts = [self._peer_sockets.failed, self._tracker_sockets.failed]
        if self._instances is not None:
            parts.append(self._instances.failed)
        waits = [asyncio.create_task(failed.wait()) for failed in parts]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(waits)

    def _admission(self) -> Admission:
        return Admission(self._settings.max_sockets, self._settings.max_sockets_per_address)

    def _application(self) -> web.Application:
        application = web.Application()
        key_path = f"{self._path}{DEFAULT_KEY}"
        application.add_routes(
            [
                web.get(self._path, self._root),
                web.get(f"{self._path}announce", self._tracker_sockets.handle),
                web.get(f"{self._path}announce/", self._tracker_sockets.handle),
                web.get(key_path, self._peer_sockets.handle),
                web.get(f"{self._path}{{key}}/id", self._new_id),
                web.get(f"{self._path}{{key}}/peers", self._list_peers),
                web.get(f"{self._path}rendezvous.json", self._document.handle),
                web.get("/healthz", self._health),
                web.options("/{any:.*}", self._preflight),
            ]
        )
        return application

    async def _root(self, request: web.Request) -> web.StreamResponse:
        if web.WebSocketResponse().can_prepare(request):
            return await self._tracker_sockets.handle(request)
        words = {"name": NAME, "description": DESCRIPTION, "website": WEBSITE}
        return web.json_response({**words, "document": f"{self._path}rendezvous.json"}, headers=ANY_ORIGIN)

    async def _preflight(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers=PREFLIGHT)

    async def _new_id(self, request: web.Request) -> web.Response:
        return web.Response(text=str(uuid.uuid4()), headers={**ANY_ORIGIN, "Cache-Control": "no-store"})

    async def _list_peers(self, request: web.Request) -> web.Response:
        if not self._settings.list_peers:
            return web.Response(status=401, text="Unauthorized", headers=ANY_ORIGIN)
        return web.json_response(self._peers.peer_ids(), headers=ANY_ORIGIN)

    async def _health(self, request: web.Request) -> web.Response:
        await self._document.reload()
        faults = self._document.faults
        entries = {"peerServer": self._peer_sockets, "tracker": self._tracker_sockets}
        return web.json_response(
            {
                "status": self._status(),
                "document": {
                    "state": "degraded" if self._document.problem else "ready",
                    "unusable": [{"list": each.list, "index": each.index, "reason": each.reason} for each in faults],
                },
                "otherInstances": self._instances.other_count if self._instances is not None else None,
                "peers": self._peers.peer_count,
                "swarms": self._tracker.swarm_count,
                "members": self._tracker.member_count,
                "sockets": {name: entry.socket_count for name, entry in entries.items()},
                "slowed": {name: entry.slowed_count for name, entry in entries.items()},
                "refused": {name: entry.refusals() for name, entry in entries.items()},
            }
        )

    def _status(self) -> str:
        if self._peer_sockets.is_closing:
            return "draining"
        return "degraded" if self._document.problem else "ok"
