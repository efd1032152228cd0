"""JSON bodies of requests, validated on the way in."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from services.gateway.http.problems import invalid
from shared.undecodable import UNDECODABLE

T = TypeVar("T")


async def json_request(request: web.Request, kind: type[T]) -> T:
    """The request's body as `kind`; at most limits.MAX_JSON_BYTES (the application's client_max_size).

    Raises: ApiProblem, 400 `invalid`.
    """
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except UNDECODABLE:
        raise invalid("the body is not the JSON this address takes", "see services/gateway/README.md") from None
