"""The gateway: a node's HTTP API, its page and its live events, all from the bus.

Wires the pure models (transfers, status, traces, metrics) to the bus by `Feed`, puts and fetches by
`TransferCalls`, and HTTP by `HttpServer`. Exit code 3 with one line on stderr where its port is taken.
"""

from __future__ import annotations

import logging
from pathlib import Path

from services.gateway.api.blocking import BlocklistRoutes
from services.gateway.api.chaos import ChaosRoutes
from services.gateway.api.downloads import FileRoutes
from services.gateway.api.try_page import TryRoutes
from services.gateway.api.uploads import TransferRoutes
from services.gateway.api.views import ViewRoutes
from services.gateway.api.why_view import WhyRoutes
from services.gateway.http.auth import HostAllowList, Token
from services.gateway.http.events import EventHub
from services.gateway.http.guard import Guard
from services.gateway.http.server import ADDRESS_FILE, TOKEN_FILE, HttpServer, read_token
from services.gateway.model.feed import Feed
from services.gateway.transfers.calls import TransferCalls
from services.gateway.transfers.spool import Spool
from shared.gateway_api.proof import new_proof_key
from shared.process.address_file import remove_address, write_address
from shared.process.run import CannotStart, Process

SPOOL_FOLDER = "spool"

log = logging.getLogger(__name__)


async def app(process: Process) -> None:
    """Serve until the process is asked to stop.

    Raises: CannotStart for a taken port, a home that cannot be written, a token file that cannot be read.
    """
    settings, home = process.config.gateway, process.config.home
    spool = _swept_spool(home)
    token_file = Path(settings.token_file) if settings.token_file else home / TOKEN_FILE
    token = Token(read_token(token_file))

    proof_key = new_proof_key()
    hub = EventHub()
    feed = Feed(process.bus, process.subjects, process.flags, process.blocklist, hub.publish)
    calls = TransferCalls(process.bus, process.subjects, process.tasks, feed.transfers, feed.transfer_changed)
    files = FileRoutes(process.bus, process.subjects)
    node, flags = process.config.node, process.flags
    views = ViewRoutes(node.id, process.bus, feed, hub, flags, files, lambda: server.refused_connections)
    server = HttpServer(
        Guard(token, HostAllowList(settings.host, settings.allowed_hosts), proof_key),
        [
            *views.routes(),
            *WhyRoutes(feed).routes(),
            *TransferRoutes(calls, feed.transfers, spool, settings.max_upload_bytes).routes(),
            *files.routes(),
            *ChaosRoutes(flags, node).routes(),
            *TryRoutes(feed, process.config.broadcast).routes(),
            *BlocklistRoutes(process.blocklist, files.identity).routes(),
        ],
    )
    try:
        await feed.start()
        await calls.start()
        await server.start(settings.host, settings.port)
        _write_address(home, server.url, proof_key, token_file)
        process.tasks.start(feed.run(), name="feed")
        log.info("listening")
        process.serves()
        await process.stopping.wait()
    finally:
        remove_address(home, ADDRESS_FILE)
        hub.close()
        await server.close()
        await calls.close()
        await feed.close()


def _write_address(home: Path, url: str, proof_key: str, token_file: Path) -> None:
    # A token file that is not in the home is found by what the home says.
    elsewhere = token_file if token_file != home / TOKEN_FILE else None
    write_address(home, url, ADDRESS_FILE, proof_key, elsewhere)


def _swept_spool(home: Path) -> Spool:
    """Raises: CannotStart for a home that cannot be written."""
    spool = Spool(home / SPOOL_FOLDER)
    try:
        home.mkdir(parents=True, exist_ok=True)
        spool.sweep()
    except OSError:
        raise CannotStart(f"error: {home} cannot be written; see node.home") from None
    return spool
