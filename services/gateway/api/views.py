"""The read-only half of the API, and the flags: everything that answers from memory."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from services.gateway.api.chaos import flags_view
from services.gateway.api.downloads import FileRoutes
from services.gateway.http.answers import json_answer
from services.gateway.http.bodies import json_request
from services.gateway.http.events import EventHub
from services.gateway.http.problems import not_found
from services.gateway.http.queries import whole_number
from services.gateway.model import limits, metrics
from services.gateway.model.feed import Feed
from services.gateway.model.traces import Trace, span_view
from shared.bus.contract import Bus
from shared.gateway_api.structs import FlagRequest, NodeView
from shared.gateway_api.traces import waterfall
from shared.ids import peer_name
from shared.settings.flags import Flags
from shared.version import VERSION

DEFAULT_ROWS = 100


class ViewRoutes:
    """GET /healthz, /metrics and the views under /api."""

    def __init__(
        self,
        node: str,
        bus: Bus,
        feed: Feed,
        hub: EventHub,
        flags: Flags,
        files: FileRoutes,
        refused_connections: Callable[[], int],
    ) -> None:
        self._node = node
        self._bus = bus
        self._feed = feed
        self._hub = hub
        self._flags = flags
        self._files = files
        self._refused_connections = refused_connections

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self._healthz),
            web.get("/metrics", self._metrics),
            web.get("/api/node", self._node_view),
            web.get("/api/peers", self._peers),
            web.get("/api/stats", self._stats),
            web.get("/api/flags", self._flag_list),
            web.put("/api/flags/{name}", self._set_flag),
            web.get("/api/hops", self._hops),
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
        found = metrics.Metrics(
            self._feed.totals,
            stats.transports,
            stats.managers,
            self._feed.blocked_count(),
            self._refused_connections(),
        )
        text, content_type = metrics.render(found, request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _node_view(self, request: web.Request) -> web.Response:
        peer = await self._files.identity()
        return json_answer(NodeView(self._node, peer, peer_name(peer), VERSION))

    async def _peers(self, request: web.Request) -> web.Response:
        return json_answer(self._feed.peers())

    async def _stats(self, request: web.Request) -> web.Response:
        return json_answer(self._feed.stats())

    async def _flag_list(self, request: web.Request) -> web.Response:
        return json_answer(flags_view(self._flags))

    async def _hops(self, request: web.Request) -> web.Response:
        limit = whole_number(request, "limit", DEFAULT_ROWS, 1, limits.MAX_HOPS)
        return json_answer(self._feed.recent_hops(request.query.get("transfer", ""), limit))

    async def _traces(self, request: web.Request) -> web.Response:
        only = request.query.get("fallback", "") in ("1", "true")
        limit = whole_number(request, "limit", DEFAULT_ROWS, 1, limits.MAX_TRACES)
        found = self._feed.traces.newest_first(fallback_only=only, limit=limit)
        return json_answer(found)

    def _trace(self, request: web.Request) -> Trace:
        trace = self._feed.traces.get(request.match_info["trace_id"])
        if trace is None or not trace.spans:
            raise not_found("no such trace", "it may have made room for newer ones; see `GET /api/traces`")
        return trace

    async def _spans(self, request: web.Request) -> web.Response:
        return json_answer([span_view(span) for span in self._trace(request).spans])

    async def _waterfall(self, request: web.Request) -> web.Response:
        trace = self._trace(request)
        return json_answer(waterfall(trace.trace_id, trace.spans, fallback=trace.fallback, dropped=trace.dropped))

    async def _diagnostics(self, request: web.Request) -> web.Response:
        return json_answer(list(reversed(self._feed.diagnostics)))

    async def _set_flag(self, request: web.Request) -> web.Response:
        body = await json_request(request, FlagRequest)
        try:
            await self._flags.set_named(request.match_info["name"], body.enabled)
        except KeyError:
            raise not_found("no such flag", f"known: {', '.join(self._flags.snapshot())}") from None
        return json_answer(flags_view(self._flags))
