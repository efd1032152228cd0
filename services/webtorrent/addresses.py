"""Our own addresses from configuration: where we listen, and where others reach us."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from dataclasses import dataclass

from services.webtorrent.endpoints import Endpoint, endpoint, is_wildcard
from shared.errors import Cause, TransportError
from shared.settings.config import WebtorrentSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OurAddresses:
    """host: IP literal to listen on, or a wildcard. advertise: IP literal, "" where none is configured."""

    host: str
    advertise: str

    def own(self, port: int) -> list[Endpoint]:
        """Endpoints that lead back to us, as far as configuration tells."""
        found = [endpoint(each, port) for each in (self.host, self.advertise) if not is_wildcard(each)]
        return [each for each in found if each is not None]

    def advertised(self, port: int, local_address: str) -> list[str]:
        """Our wire as others reach it: as configured, else where we listen, else as a socket of ours has it.

        local_address: our end of a socket to who passes this on; used where we listen on every address.
        """
        host = self.advertise or ("" if is_wildcard(self.host) else self.host) or local_address
        ours = endpoint(host, port)
        return [str(ours)] if ours is not None else []


async def our_addresses(settings: WebtorrentSettings) -> OurAddresses:
    """Resolve what configuration names. Raises: TransportError(REFUSED): a name of ours does not resolve."""
    advertise = await _resolve(settings.advertise) if settings.advertise else ""
    return OurAddresses(await _resolve(settings.host), advertise)


async def _resolve(host: str) -> str:
    if is_wildcard(host):
        return host
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        log.error("webtorrent.host or webtorrent.advertise does not resolve")
        raise TransportError(Cause.REFUSED, "an address of ours does not resolve") from error
    return str(found[0][4][0])
