"""JSON out of the HTTP API; what is in it are the structs of shared.gateway_api."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web


def json_answer(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with `body` as JSON. Never cached: everything here is live."""
    all_headers = {"Cache-Control": "no-store", **(headers or {})}
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json", headers=all_headers
    )
