"""PeerServer tokens: one a server, from the chunk service, which alone has the root key (docs/trust.md#keys)."""

from __future__ import annotations

from urllib.parse import urlsplit

from shared.bus.contract import Bus
from shared.bus.messages.envelopes import PeerjsToken, PeerjsTokenRequest
from shared.bus.messages.subjects import Subjects
from shared.settings.rendezvous import PeerServer

TOKEN_TIMEOUT_S = 2.0


class ServerTokens:
    """Asks once for each server's origin. The token stays the same for the life of the identity (docs/peerjs.md)."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self._tokens: dict[str, str] = {}

    async def token(self, server: PeerServer) -> str:
        """Raises: BusError where the chunk service cannot be asked now."""
        name = origin(server)
        if name not in self._tokens:
            request = PeerjsTokenRequest(name)
            reply = await self._bus.request(self._subjects.peerjs_token, request, PeerjsToken, TOKEN_TIMEOUT_S)
            self._tokens[name] = reply.token
        return self._tokens[name]


def origin(server: PeerServer) -> str:
    """scheme://host:port with the port always there, so that two spellings of a server get one token."""
    parts = urlsplit(server.url)
    port = parts.port or (443 if parts.scheme in ("https", "wss") else 80)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.hostname or ''}:{port}"
