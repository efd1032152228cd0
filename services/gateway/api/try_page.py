"""The page `/try` and what it needs to know: where pages join the node, on which channel, with which token.

Its policy is the other page's with one place more: the worker whose script it loads and whose socket it opens.
"""

from __future__ import annotations

import logging
from pathlib import Path

from aiohttp import web

from services.gateway.http.answers import json_answer
from services.gateway.http.guard import page_policy
from services.gateway.http.page import TRY_PAGE, page_handler
from services.gateway.model.feed import Feed
from shared.gateway_api.structs import PagesView
from shared.settings.config import PAGE_ORIGIN, BroadcastSettings

log = logging.getLogger(__name__)


class TryRoutes:
    """GET /try and /api/pages."""

    def __init__(self, feed: Feed, settings: BroadcastSettings) -> None:
        self._feed = feed
        self._settings = settings
        self._page = page_handler(TRY_PAGE)

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/try", self._try), web.get("/api/pages", self._pages)]

    async def _try(self, request: web.Request) -> web.StreamResponse:
        response = await self._page(request)
        response.headers["Content-Security-Policy"] = page_policy(self._url())
        return response

    async def _pages(self, request: web.Request) -> web.Response:
        return json_answer(PagesView(self._url(), self._settings.channel, self._token()))

    def _url(self) -> str:
        """What a worker says, where it is an origin and nothing else: it becomes part of a policy."""
        url = self._feed.pages_url()
        return url if PAGE_ORIGIN.fullmatch(url) else ""

    def _token(self) -> str:
        """The worker's own token file, where the gateway may read it: who asks has shown the operator's."""
        if not self._settings.token_file:
            return ""
        try:
            return Path(self._settings.token_file).read_text().strip()
        except (OSError, UnicodeDecodeError):
            log.warning("broadcast.token_file cannot be read: /try has no token for the worker")
            return ""
