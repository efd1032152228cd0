"""Chaos flags over HTTP: set and clear them, where this node may have any."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from services.gateway.http.answers import json_answer
from services.gateway.http.bodies import json_request
from services.gateway.http.problems import ApiProblem, invalid, not_found
from shared.errors import Cause
from shared.settings.chaos import ChaosFlag, chaos_allowed
from shared.settings.config import NodeSettings
from shared.settings.flags import Flags
from shared.transports import TransportName


def flags_view(flags: Flags) -> dict[str, Any]:
    """GET /api/flags: every switch by name, and `chaos`: the faults that are set, by transport."""
    return {**flags.snapshot(), "chaos": flags.chaos_snapshot()}


class ChaosRoutes:
    """PUT and DELETE /api/chaos/{transport}; both answer as GET /api/flags does."""

    def __init__(self, flags: Flags, node: NodeSettings) -> None:
        self._flags = flags
        self._allowed = chaos_allowed(node)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.put("/api/chaos/{transport}", self._set),
            web.delete("/api/chaos/{transport}", self._clear),
        ]

    async def _set(self, request: web.Request) -> web.Response:
        transport = _transport(request)
        if not self._allowed:
            raise ApiProblem(
                403,
                Cause.FORBIDDEN.value,
                "this node runs in production, where nothing is broken on purpose",
                "set node.environment to development, or node.allow_chaos to true, and restart it",
            )
        flag = await json_request(request, ChaosFlag)
        if flag.problem:
            raise invalid(flag.problem)
        await self._flags.set_chaos(transport, flag)
        return json_answer(flags_view(self._flags))

    async def _clear(self, request: web.Request) -> web.Response:
        """Allowed everywhere: what was set in development must not stay for good."""
        await self._flags.set_chaos(_transport(request), None)
        return json_answer(flags_view(self._flags))


def _transport(request: web.Request) -> TransportName:
    try:
        return TransportName(request.match_info["transport"])
    except ValueError:
        raise not_found("no such transport", f"known: {', '.join(TransportName)}") from None
