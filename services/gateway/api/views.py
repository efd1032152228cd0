"""The read-only half of the API, and the flags: everything that answers from memory."""

from __future__ import annotations

from aiohttp import web

from services.gateway.api.chaos import flags_view
from services.gateway.api.downloads import FileRoutes
from services.gateway.http import limits
from services.gateway.http.answers import ApiStruct, json_answer
from services.gateway.http.bodies import json_request
from services.gateway.http.events import EventHub
from services.gateway.http.problems import invalid, not_found
from services.gateway.model import metrics
from services.gateway.model.feed import Feed
from services.gateway.model.traces import Trace, span_view
from services.gateway.model.waterfall import waterfall
from shared.bus.contract import Bus
from shared.ids import peer_name
from shared.settings.flags import Flags
from shared.version import VERSION

DEFAULT_ROWS = 100


class NodeView(ApiStruct, frozen=True):
    """peer: this node's own token, for another's `trust.members` and for links. name: how telemetry calls it."""

    node: str
    peer: str
    name: str
    version: str


class FlagRequest(ApiStruct, frozen=True):
    enabled: bool


class ViewRoutes:
    """GET /healthz, /metrics and the views under /api."""

    def __init__(self, node: str, bus: Bus, feed: Feed, hub: EventHub, flags: Flags, files: FileRoutes) -> None:
        self._node = node
        self._bus = bus
        self._feed = feed
        self._hub = hub
        self._flags = flags
        self._files = files

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self._healthz),
            web.get("/metrics", self._metrics),
            web.get("/api/node", self._node_view),
            web.get("/api/peers", self._peers),
            web.get("/api/stats", self._stats),
            web.get("/api/flags", self._flag_list),
            web.put("/api/flags/{name}", self._set_flag),
            web.get("/api/attempts", self._attempts),
            web.get("/api/traces", self._traces),
            web.get("/api/traces/{trace_id}", self._spans),
            web.get("/api/traces/{trace_id}/waterfall", self._waterfall),
            web.get("/api/diagnostics", self._diagnostics),
            web.get("/api/events", self._hub.serve),
        ]

    async def _healthz(self, request: web.Request) -> web.Response:
        """For an orchestrator: can this process do its work? A degraded transport is not its illness."""
        if self._bus.connected:
            return json_answer({"status": "ok"})
        return json_answer({"status": "unavailable"}, status=503)

    async def _metrics(self, request: web.Request) -> web.Response:
        stats = self._feed.stats()
        text = metrics.render(self._feed.totals, stats.transports, stats.managers, self._feed.blocked_count())
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _node_view(self, request: web.Request) -> web.Response:
        peer = await self._files.identity()
        return json_answer(NodeView(self._node, peer, peer_name(peer), VERSION))

    async def _peers(self, request: web.Request) -> web.Response:
        return json_answer(self._feed.peers())

    async def _stats(self, request: web.Request) -> web.Response:
        return json_answer(self._feed.stats())

    async def _flag_list(self, request: web.Request) -> web.Response:
        return json_answer(flags_view(self._flags))

    async def _attempts(self, request: web.Request) -> web.Response:
        limit = _limit(request, limits.MAX_ATTEMPTS)
        return json_answer(self._feed.recent_attempts(request.query.get("transfer", ""), limit))

    async def _traces(self, request: web.Request) -> web.Response:
        only = request.query.get("fallback", "") in ("1", "true")
        found = self._feed.traces.newest_first(fallback_only=only, limit=_limit(request, limits.MAX_TRACES))
        return json_answer(found)

    def _trace(self, request: web.Request) -> Trace:
        trace = self._feed.traces.get(request.match_info["trace_id"])
        if trace is None or not trace.spans:
            raise not_found("no such trace", "it may have made room for newer ones; see `GET /api/traces`")
        return trace

    async def _spans(self, request: web.Request) -> web.Response:
        return json_answer([span_view(span) for span in self._trace(request).spans])

    async def _waterfall(self, request: web.Request) -> web.Response:
        return json_answer(waterfall(self._trace(request)))

    async def _diagnostics(self, request: web.Request) -> web.Response:
        return json_answer(list(reversed(self._feed.diagnostics)))

    async def _set_flag(self, request: web.Request) -> web.Response:
        body = await json_request(request, FlagRequest)
        try:
            await self._flags.set_named(request.match_info["name"], body.enabled)
        except KeyError:
            raise not_found("no such flag", f"known: {', '.join(self._flags.snapshot())}") from None
        return json_answer(flags_view(self._flags))


def _limit(request: web.Request, most: int) -> int:
    text = request.query.get("limit", str(DEFAULT_ROWS))
    # Its length first: int() refuses thousands of digits with an error of its own.
    if len(text) > len(str(most)) or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise invalid(f"limit is a whole number from 1 to {most}")
    return int(text)
