"""The blocklist over HTTP: who is blocked, block a peer, lift a block. In force on the whole node within 100 ms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from services.gateway.api.peers import named_peer
from services.gateway.http.answers import ApiStruct, json_answer
from services.gateway.http.bodies import json_request
from services.gateway.http.problems import ApiProblem, invalid, not_found
from services.gateway.model.blocks import blocklist_view
from shared.errors import BusError, Cause, SwarmbridgeError
from shared.ids import peer_name
from shared.settings.blocklist import MAX_NOTE_CHARS, Blocklist, Direction
from shared.text import is_safe_text


class BlockRequest(ApiStruct, frozen=True):
    """note: why, for people: MAX_NOTE_CHARS printable characters at most."""

    direction: Direction = Direction.ALL
    note: str = ""


class BlocklistRoutes:
    """GET /api/blocklist, PUT and DELETE /api/blocklist/{peer}; each answers the list as it is then.

    identity: asks for the node's own peer token; raises BusError where nobody knows it.
    """

    def __init__(self, blocklist: Blocklist, identity: Callable[[], Awaitable[str]]) -> None:
        self._blocklist = blocklist
        self._identity = identity

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/blocklist", self._list),
            web.put("/api/blocklist/{peer}", self._block),
            web.delete("/api/blocklist/{peer}", self._unblock),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        return json_answer(blocklist_view(self._blocklist))

    async def _block(self, request: web.Request) -> web.Response:
        peer = _peer(request)
        wanted = await json_request(request, BlockRequest)
        if len(wanted.note) > MAX_NOTE_CHARS:
            raise invalid("the note is too long", f"say it in {MAX_NOTE_CHARS} characters")
        if not is_safe_text(wanted.note):
            raise invalid("the note has characters that cannot be printed", "write it in one line, as plain text")
        if await self._is_us(peer):
            raise invalid("this is the node itself", "name another peer; see `swarmbridge peers`")
        try:
            await self._blocklist.block(peer, wanted.direction, wanted.note)
        except SwarmbridgeError as error:
            if error.cause is not Cause.TOO_LARGE:
                raise
            raise ApiProblem(
                409, error.cause.value, "the blocklist is full", "lift a block that is needed no more first"
            ) from None
        return json_answer(blocklist_view(self._blocklist))

    async def _unblock(self, request: web.Request) -> web.Response:
        if not await self._blocklist.unblock(_peer(request)):
            raise not_found("this peer is not blocked", "see `swarmbridge blocklist`")
        return json_answer(blocklist_view(self._blocklist))

    async def _is_us(self, peer: str) -> bool:
        """Where the node cannot say who it is, it is not held up: a block of itself would only be of no use."""
        try:
            return peer == peer_name(await self._identity())
        except BusError:
            return False


def _peer(request: web.Request) -> str:
    peer = named_peer(request.match_info["peer"])
    if peer is None:
        raise invalid("this names no peer", "give a peer's name (peer-…, guest-…) or token (k…, g…)")
    return peer
