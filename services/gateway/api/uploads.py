"""POST /api/files and /api/fetches: what starts a transfer; and the transfers themselves.

*Back-pressure*: an upload is read as fast as the disk takes it, limits.MAX_UPLOADS at a time, and others wait their
turn; the put that follows is pulled from the spool by the chunk service when it has room.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from services.gateway.http.answers import json_answer
from services.gateway.http.bodies import json_request
from services.gateway.http.problems import ApiProblem, invalid, not_found
from services.gateway.transfers import limits
from services.gateway.transfers.board import TransferBoard
from services.gateway.transfers.calls import TransferCalls
from services.gateway.transfers.spool import Spool, SpoolFile
from shared.content.link import parse_link
from shared.errors import Cause, RemoteFailure, SwarmbridgeError
from shared.gateway_api.structs import FetchRequest, Started
from shared.text import is_safe_text, shows_something

CONTENT_CLASSES = ("shared", "mesh", "private")
MAX_NAME_CHARS = 255
DEFAULT_NAME = "file"
DEFAULT_MIME = "application/octet-stream"
READ_BYTES = limits.MIB // 4
_MIME = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}(; ?[A-Za-z0-9=\"_.+-]{1,64})?")


class TransferRoutes:
    """Starts, shows and cancels transfers."""

    def __init__(self, calls: TransferCalls, transfers: TransferBoard, spool: Spool, max_upload_bytes: int) -> None:
        self._calls = calls
        self._transfers = transfers
        self._spool = spool
        self._max_upload_bytes = max_upload_bytes
        self._uploads = 0
        self._turns = asyncio.Semaphore(limits.MAX_UPLOADS)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/files", self._put),
            web.post("/api/fetches", self._fetch),
            web.get("/api/transfers", self._list),
            web.get("/api/transfers/{id}", self._get),
            web.delete("/api/transfers/{id}", self._cancel),
        ]

    async def _put(self, request: web.Request) -> web.Response:
        name, mime, content_class = _described(request)
        if (request.content_length or 0) > self._max_upload_bytes:
            raise self._too_large()
        again = request.query.get("again", "") in ("1", "true")
        self._calls.check_room()
        if self._uploads >= limits.MAX_UPLOADS + limits.MAX_WAITING_UPLOADS:
            raise RemoteFailure(Cause.BUSY, 5.0)
        self._uploads += 1
        try:
            # Whoever waits has sent no more than the socket's buffer holds.
            async with self._turns:
                spooled = self._spool.open()
                try:
                    await self._spool_all(request, spooled)
                    transfer = self._calls.start_put(spooled, name, mime, content_class, again=again)
                except BaseException:
                    spooled.close()
                    raise
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise ApiProblem(503, "busy", "the spool cannot be written", "make room in the node's home") from error
        finally:
            self._uploads -= 1
        return json_answer(Started(transfer.id), status=202)

    async def _spool_all(self, request: web.Request, spooled: SpoolFile) -> None:
        try:
            await spooled.write_all(request.content.iter_chunked(READ_BYTES), self._max_upload_bytes)
        except SwarmbridgeError as error:
            raise (self._too_large() if error.cause is Cause.TOO_LARGE else error) from error

    def _too_large(self) -> ApiProblem:
        """It is this gateway's limit, not the store's, and only this gateway's setting moves it."""
        return ApiProblem(
            413,
            Cause.TOO_LARGE.value,
            f"the upload is larger than this gateway takes ({self._max_upload_bytes} bytes)",
            "raise gateway.max_upload_bytes, or send less",
        )

    async def _fetch(self, request: web.Request) -> web.Response:
        body = await json_request(request, FetchRequest)
        try:
            link = parse_link(body.link)
        except SwarmbridgeError as error:
            # The one text of ours that may be shown: it speaks of the form of what the caller sent.
            raise invalid(str(error), "paste the whole link that `put` printed") from error
        return json_answer(Started(self._calls.start_fetch(link.without_key()).id), status=202)

    async def _list(self, request: web.Request) -> web.Response:
        return json_answer(self._transfers.newest_first())

    async def _get(self, request: web.Request) -> web.Response:
        transfer = self._transfers.get(request.match_info["id"])
        if transfer is None:
            raise not_found("no such transfer", "see `GET /api/transfers`; ended ones are forgotten after a while")
        return json_answer(transfer)

    async def _cancel(self, request: web.Request) -> web.Response:
        transfer_id = request.match_info["id"]
        if not await self._calls.cancel(transfer_id):
            if self._transfers.get(transfer_id) is None:
                raise not_found("no such transfer")
            raise ApiProblem(409, "refused", "it has ended, or another gateway runs it", "see its state")
        return json_answer(self._transfers.get(transfer_id))


def _described(request: web.Request) -> tuple[str, str, str]:
    """Name, mime type and class of an upload, from its query."""
    content_class = request.query.get("class", CONTENT_CLASSES[0])
    if content_class not in CONTENT_CLASSES:
        raise invalid("class is shared, mesh or private")
    mime = request.query.get("mime", DEFAULT_MIME)
    if not _MIME.fullmatch(mime):
        raise invalid("mime is no media type", "leave it out, or say for example image/png")
    # The last part alone: a name is for people and never leads to another folder.
    name = re.split(r"[/\\]", request.query.get("name", ""))[-1].strip() or DEFAULT_NAME
    if len(name) > MAX_NAME_CHARS or name in (".", ".."):
        raise invalid(f"name is at most {MAX_NAME_CHARS} characters")
    if not is_safe_text(name) or not shows_something(name):
        raise invalid("name holds control characters or direction overrides, or shows nothing", "give another name")
    return name, mime, content_class
